/*
 * The live switch: `mcpool off`, `on`, `dry` and `flush` reach a running process by a file
 * (stats/switch_file.h), which is looked for once a second (pool/due.h).
 *
 * Off means that no new socket is tracked, so every hook on it is a plain call. What the
 * program has at that moment stays tracked until it is closed, because a reused connection must
 * go on to answer as a new one would; it is not kept.
 */
#ifndef MCPOOL_SWITCH_H
#define MCPOOL_SWITCH_H

#include <stdbool.h>

#include "base/compiler.h"

/* Follows what an operator wishes, if there is anything new. True if it did: the file of
 * counters is to be written, which says so. With signals blocked, so that no handler jumps out.
 * Called without locks; errno is kept. */
COLD bool switch_follow(void);

/* In the child of a fork. */
COLD void switch_after_fork_in_child(void);

#endif
