/*
 * Check-out and check-in: the two sequences around a connection's time with the application, in
 * order, from gates, disguise, pool and map.
 *
 * These functions are called by hooks for numbers with a slot in the map. They take the pool's
 * lock inside and must be called without it. errno is kept but where a real call's is the
 * result.
 */
#ifndef MCPOOL_LENDING_H
#define MCPOOL_LENDING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "config.h"
#include "conn.h"
#include "reasons.h"

/* CONFIG stays the caller's and must not change. */
void lending_start(const struct config *config);

/* connect(): check-out when an idle connection passes the gates, else the real call with its
 * result and errno. A cancellation point, as connect() is. */
int lending_connect(int fd, const struct sockaddr *addr, socklen_t len);

/* A check-in under way: the connection has a private number already, the application's number
 * is still open. */
struct check_in {
    struct conn *conn;
    int fd;
    int private_fd; /* -1 in a dry run */
    uint32_t slot;
    uint64_t calls;
    int cancel_state;
};

/* FD is about to be closed or replaced. True when its connection is to be kept: the caller then
 * makes the real call, which cannot be cancelled meanwhile, and must call
 * lending_check_in_end(). False when there is nothing to keep, whatever FD was is forgotten,
 * and the real call is all that is left to do. */
bool lending_check_in_begin(struct check_in *check_in, int fd);
void lending_check_in_end(struct check_in *check_in);

/* Our private number FD is CONN's no more, the descriptor is the caller's to close: CONN is
 * given up if it is idle there. */
void lending_lose_private(struct conn *conn, int fd);

/* Gives up the record of a connection or fresh socket in the application's hands; its number is
 * the application's affair. */
void lending_drop(struct conn *conn, enum reason reason);

/* Closes all idle connections for REASON. True when there were any. */
bool lending_flush(enum reason reason);

/* Around a fork; see pthread_atfork(3). */
void lending_before_fork(void);
void lending_after_fork_in_parent(void);
void lending_after_fork_in_child(void);

#endif
