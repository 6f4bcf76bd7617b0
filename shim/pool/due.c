/*
 * Doing what is due.
 */
#include "pool/due.h"

#include <errno.h>

#include "base/owner.h"
#include "pool/sharing.h"
#include "pool/spare.h"
#include "pool/switch.h"
#include "stats/mode.h"

/* How often in a row counters may be written before they are due. */
#define IN_A_ROW 4

void due_each_second_slow(msec_t now)
{
    int saved = errno;

    stats_write(now);
    if (switch_follow())
        stats_write(now);
    /* A check-out that was under way may have kept one after that. */
    if (mode_is_off())
        spare_flush();
    errno = saved;
}

void due_after_connect_slow(void)
{
    int saved = errno;

    endpoint_publish();
    due_each_second(clock_now());
    errno = saved;
}

void due_when_off(void)
{
    int saved = errno;

    if (atomic_load(&stats_wanted) && atomic_load(&stats_state) == STATS_NO_FILE)
        stats_make();
    due_each_second(clock_now());
    errno = saved;
}

bool due_is_look(void)
{
    return clock_now() >= atomic_load_explicit(&stats_due, memory_order_relaxed);
}

static bool counters_are_unwritten(void)
{
    /* relaxed: as in due_is_anything() */
    return atomic_load_explicit(&stats_state, memory_order_relaxed) == STATS_UNWRITTEN;
}

/* Closes what is due by NOW. The host may have been suspended during a piece of a wait. */
static void do_custody(msec_t now)
{
    if (now < custody_due_at())
        return;
    clock_note_suspension();
    custody_do_due(clock_now());
}

/* Closing is counted, so it comes before the counters are written. */
static void do_due(msec_t now)
{
    do_custody(now);
    due_each_second(now);
}

msec_t due_in(msec_t waited)
{
    msec_t now = clock_now(), in, shared;

    if (!owner_is_this_process())
        return 0;
    shared = sharing_in(now, waited);
    do_due(now);
    in = custody_in(now);
    if (shared < in)
        in = shared;
    if (counters_are_unwritten() && stats_in(now) < in)
        in = stats_in(now);
    return in == POOL_NEVER ? 0 : in;
}

static void write_ahead(msec_t now)
{
    /* Each early write pays for one period. It is refused while IN_A_ROW periods lie ahead. */
    static _Atomic msec_t paid_until;
    msec_t until = atomic_load(&paid_until);

    if (!counters_are_unwritten() || until - now > (IN_A_ROW - 1) * STATS_PERIOD) {
        due_each_second(now);
        return;
    }
    atomic_store(&paid_until, (until > now ? until : now) + STATS_PERIOD);
    due_each_second_slow(now);
}

void due_ahead_slow(void)
{
    msec_t now = clock_now();

    if (owner_is_this_process())
        do_custody(now);
    write_ahead(now);
}

void due_before_accept_slow(int fd)
{
    if (owner_is_this_process())
        custody_before_accept(fd, clock_now());
    due_ahead_slow();
}

void due_before_sleep(msec_t length)
{
    if (owner_is_this_process())
        custody_before_sleep(clock_now(), length);
    due_ahead_slow();
}

void due_after_wait_slow(void)
{
    if (owner_is_this_process())
        clock_note_suspension();
}

void due_before_end(void)
{
    sharing_at_end();
    if (counters_are_unwritten())
        stats_write(clock_now());
}
