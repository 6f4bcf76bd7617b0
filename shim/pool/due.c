/*
 * Doing what is due.
 */
#include "pool/due.h"

#include "base/owner.h"

/* How often in a row work may be done before it is due. */
#define IN_A_ROW 4

void due_slow(void)
{
    stats_write_if_due(clock_now());
}

msec_t due_in(void)
{
    msec_t now = clock_now();

    if (!owner_is_this_process())
        return 0;
    stats_write_if_due(now);
    return due_is_anything() ? stats_in(now) : 0;
}

void due_ahead_slow(void)
{
    /* Each early write pays for one period. It is refused while IN_A_ROW periods lie ahead. */
    static _Atomic msec_t paid_until;
    msec_t now = clock_now();
    msec_t until = atomic_load(&paid_until);

    if (until - now > (IN_A_ROW - 1) * STATS_PERIOD) {
        stats_write_if_due(now);
        return;
    }
    atomic_store(&paid_until, (until > now ? until : now) + STATS_PERIOD);
    stats_write(now);
}

void due_before_end(void)
{
    if (due_is_anything())
        stats_write(clock_now());
}
