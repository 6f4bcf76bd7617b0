/*
 * Check-out: the sequence by which a pooled connection takes the place of a fresh socket, from
 * gates, disguise, pool and map.
 *
 * These functions are called by hooks for numbers with a slot in the map. They take the pool's
 * lock inside and must be called without it. errno is kept but where a real call's is the
 * result.
 */
#ifndef MCPOOL_CHECKOUT_H
#define MCPOOL_CHECKOUT_H

#include <stdbool.h>
#include <sys/socket.h>

#include "config/config.h"
#include "conn/conn.h"

/* CONFIG stays the caller's and must not change. */
void lending_start(const struct config *config);

/* connect(), called from CALLER: check-out when an idle connection passes the gates, else the
 * real call with its result and errno. Of a connection from the pool it says what Linux would:
 * on a TCP socket that does not block EINPROGRESS, but see pool/callers.h, 0 the next time, and
 * then EISCONN. A cancellation point, as connect() is. */
int lending_connect(int fd, const struct sockaddr *addr, socklen_t len, const void *caller);

/* Binds CONN, FRESH and connected or connecting to ADDRESS by its creator, to its endpoint: it
 * is IN_USE then. False when it cannot be tracked. */
bool lending_enlist(struct conn *conn, const struct address *address, msec_t now);

/* A connection that speaks PROTOCOL (WIRE_UNDECIDED: any) and has passed the gates for the
 * endpoint and the looks of FRESH; LENDING, at its private number. NULL when there is none, and
 * in a dry run. */
struct conn *lending_find(const struct conn *fresh, enum wire_protocol protocol, msec_t now);

#endif
