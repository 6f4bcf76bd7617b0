/*
 * Where in the kernel's table of fds private fds lie.
 *
 * The kernel keeps the fds of a process in a table of 64 entries, which it doubles when a
 * higher fd is opened, and a fork copies all up to the highest open one: an fd near 8,000 makes
 * the fork of a small process take twice as long. So private fds lie at the top of the smallest
 * table that has room for them and for the program: of 64 entries, or 128, and so on. They have
 * its top quarter. When the program's own fds, which come from below, reach that quarter,
 * private fds move on to the next size before they are in the way. Only what the program opens
 * by calls that are not hooked, as open(), can come unseen: see libmcpool(7), LIMITS.
 *
 * Nothing here takes a lock or blocks; errno is kept.
 */
#ifndef MCPOOL_FDTABLE_H
#define MCPOOL_FDTABLE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "conn/limits.h"

/* The smallest table there is, and the largest in which private fds have a quarter to
 * themselves: a program with more fds than three quarters of it may find some in between. */
#define FDTABLE_LEAST 64
#define FDTABLE_MOST  LIMITS_FDS_MOST

/* A private fd for what FD names, closed on exec and in no map, beside OTHERS that there are;
 * or the kernel's -errno. */
long fdtable_duplicate(int fd, unsigned int others);

/* The lowest fd of the program that is too near; beyond all fds while there are no private
 * ones.
 */
extern _Atomic int fdtable_edge __attribute__((visibility("hidden")));

/* Whether FD, which the kernel gave the program as the lowest free one, is so near. Then
 * fdtable_move_on() is due, and all private fds must go. */
static inline bool fdtable_is_near(int fd)
{
    return __builtin_expect(fd >= atomic_load_explicit(&fdtable_edge, memory_order_relaxed), 0);
}

/* From now on private fds are made in a table whose top quarter begins above FD. */
COLD void fdtable_move_on(int fd);

/* In the child of a fork, which has none. */
COLD void fdtable_after_fork_in_child(void);

#endif
