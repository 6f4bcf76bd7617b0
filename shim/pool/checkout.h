/*
 * Check-out: the sequence by which a pooled connection takes the place of a fresh socket, from
 * gates, disguise, pool and map; and the ends a connection can have outside the application.
 *
 * These functions are called by hooks for numbers with a slot in the map. They take the pool's
 * lock inside and must be called without it. errno is kept but where a real call's is the
 * result.
 */
#ifndef MCPOOL_CHECKOUT_H
#define MCPOOL_CHECKOUT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/compiler.h"
#include "config/config.h"
#include "conn/conn.h"
#include "pool/pool.h"
#include "base/reasons.h"

/* CONFIG stays the caller's and must not change. */
void lending_start(const struct config *config);

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

/* Our private number FD is CONN's no more, the descriptor is the caller's to close: CONN is
 * given up if it is idle there. */
COLD void lending_lose_private(struct conn *conn, int fd);

/* Gives up the record of a connection or fresh socket in the application's hands; its number is
 * the application's affair, and in no map any more. One that has duplicates is not pooled, and
 * its record goes with the last. */
COLD void lending_drop(struct conn *conn, enum reason reason);

/* Whether FD, at which CONN should be, certainly names something else: it was closed unseen,
 * and perhaps given out again. CONN is given up then, and FD is not tracked. The caller has a
 * call under way on CONN. One system call, another where the kernel does not tell. */
COLD bool lending_is_elsewhere(struct conn *conn, int fd);

/* Binds CONN, FRESH and connected or connecting to ADDRESS by its creator, to its endpoint: it
 * is IN_USE then. False when it cannot be tracked. */
bool lending_enlist(struct conn *conn, const struct address *address, msec_t now);

/* A connection that speaks PROTOCOL (WIRE_UNDECIDED: any) and has passed the gates for the
 * endpoint and the looks of FRESH; LENDING, at its private number. NULL when there is none, and
 * in a dry run. */
struct conn *lending_find(const struct conn *fresh, enum wire_protocol protocol, msec_t now);

/* Counts and logs why CONN is not kept. */
COLD void lending_note_refused(struct conn *conn, enum reason reason);

/* Closes CONN, which nobody uses and no list holds, at its private number if it has one; or all
 * VICTIMS. */
COLD void lending_discard(struct conn *conn, enum reason reason);
void lending_discard_all(struct victims *victims);

/* Whether reuse is only counted (MCPOOL_DRY_RUN). */
bool lending_is_dry_run(void);

/* Closes all idle connections for REASON. True when there were any. */
COLD bool lending_flush(enum reason reason);

/* Around a fork; see pthread_atfork(3). A child made while the pool's lock was not to be had in
 * time holds no connection of the pool, and never pools. */
COLD void lending_before_fork(void);
COLD void lending_after_fork_in_parent(void);
COLD void lending_after_fork_in_child(void);

#endif
