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
void check_out_start(const struct config *config);

/* One connect() of the program, from begin to end. In the frame of the hook that makes the real
 * call between the two. */
struct check_out {
    int fd;
    int saved;                 /* errno before the call */
    int result;                /* what connect() is to return when the pool has answered */
    bool tracked;              /* a connection or a fresh socket was at FD */
    bool dissolves;            /* the address is none: an end of the connection, connect(2) */
    const struct conn *reused; /* was at FD already, from the pool; not to be looked into */
    struct endpoint *timed;    /* the real call may block, and its time is noted here */
    uint64_t began;
};

/* connect(FD, ADDR, LEN) is about to be called by CALLER; the map has said WORD of FD. True
 * when an idle connection has passed the gates and is at FD: then RESULT and errno are those of
 * connect(), as Linux would have them: on a socket that does not block EINPROGRESS, but see
 * pool/callers.h, 0 the next time, and then EISCONN. False: the caller makes the real call, and
 * ends it by check_out_end(). */
bool check_out_begin(struct check_out *check_out, int fd, uint32_t word,
                     const struct sockaddr *addr, socklen_t len, const void *caller);

/* The real call has said RESULT, and errno. Returns what connect() is to return. */
int check_out_end(const struct check_out *check_out, int result);

/* Binds CONN, FRESH and connected or connecting to ADDRESS by its creator, to its endpoint: it
 * is IN_USE then. False when it cannot be tracked. */
bool check_out_bind(struct conn *conn, const struct address *address, msec_t now);

/* A connection that speaks PROTOCOL (WIRE_UNDECIDED: any) and has passed the gates for the
 * endpoint and the looks of FRESH; LENDING, at its private number. NULL when there is none, and
 * in a dry run. */
struct conn *check_out_find(const struct conn *fresh, enum wire_protocol protocol, msec_t now);

#endif
