/*
 * The registrations of connections with epoll sets: noted, ended at check-in, made again at
 * check-out.
 *
 * A registration belongs to the open file description together with the fd. It outlives close()
 * while a duplicate is open (epoll(7), Q6). So check-in ends the registrations while the
 * program's fd is still open. Check-out makes those of the fresh socket again on the pooled
 * connection.
 *
 * Closing the fd of a set does not end an epoll_wait(2) in it: the waiting thread keeps the set
 * alive and still gets its events. A connection registered there is not pooled, or that thread
 * would get events of the next user. We do not end the registration when the set's fd is
 * closed: the thread may wait for the connection until the program closes that.
 *
 * No function here blocks or waits for a lock. errno is kept.
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

/* The word of an epoll set that another process or thread may have as well. */
#define EPOLL_REG_SHARED (FDMAP_EPOLL | FDMAP_INDEX)

/* The owning process has made an epoll set at EPFD. EPFD must be below FDMAP_SIZE. */
void epoll_reg_set_made(int epfd);

/* The fd EPFD of an epoll set is closed or about to be; the fd map had WORD for it. STALE: it
 * was closed earlier, by a call we did not see. If no other thread or child can have the set,
 * its registrations end with it. Otherwise they live on where we cannot end them, and the
 * connections registered there are refused as EPOLL_UNKNOWN. */
COLD void epoll_reg_set_gone(int epfd, uint32_t word, bool stale);

/* Notes that epoll_ctl(EPFD, OP, FD, EVENT) succeeded. FD need not be a connection. Does
 * nothing in a process that is not the owner. */
void epoll_reg_note(int epfd, int op, int fd, const struct epoll_event *event);

/* Ends all registrations of CONN, which the program still has at FD. On failure it makes those
 * that it ended again, and returns the reason. */
enum reason epoll_reg_unregister_all(struct conn *conn, int fd);

/* Makes the registrations REGS again, for the file that FD names now. False when the kernel
 * refused one, also because it exists already. */
COLD bool epoll_reg_replay(int fd, const struct epoll_regs *regs);

#endif
