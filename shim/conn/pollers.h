/*
 * Threads that wait in poll() or select() for connections.
 *
 * The kernel wakes such a thread by events of the socket, also after another thread has closed
 * the fd. So each connection waited for has a call in flight during the wait, and is not pooled
 * if it is closed meanwhile: a reply to its next user would wake the waiting thread.
 *
 * No function here takes a lock or blocks.
 */
#ifndef MCPOOL_POLLERS_H
#define MCPOOL_POLLERS_H

#include <poll.h>
#include <sys/select.h>

#include "conn/conn.h"

/* Connections that one call can wait for. Further ones are refused as IN_FLIGHT. */
#define POLLERS_MAX 128

/* The connections that one call waits for, each with a call in flight. */
struct pollers {
    struct conn *conns[POLLERS_MAX];
    unsigned int count;
    bool all_read; /* else the list of fds has memory that cannot be read */
};

/* Begins a call on each connection among the N fds at FDS, or among the fds below N in SETS, of
 * which each may be NULL. Stops at memory that cannot be read. The caller must call
 * pollers_end() after the wait. */
void pollers_poll(struct pollers *pollers, const struct pollfd *fds, nfds_t n);
void pollers_select(struct pollers *pollers, int n, fd_set *const sets[3]);

/* Makes the connections unpoolable, for REASON. */
void pollers_refuse(const struct pollers *pollers, enum reason reason);

/* Ends the calls. A cleanup handler: its argument is a struct pollers. */
void pollers_end(void *pollers);

#endif
