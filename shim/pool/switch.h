/*
 * The live switch: `mcpool off`, `on`, `dry` and `flush` reach a running process by a file
 * (stats/switch_file.h), which is looked for once a second (pool/due.h).
 *
 * Off means that no new socket is tracked, so every hook on it is a plain call. What the
 * program has at that moment stays tracked until it is closed, because a reused connection must
 * go on to answer as a new one would; it is not kept. A child has the mode of its parent.
 */
#ifndef MCPOOL_SWITCH_H
#define MCPOOL_SWITCH_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "stats/switch_file.h"

/* An enum mode; pool_start() sets the first one. Relaxed where it only saves work; see
 * may_be_idle() in pool/pool.c for the order that counts. */
extern _Atomic unsigned int switch_mode __attribute__((visibility("hidden")));

/* Seq_cst, as the check-in needs it. */
static inline enum mode switch_mode_now(void)
{
    return (enum mode)atomic_load(&switch_mode);
}

static inline bool switch_is_off(void)
{
    return __builtin_expect(
        atomic_load_explicit(&switch_mode, memory_order_relaxed) == MODE_OFF, 0);
}

/* While it is off, a call that would be tracked otherwise looks whether it still is. Such a
 * process counts nothing; if it never did, its file of counters is made here, as the command
 * finds a process by that file. Called without locks; errno is kept. */
COLD void switch_passed(void);

/* Follows the wish that was read (stats_has_wish). NOW is the time of clock_now(). Called
 * without locks; errno is kept. */
COLD void switch_follow(msec_t now);

/* In the child of a fork. */
COLD void switch_after_fork_in_child(void);

#endif
