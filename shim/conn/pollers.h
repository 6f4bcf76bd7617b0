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
#define POLLERS_MAX 128

/* The connections among what a call waits for, each with a call under way. */
struct pollers {
    struct conn *conns[POLLERS_MAX];
    unsigned int count;
};

/* Begins a wait for the N numbers at FDS, or the numbers below N in the SETS, of which some are
 * NULL; as far as that memory can be read. To be ended by pollers_end(). */
void pollers_poll(struct pollers *pollers, const struct pollfd *fds, nfds_t n);
void pollers_select(struct pollers *pollers, int n, fd_set *const sets[3]);

/* Makes all of them unpoolable. */
void pollers_refuse(const struct pollers *pollers, enum reason reason);

/* WAITING is a struct pollers; in the form of a cleanup handler. */
void pollers_end(void *pollers);

#endif
