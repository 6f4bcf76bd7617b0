/*
 * What the program does to its fds: which of them are tracked (new sockets, connections, epoll
 * sets), when they are forgotten, and what ends the pooling of a connection.
 *
 * Every function here is for the slow path of a hook: the map has a word for the fd. None
 * changes anything in a process that is not the owner (base/owner.h). None blocks; all keep
 * errno. Called without the pool's lock.
 */
#ifndef MCPOOL_TRACK_H
#define MCPOOL_TRACK_H

#include <stdbool.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "conn/conn.h"
#include "conn/fdmap.h"
#include "conn/fdtable.h"
#include "conn/shadow.h"
#include "base/reasons.h"

/* The fd of a spare socket (pool/spare.h) that socket(DOMAIN, TYPE, PROTOCOL) can return; -1
 * when the kernel has to make one. */
int track_spare(int domain, int type, int protocol);

/* socket(DOMAIN, TYPE, PROTOCOL) has returned FD. Tracks FD if it could become a connection
 * that is pooled. FORKS and ORPHANS are fork_epoch and orphan_epoch (base/owner.h) from before
 * the call: a child that another thread makes in between has the socket as well. */
COLD void track_socket(int fd, int domain, int type, int protocol, uint32_t forks,
                       uint32_t orphans);

/* epoll_create() has returned FD. */
COLD void track_epoll(int fd);

/* The kernel has given out FD as a new fd. If the map has a word for it, the old file was
 * closed unseen: forgets it. */
COLD void track_new_fd_slow(int fd);

static inline void track_new_fd(int fd)
{
    if (fd >= 0 && !fdmap_is_plain(fd))
        track_new_fd_slow(fd);
}

/* The program's fd FD is so near to the shadow fds (conn/fdtable.h) that all of them are given
 * up. */
COLD void track_came_near(int fd);

/* The kernel has given out FD as the lowest free fd: track_new_fd(), and track_came_near() if
 * it is. */
static inline void track_lowest_fd(int fd)
{
    track_new_fd(fd);
    if (fdtable_is_near(fd))
        track_came_near(fd);
}

/* The caller's next call closes or replaces FD, whatever FD names: forgets it. When true, FD is
 * a shadow fd: its connection is given up, and the caller must close FD if its call does not.
 * False for a shadow fd that was closed unseen before: FD names a file of the program now. */
bool track_forget(int fd);

/* Whether FD, of which WORD is known, is one that the program never got: a shadow fd, or that
 * of a queue of the family. */
COLD bool track_is_hidden(int fd, uint32_t word);

/* The program asks to close FD, a shadow fd: forgets and closes it. False when it was closed
 * unseen before: FD names a file of the program now, and the caller makes the real call. */
COLD bool track_close_shadow(int fd);

/* The call for which FD was forgotten has failed. IS_SHADOW is what track_forget() returned: a
 * shadow fd is closed. Any other FD may be an epoll set, still open, whose registrations we
 * have forgotten: no connection that is in use now is pooled. */
COLD void track_still_open(int fd, bool is_shadow);

/* Before a bulk close: forgets every fd from FIRST to LAST, and closes the shadow fds among
 * them. When true, the caller makes the real call and then calls track_bulk_closed(). CLOSED:
 * the call has closed the fds. If it has not, no connection that is in use now is pooled, as
 * for track_still_open(). */
COLD bool track_forget_range(unsigned int first, unsigned int last);
COLD void track_bulk_closed(bool closed);

/* Before a call that duplicates FD, after swap_for_new(). Returns the connection at FD if it
 * may still be pooled once all its fds are closed. It counts one fd more from now on and has a
 * call in flight. track_duplicated() ends the call, and takes the fd back if there is none.
 * NULL when FD is no such connection. One that is registered with an epoll set is refused: the
 * set would go on reporting a closed fd while another fd names the connection (epoll(7)). */
COLD struct conn *track_share(int fd);

/* COPY is the duplicate of FD, -1 if the call has failed. CONN is what track_share() returned.
 */
COLD void track_duplicated(int fd, struct conn *conn, int copy);

/* The shadow fd FD, for which the map has WORD, has a duplicate or will have one, through which
 * its connection can be read and written. So the connection is not pooled for REASON, and an
 * idle one is given up. True when the caller has to close FD. */
COLD bool track_give_up_shadow(int fd, uint32_t word, enum reason reason);

/* Another process has what FD names, or will have it: a connection there is not pooled for
 * REASON. If possible, swap_for_new() is called first, before the other process has it. */
COLD void track_shared(int fd, enum reason reason);

/* Before a call that moves bytes on FD past the tracker, or lets them move from now on. The
 * connection at FD is not pooled for REASON. A reused one whose protocol is still a guess is
 * swapped for a new one first (swap_for_new()). False, with errno set, when the call must
 * fail. */
COLD bool track_unseen(int fd, enum reason reason);

/* The same for all connections, now and later: pooling is over. */
COLD void track_unseen_everywhere(enum reason reason);

/* The connection at FD, if there is one, is not pooled for REASON. */
static inline void track_refuse(int fd, enum reason reason)
{
    shadow_refuse(fd, reason);
}

/* Around a call that changes at FD what is not set back for the next user, as F_SETOWN. The
 * first puts a new connection there if it can, and begins a call on the one that is there,
 * which it returns: until the second that does not go to another user. DONE: the call has
 * succeeded. */
struct conn *track_change_begins(int fd);
void track_change_ends(int fd, struct conn *conn, bool done);

/* The program's shutdown() of FD is about to be passed on to the kernel. */
COLD void track_shut_down(int fd);

/* The flags of all fds from FIRST to LAST are about to be set, by a call that does not block.
 */
COLD void track_flags_range(unsigned int first, unsigned int last);

/* bind() to ADDR, of LEN bytes, has succeeded on FD: the socket is not pooled. The exception is
 * the wildcard address with port 0, which asks for no more than connect() does anyway. The
 * kernel has chosen a port nevertheless (bind(2), ip(7)), and a pooled connection has another
 * one. */
COLD void track_bound(int fd, const struct sockaddr *addr, socklen_t len);

/* getsockname() is about to be called on FD. If the socket is bound and not connected yet, the
 * port it returns must stay true: no pooled connection takes its place. */
COLD void track_name_asked(int fd);

/* setsockopt() was called on FD, where CONN is; DONE: it has succeeded. Ends the call of the
 * caller's conn_get() on CONN: without it the connection could go to another user before the
 * option is noted. True when the option ends pooling and a new connection has taken FD: the
 * caller sets the option there as well. */
bool track_setsockopt(int fd, struct conn *conn, bool done, int level, int name,
                      const void *value, socklen_t len);

/* getsockopt() has succeeded on FD: changes at VALUE what the program must not see. */
void track_getsockopt(int fd, int level, int name, void *value, socklen_t len);

/* The process has another network namespace, or part of it has another table of fds: pooling is
 * over. */
COLD void track_namespace_lost(void);

#endif
