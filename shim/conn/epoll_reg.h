/*
 * The epoll registrations of connections, and the epoll sets they are in.
 *
 * A registration belongs to the open description and the fd, and outlives close() while a
 * duplicate lives (epoll(7), Q6). So it must be ended before a connection is kept, while the
 * program's fd is still open, and those made on the fresh socket must be made again.
 *
 * A thread that waits in a set keeps it alive when its fd is closed, and still gets every
 * event: closing the fd does not end epoll_wait(2). So a connection that is registered there is
 * really closed when the program closes it, or the thread would get events of its next user. It
 * is not deregistered before: until then the thread may wait for it.
 *
 * No lock, no wait; errno is kept.
 */
#ifndef MCPOOL_EPOLL_REG_H
#define MCPOOL_EPOLL_REG_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/compiler.h"
#include "base/reasons.h"
#include "conn/conn.h"
#include "conn/fdmap.h"

/* What the map has for the fd of a set that others may have as well. */
#define EPOLL_REG_SHARED (FDMAP_EPOLL | FDMAP_INDEX)

/* The owning process has made an epoll set at EPFD, which is below FDMAP_SIZE. */
void epoll_reg_set_made(int epfd);

/* The fd EPFD of a set, for which the map had SLOT, goes; STALE: it went unseen before. Its
 * registrations go with it, if no other thread or child may have the set. Otherwise the set
 * lives on out of our reach, and no connection that is registered there can ever be pooled. */
COLD void epoll_reg_set_gone(int epfd, uint32_t slot, bool stale);

/* epoll_ctl(EPFD, OP, FD, EVENT) succeeded; FD may be no connection. A set whose beginning was
 * not seen may be known to others. Changes nothing in a process that is not the owner. */
void epoll_reg_note(int epfd, int op, int fd, const struct epoll_event *event);

/* Ends all registrations of CONN, which the program still has at FD. When it says why it could
 * not, they are as they were. */
enum reason epoll_reg_unregister_all(struct conn *conn, int fd);

/* Makes the registrations WATCHES for what FD names by now. False when one was refused, for
 * being there already too. */
COLD bool epoll_reg_replay(int fd, const struct epoll_regs *watches);

#endif
