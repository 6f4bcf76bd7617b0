/*
 * Which numbers are ours to look at: sockets from their birth, connections, epoll sets, and
 * what the program does to them that ends pooling.
 *
 * Every function here is for the slow path of a hook, a number with a slot in the map, and
 * changes nothing in a process that is not the owner (base/owner.h). None blocks; all keep
 * errno.
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

/* What socket(DOMAIN, TYPE, PROTOCOL) is to give, when it need not be made; else -1. */
int track_spare(int domain, int type, int protocol);

/* socket(DOMAIN, TYPE, PROTOCOL) gave FD: begins to track it if it could become a connection to
 * be pooled. CHILDREN and ORPHANS are how many there were before the call (base/owner.h): a
 * child that another thread makes after it has the socket as well. */
COLD void track_socket(int fd, int domain, int type, int protocol, uint32_t children,
                       uint32_t orphans);

/* epoll_create() gave FD. */
COLD void track_epoll(int fd);

/* The kernel gave out FD as a new number: what was known of it is wrong, a close was not seen.
 */
COLD void track_new_fd_slow(int fd);

static inline void track_new_fd(int fd)
{
    if (fd >= 0 && !fdmap_is_plain(fd))
        track_new_fd_slow(fd);
}

/* The same, of an FD that is the lowest free one: tells when the program's fds come near ours,
 * which are then given up. */
COLD void track_came_near(int fd);

static inline void track_lowest_fd(int fd)
{
    track_new_fd(fd);
    if (fdtable_is_near(fd))
        track_came_near(fd);
}

/* The caller's next call closes or replaces FD, whatever it is: forgets it. When true, FD is a
 * private fd: its connection is given up, and the caller must close FD if its call does not.
 * False as well when a private fd was closed unseen before: what is there is the program's. */
bool track_forget(int fd);

/* The caller closes the private fd FD: forgets it, and closes it. False when ours was closed
 * unseen before and what is there by now is the caller's, to be closed. */
COLD bool track_close_shadow(int fd);

/* The call for which FD was forgotten failed; IS_PRIVATE is what track_forget() said. A private
 * fd is closed. FD may have been an epoll set, and what is registered there reports events for
 * ever: no connection in use is pooled after that. */
COLD void track_still_open(int fd, bool is_shadow);

/* Before a bulk close: forgets every fd from FIRST to LAST, and closes the private ones. When
 * true, track_bulk_closed() is due after the call, with whether it CLOSED them; if it did not,
 * no connection in use is pooled, as above. */
COLD bool track_forget_range(unsigned int first, unsigned int last);
COLD void track_bulk_closed(bool closed);

/* Before a call that makes a duplicate of FD, after swap_for_new(). The connection at FD, if
 * it may still be pooled when all its fds are closed: it has one fd more, and a call under way.
 * NULL when there is none, or when it may not: an epoll set watches it, which would go on
 * reporting a closed fd while another fd names the connection (epoll(7)). */
COLD struct conn *track_share(int fd);

/* TWIN, -1 if the call failed, is a new fd for what FD names; CONN is what track_share() gave.
 */
COLD void track_duplicated(int fd, struct conn *conn, int twin);

/* The private fd FD, for which the map has SLOT, has a duplicate or will have one, which reads
 * and writes its connection. So that is not kept if it has a user, and is given up if it is
 * idle. True when FD is the caller's to close. */
COLD bool track_give_up_private(int fd, uint32_t slot, enum reason reason);

/* Another process has what FD names, or will have it. After swap_for_new(), if that was
 * possible before the other had it. */
COLD void track_shared(int fd, enum reason reason);

/* Bytes are about to move on FD past the tracker, or may do so from now on: what is at FD is
 * renewed first if its protocol is not that user's choice (swap_for_new()), and the
 * connection must not be pooled. To be called before the call that moves bytes. False, with
 * errno set, when that call should fail. */
COLD bool track_unseen(int fd, enum reason reason);

/* The same for all there are and will be: pooling is over. */
COLD void track_unseen_everywhere(enum reason reason);

/* The connection at FD, if it is one, must not be pooled. */
static inline void track_refuse(int fd, enum reason reason)
{
    shadow_refuse(fd, reason);
}

/* shutdown() is about to be called on FD, and not on our behalf. */
COLD void track_shut_down(int fd);

/* The flags of FD are about to be set. The connection, if it is one, for conn_put() with
 * OTHER when they are; NULL when it is none. */
struct conn *track_flags_begin(int fd);

/* The same for all numbers from FIRST to LAST, by a call that nobody waits in. */
COLD void track_flags_range(unsigned int first, unsigned int last);

/* bind() to ADDR, of LEN bytes, succeeded on FD. To the wildcard address and no port it says
 * nothing that connect() alone would not do: such a socket is pooled. The kernel chose its port
 * nevertheless (bind(2), ip(7)), and a connection from the pool has another. */
COLD void track_bound(int fd, const struct sockaddr *addr, socklen_t len);

/* getsockname() is about to be called on FD: what it says of a socket that is bound and not
 * connected yet must be true afterwards, so nothing is lent over that. */
COLD void track_name_asked(int fd);

/* setsockopt() succeeded on FD. True when it was an option that ends pooling and a new
 * connection took the fd, which is to be given the option as well. */
bool track_setsockopt(int fd, int level, int name, const void *value, socklen_t len);

/* getsockopt() succeeded on FD; changes what the program must not see. */
void track_getsockopt(int fd, int level, int name, void *value, socklen_t len);

/* The process left its network, or shares its table of descriptors no more: pooling is over. */
COLD void track_namespace_lost(void);

#endif
