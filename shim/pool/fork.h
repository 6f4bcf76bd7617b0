/*
 * The handlers of pthread_atfork(3). In the child the pool is empty: the connections stay the
 * parent's.
 *
 * If the pool's lock could not be had in time, the child never pools, as its copy of the tables
 * may be half changed.
 */
#ifndef MCPOOL_FORK_H
#define MCPOOL_FORK_H

#include "base/compiler.h"

/* Before the fork, and after it in both processes. Between the two the calling thread has the
 * pool's lock, if it could be had. Forks nest if a signal handler forks inside of fork(). */
COLD void fork_before(void);
COLD void fork_after_in_parent(void);
COLD void fork_after_in_child(void);

#endif
