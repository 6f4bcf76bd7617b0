/*
 * Which fds the library takes for itself: where its shadow fds lie in the kernel's fd table.
 *
 * The kernel starts a process with a table of 64 fds and doubles the table when a higher fd is
 * opened. A fork copies the table up to the highest open fd: an fd near 8,000 makes the fork of
 * a small process take twice as long. So shadow fds have the top quarter of the smallest table
 * (64 fds, 128, and so on) that has room for them and for the program.
 *
 * The program gets the lowest free fds. When these reach the top quarter, we give up the shadow
 * fds there and make new ones in a table of the next size, before they are in the program's
 * way. Calls that are not hooked, as open(), may reach the quarter unseen: see libmcpool(7),
 * LIMITS.
 *
 * No function here takes a lock or blocks. errno is kept.
 */
#ifndef MCPOOL_FDTABLE_H
#define MCPOOL_FDTABLE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "conn/limits.h"

/* The sizes, in fds, of the smallest table and of the largest in which shadow fds have a
 * quarter to themselves. A program with more fds than three quarters of the largest table may
 * get fds above shadow fds. */
#define FDTABLE_LEAST 64
#define FDTABLE_MOST  LIMITS_FDS_MOST

/* Duplicates FD to a shadow fd, beside the OTHERS that exist. The new fd has FD_CLOEXEC and no
 * word in the fd map, and is the caller's. On failure the kernel's -errno. */
long fdtable_duplicate(int fd, unsigned int others);

/* The first fd of the quarter of the shadow fds. INT_MAX while there are no shadow fds, and
 * when no larger table is left. */
extern _Atomic int fdtable_edge __attribute__((visibility("hidden")));

/* Whether the program's FD, the lowest free one, has reached that quarter. Then the caller must
 * call fdtable_move_on() and give up all shadow fds. Relaxed: the edge is a hint; an old value
 * costs one needless move, or misses one. */
static inline bool fdtable_is_near(int fd)
{
    return __builtin_expect(fd >= atomic_load_explicit(&fdtable_edge, memory_order_relaxed), 0);
}

/* From now on shadow fds are made in a table whose top quarter begins above FD. */
COLD void fdtable_move_on(int fd);

/* In the child of a fork, which has no shadow fds. */
COLD void fdtable_after_fork_in_child(void);

#endif
