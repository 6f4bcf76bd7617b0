/*
 * Doing what is due.
 */
#include "pool/due.h"

#include <errno.h>

#include "base/owner.h"
#include "pool/spare.h"
#include "pool/switch.h"
#include "stats/mode.h"

/* How often in a row work may be done before it is due. */
#define IN_A_ROW 4

static bool is_unwritten(void)
{
    return atomic_load_explicit(&stats_state, memory_order_relaxed) == STATS_UNWRITTEN;
}

bool due_is_now(void)
{
    return clock_now() >= atomic_load_explicit(&stats_due, memory_order_relaxed);
}

void due_do(msec_t now)
{
    stats_write(now);
    if (switch_follow())
        stats_write(now);
    /* A check-out that was under way may have kept one after that. */
    if (mode_is_off())
        spare_flush();
}

void due_when_off(void)
{
    int saved = errno;

    if (atomic_load(&stats_wanted) && atomic_load(&stats_state) == STATS_NO_FILE)
        stats_make();
    due_at(clock_now());
    errno = saved;
}

void due_slow(void)
{
    due_at(clock_now());
}

msec_t due_in(void)
{
    msec_t now = clock_now();

    if (!owner_is_this_process())
        return 0;
    due_at(now);
    return is_unwritten() ? stats_in(now) : 0;
}

void due_ahead_slow(void)
{
    /* Each early write pays for one period. It is refused while IN_A_ROW periods lie ahead. */
    static _Atomic msec_t paid_until;
    msec_t now = clock_now();
    msec_t until = atomic_load(&paid_until);

    if (until - now > (IN_A_ROW - 1) * STATS_PERIOD) {
        due_at(now);
        return;
    }
    atomic_store(&paid_until, (until > now ? until : now) + STATS_PERIOD);
    due_do(now);
}

void due_before_end(void)
{
    if (is_unwritten())
        stats_write(clock_now());
}
