/*
 * Shadow fds: the library's own fds of sockets that the program has.
 *
 * A socket with a shadow fd stays open when the program's fd is closed or replaced. So it can
 * be kept without another system call: a fresh socket as a spare (pool/spare.h), a reused
 * connection in the pool.
 *
 * A shadow fd is in the fd map, with FDMAP_SHADOW, and in the record of its socket. Other
 * threads may close shadow fds in bulk at any moment, by close_range() or closefrom(). The
 * thread that empties the word in the fd map owns the shadow fd; see shim/concurrency.md, 3.
 *
 * Called without the pool's lock. No function here takes a lock or blocks. errno is kept.
 */
#ifndef MCPOOL_SHADOW_H
#define MCPOOL_SHADOW_H

#include <stdbool.h>

#include "base/compiler.h"
#include "conn/conn.h"

/* Makes a shadow fd for CONN, whose socket is at FD, unless it has one. May fail silently. */
void shadow_make(struct conn *conn, int fd);

/* Duplicates FD to a shadow fd that has no word in the fd map and is the caller's. On failure
 * the kernel's -errno. */
long shadow_duplicate(int fd);

/* Gives CONN, which has no shadow fd, SHADOW_FD: an fd of its socket that is in the fd map as
 * such. If there are too many shadow fds, SHADOW_FD is closed; CONN has none then, nor if
 * SHADOW_FD was closed in bulk. */
void shadow_adopt(struct conn *conn, int shadow_fd);

/* Takes the shadow fd from the record of CONN; it becomes the caller's and stays in the fd map.
 * -1 when CONN has none, or it was closed in bulk. */
int shadow_claim(struct conn *conn);

/* Takes FD out of the fd map and closes it, if the map has it as a shadow fd of CONN. FD stays
 * open if it names another file by now: the program closed the shadow fd by a call that we did
 * not see, and the kernel gave the fd to the program. */
COLD void shadow_close(const struct conn *conn, int fd);

/* A shadow fd of what is at FD that belongs to no record, with FDMAP_COPY in the fd map; -1
 * when none can be made. shadow_close_copy() closes it unless it was closed in bulk; -1 is
 * ignored.
 */
COLD int shadow_copy(int fd);
COLD void shadow_close_copy(int copy);

/* Around a bulk close: a call that closes all fds in a range, ours too. Its begin comes before
 * the caller takes our fds of that range out of the fd map, which comes before the call.
 *
 * No shadow fd is made until the call has returned and all check-ins and check-outs then in
 * progress have finished. Otherwise the new shadow fd could get the number of a closed one that
 * such a thread still uses (ABA); see shim/concurrency.md, 3. */
COLD void bulk_close_begins(void);
COLD void bulk_close_ends(void);

/* How many bulk closes have begun. While it stays the same, no fd of ours was closed by one. */
COLD uint32_t bulk_close_count(void);

/* In the child of a fork, in which no bulk close is in progress. */
COLD void bulk_close_after_fork_in_child(void);

/* Whether CONN has a shadow fd that was not closed in bulk. */
bool shadow_exists(const struct conn *conn);

/* Closes the shadow fd of CONN, if it has one. The program's fd stays open. */
void shadow_drop(struct conn *conn);

/* Removes FD, which was closed in bulk, from the record of CONN. False when FD was not its
 * shadow fd; it may be that of a pooled connection. */
COLD bool shadow_lose(struct conn *conn, int fd);

/* Makes the connection at FD unpoolable for REASON and closes its shadow fd. Does nothing when
 * FD is no connection, or in a process that is not the owner. */
COLD void shadow_refuse(int fd, enum reason reason);

/* Closes the shadow fds of all sockets that the program has. */
COLD void shadow_drop_all(void);

/* How many shadow fds there are, without those of pooled connections. */
COLD unsigned int shadow_count(void);

#endif
