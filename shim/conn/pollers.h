/*
 * Threads that wait in poll() or select(). The kernel wakes them by what happens to the socket,
 * also when another thread has closed the number meanwhile; so such a connection must not get
 * another user, whose reply they would take for theirs.
 */
#ifndef MCPOOL_POLLERS_H
#define MCPOOL_POLLERS_H

#include <poll.h>
#include <sys/select.h>

#include "conn/conn.h"

/* Connections one call may wait for; more of them are refused as IN_FLIGHT for good. */
#define WAITING_MAX 128

/* The connections among what a call waits for, each with a call under way. */
struct waiting {
    struct conn *conns[WAITING_MAX];
    unsigned int count;
};

/* Begins a wait for the N numbers at FDS, or the numbers below N in the SETS, of which some are
 * NULL; as far as that memory can be read. To be ended by waiting_end(). */
void waiting_poll(struct waiting *waiting, const struct pollfd *fds, nfds_t n);
void waiting_select(struct waiting *waiting, int n, fd_set *const sets[3]);

/* Makes all of them unpoolable. */
void waiting_refuse(const struct waiting *waiting, enum reason reason);

/* WAITING is a struct waiting; in the form of a cleanup handler. */
void waiting_end(void *waiting);

#endif
