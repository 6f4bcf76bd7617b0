/*
 * Check-out: the sequence by which a pooled connection takes the place of a fresh socket at
 * connect(). The fresh socket is verified, a connection is found and verified, gets the options
 * of the fresh socket and is put over its fd.
 *
 * To be called by hooks, for fds that have a word in the map, and without the pool's lock,
 * which these functions take. errno is kept, except where the result of connect() sets it.
 */
#ifndef MCPOOL_CHECKOUT_H
#define MCPOOL_CHECKOUT_H

#include <stdbool.h>
#include <sys/socket.h>

#include "config/config.h"
#include "conn/conn.h"

/* Once, at start-up. CONFIG stays the caller's and must not change. */
void check_out_start(const struct config *config);

/* One connect() of the program, between begin and end. It lives in the frame of the hook that
 * makes the real call. */
struct check_out {
    int fd;
    int saved;                 /* errno before the call */
    int result;                /* of connect(), if it was answered from the pool */
    bool tracked;              /* a connection or a fresh socket was at FD */
    bool dissolves;            /* AF_UNSPEC: the call ends the connection, connect(2) */
    const struct conn *reused; /* was at FD already, from the pool; only to be compared */
    struct endpoint *timed;    /* where the time of the real call is counted; may be NULL */
    uint64_t began;            /* microseconds, connect_time_now() */
};

/* CALLER is about to call connect(FD, ADDR, LEN), and the map has said WORD of FD. True: a
 * pooled connection has passed verification and is at FD. RESULT and errno are then what
 * connect() has to give, as on Linux: on a non-blocking socket first EINPROGRESS (0 for some
 * callers, see pool/callers.h), then 0, then EISCONN. False: the caller makes the real call and
 * ends it by check_out_end(). */
bool check_out_begin(struct check_out *check_out, int fd, uint32_t word,
                     const struct sockaddr *addr, socklen_t len, const void *caller);

/* The real call has returned RESULT and set errno. Returns what connect() is to return. */
int check_out_end(const struct check_out *check_out, int result);

/* Binds CONN to the endpoint at ADDRESS: it is FRESH, and its creator has connected it or is
 * connecting it there. It is IN_USE then. False if it cannot be tracked. */
bool check_out_bind(struct conn *conn, const struct address *address, msec_t now);

/* A verified connection to the endpoint of FRESH that can take on its options and speaks
 * PROTOCOL (WIRE_UNDECIDED: any). It is CHECKING_OUT, at its shadow fd, and the caller's. NULL
 * if there is none, and in a dry run. */
struct conn *check_out_find(struct conn *fresh, enum wire_protocol protocol, msec_t now);

#endif
