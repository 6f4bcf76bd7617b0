/*
 * Work that is put off until the process waits or ends. We have no thread, and a hit must not
 * pay for it, so the next call that waits does it. If that is too early, the wait is cut into
 * pieces (hooks/pieces.h).
 *
 * To add work: its condition goes to due_is_anything(), its time to due_in(), the work itself
 * to do_due() in due.c.
 *
 * In a process that shows counters the file is looked at once a second, by any call that counts
 * or waits, for what an operator wishes (pool/switch.h). No process is woken for that.
 */
#ifndef MCPOOL_DUE_H
#define MCPOOL_DUE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "pool/custody.h"
#include "pool/family.h"
#include "pool/members.h"
#include "pool/tending.h"
#include "stats/stats.h"

/* Whether a look for a wish is due. Reads the clock. */
COLD bool due_is_look(void);

/* Whether there is anything to do, now or later. */
static inline bool due_is_anything(void)
{
    /* relaxed: a hint, an old value costs one look or misses one */
    unsigned int state = atomic_load_explicit(&stats_state, memory_order_relaxed);

    return __builtin_expect(state == STATS_UNWRITTEN || custody_due_at() != POOL_NEVER ||
                                family_has_queued() ||
                                (state == STATS_WRITTEN && due_is_look()),
                            0);
}

/* Writes the counters and looks for a wish, whether that is due or not. NOW is the time of
 * clock_now(). For what may be called meanwhile see due_in(). */
COLD void due_each_second_slow(msec_t now);

/* The same, if a second has passed. For calls that have counted something and know the time. */
static inline void due_each_second(msec_t now)
{
    /* relaxed: a hint as well */
    if (now >= atomic_load_explicit(&stats_due, memory_order_relaxed))
        due_each_second_slow(now);
}

/* Does what is due by now, in a wait that has lasted for WAITED milliseconds. Returns in how
 * many milliseconds the next work is due; 0 if there is none, and in a process that is not the
 * owner (base/owner.h); 1 if it is due when nothing is ready now. Makes system calls. Waits for
 * no lock, but for the pool's when it follows a wish, so none may be held. Is no cancellation
 * point, keeps errno. */
COLD msec_t due_in(msec_t waited);

/* Before a wait that is cut if there is work: for TIMEOUT milliseconds, negative without an
 * end.
 */
static inline void due_before_wait(int timeout)
{
    if (__builtin_expect(family_get() != NULL, 0) && timeout > 0)
        tending_note_wait(timeout);
}

/* Before a wait that is not cut: writes the counters before they are due, a few times in a row,
 * and once a second in the long run. */
COLD void due_ahead_slow(void);

/* The same before accept(FD). It is not cut, as we cannot know whether the program wants it
 * restarted after a signal. */
COLD void due_before_accept_slow(int fd);

static inline void due_before_accept(int fd)
{
    if (due_is_anything() || members_self_is(MEMBER_AT_WORK))
        due_before_accept_slow(fd);
}

/* The same before a sleep of so many milliseconds, for work that becomes due during it. Called
 * if due_is_anything(). */
COLD void due_before_sleep(msec_t length);

/* After a wait: if the host was suspended meanwhile, the connections that idle have aged. */
COLD void due_after_wait_slow(void);

static inline int due_after_wait(int result)
{
    members_note_woken();
    if (due_is_anything())
        due_after_wait_slow();
    return result;
}

/* After a connect(): if it was the first one to an endpoint, its counters go to the file. Takes
 * more than a kilobyte of the stack, so the hook calls it where little else is there. Keeps
 * errno. Relaxed: what another thread has just noted is written by that thread. */
COLD void due_after_connect_slow(void);

static inline void due_after_connect(void)
{
    if (__builtin_expect(
            atomic_load_explicit(&endpoint_unpublished, memory_order_relaxed) != NULL, 0))
        due_after_connect_slow();
}

/* While it is off (stats/mode.h), a call that would be tracked otherwise looks whether it still
 * is. Such a process counts nothing; if it never did, its file of counters is made here, as the
 * command finds a process by that file. Called without locks; errno is kept. */
COLD void due_when_off(void);

/* Before the process ends without destructors. */
COLD void due_before_end(void);

#endif
