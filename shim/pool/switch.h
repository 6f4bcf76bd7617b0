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

#include "base/clock.h"
#include "base/compiler.h"

/* Follows the wish that was read (stats_has_wish). NOW is the time of clock_now(). Called
 * without locks; errno is kept. */
COLD void switch_follow(msec_t now);

/* In the child of a fork. */
COLD void switch_after_fork_in_child(void);

#endif
