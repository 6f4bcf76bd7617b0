/*
 * The handlers of pthread_atfork(3). The child has the pool's records without its connections:
 * those stay the parent's.
 *
 * A child made while the pool's lock was not to be had in time holds no connection of the pool,
 * and never pools.
 */
#ifndef MCPOOL_FORK_H
#define MCPOOL_FORK_H

#include "base/compiler.h"

/* Before the fork, and after it in both processes. From the first to one of the others the
 * calling thread has the pool's lock, if it was to be had. Forks nest where a signal handler
 * forks inside of fork(). */
COLD void fork_before(void);
COLD void fork_after_in_parent(void);
COLD void fork_after_in_child(void);

#endif
