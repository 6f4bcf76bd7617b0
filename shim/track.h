/*
 * Which numbers are ours to look at: sockets from their birth, connections, epoll sets, and
 * what the program does to them that ends pooling.
 *
 * Every function here is for the slow path of a hook, a number with a slot in the map, and
 * changes nothing in a process that is not the owner (process.h). None blocks; all keep errno.
 */
#ifndef MCPOOL_TRACK_H
#define MCPOOL_TRACK_H

#include <stdbool.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/types.h>

#include "cold.h"
#include "conn.h"
#include "fdmap.h"
#include "fdtable.h"
#include "reasons.h"

/* What socket(DOMAIN, TYPE, PROTOCOL) is to give, when it need not be made; else -1. */
int track_spare(int domain, int type, int protocol);

/* socket(DOMAIN, TYPE, PROTOCOL) gave FD: begins to track it if it could become a connection to
 * be pooled. */
COLD void track_opened(int fd, int domain, int type, int protocol);

/* epoll_create() gave FD. */
COLD void track_epoll(int fd);

/* The kernel gave out FD as a new number: what was known of it is wrong, a close was not seen.
 */
COLD void track_new_number_slow(int fd);

static inline void track_new_number(int fd)
{
    if (fd >= 0 && !fdmap_is_plain(fd))
        track_new_number_slow(fd);
}

/* The same, of an FD that is the lowest free one: tells when the program's fds come near ours,
 * which are then given up. */
COLD void track_came_near(int fd);

static inline void track_lowest_number(int fd)
{
    track_new_number(fd);
    if (fdtable_is_near(fd))
        track_came_near(fd);
}

/* The caller's next call closes or replaces FD, whatever it is: forgets it. When true, FD is a
 * private fd: its connection is given up, and the caller must close FD if its call does not. */
bool track_forget(int fd);

/* The call for which FD was forgotten failed; IS_PRIVATE is what track_forget() said. A private
 * fd is closed. FD may have been an epoll set, and what is registered there reports events for
 * ever: no connection in use is pooled after that. */
COLD void track_still_open(int fd, bool is_private);

/* Before a bulk close: forgets every fd from FIRST to LAST, and closes the private ones. When
 * true, track_swept() is due after the call, with whether it CLOSED them; if it did not, no
 * connection in use is pooled, as above. */
COLD bool track_forget_range(unsigned int first, unsigned int last);
COLD void track_swept(bool closed);

/* TWIN is a new number for what FD names. */
COLD void track_duplicated(int fd, int twin);

/* Another process has what FD names, or will have it. */
COLD void track_shared(int fd, enum reason reason);

/* The connection at FD, if it is one, must not be pooled. */
COLD void track_refuse(int fd, enum reason reason);

/* The flags of FD are about to be set. The connection, if it is one, for conn_leave() with
 * OTHER when they are; NULL when it is none. */
struct conn *track_set_flags(int fd);

/* The same for all numbers from FIRST to LAST, by a call that nobody waits in. */
COLD void track_set_flags_range(unsigned int first, unsigned int last);

/* setsockopt() succeeded on FD. */
void track_option(int fd, int level, int name, const void *value, socklen_t len);

/* getsockopt() succeeded on FD; changes what the program must not see. */
void track_option_seen(int fd, int level, int name, void *value, socklen_t len);

/* epoll_ctl() succeeded. */
void track_watch(int epfd, int op, int fd, const struct epoll_event *event);

/* The process left its network, or shares its table of descriptors no more: pooling is over. */
COLD void track_namespace_lost(void);

/* MSG was sent: what its SCM_RIGHTS carry is in another process's hands. */
COLD void track_passed(const struct msghdr *msg);

#endif
