/*
 * Work that is put off until the process goes to wait, or ends. We have no thread, and a hit
 * must not pay for it, so the call that waits next does it. When it is too early then, the wait
 * is cut (hooks/cut_wait.h).
 *
 * To add work: its condition in due_is_anything(), its time in due_in(), the work itself in
 * due_slow().
 */
#ifndef MCPOOL_DUE_H
#define MCPOOL_DUE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "stats/stats.h"

/* Whether there is anything to do, now or later. */
static inline bool due_is_anything(void)
{
    return __builtin_expect(
        atomic_load_explicit(&stats_state, memory_order_relaxed) == STATS_UNWRITTEN, 0);
}

/* Does what is due by now; makes system calls, keeps errno, is no cancellation point, takes no
 * lock. */
COLD void due_slow(void);

/* The same; returns in how many milliseconds the next thing is due, 0: there is none, as in a
 * process that does not own what is to be done (base/owner.h). */
COLD msec_t due_in(void);

/* For waits that are not cut: accept(), as it is not known whether the program wants it to be
 * restarted after a signal, and all waits of a process with several threads, as another thread
 * may close what is waited for between the pieces. The work is done before it is due instead, a
 * few times in a row, and once a second in the long run. */
COLD void due_ahead_slow(void);

static inline void due_ahead(void)
{
    if (due_is_anything())
        due_ahead_slow();
}

/* The process ends without destructors. */
COLD void due_before_end(void);

#endif
