/*
 * The pool: endpoint -> idle connections, their ages, and its one lock.
 *
 * The lock guards the table of endpoints (conn/endpoint.h) and the lists, nothing else, and is
 * held for changes of tables only. A thread that is inside already (a signal handler
 * interrupted it) is turned away, and so is one that has waited for the lock for
 * LOCK_PATIENCE_MS (base/lock.h), or meets it after another has: REENTERED, LOCKED. Nothing is
 * taken or kept then, and the call is the plain one; what must be done all the same is done
 * without the lock, as far as the map goes, and the lists are left to the thread that has it.
 * Functions that take connections out of the pool hand them to the caller, which closes them
 * after the lock is free.
 */
#ifndef MCPOOL_POOL_H
#define MCPOOL_POOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/clock.h"
#include "config/config.h"
#include "conn/conn.h"
#include "conn/endpoint.h"
#include "config/address.h"

/* Connections that one call may take out of the pool at most. */
#define POOL_EVICTED_MAX 8

/* What is owed on a connection nobody uses must come within so many milliseconds. */
#define POOL_OWING_TIMEOUT ((msec_t)10 * 1000)

/* Connections taken out, DOOMED: the caller closes each for its reason. */
struct evicted {
    struct conn *conn[POOL_EVICTED_MAX];
    enum reason reason[POOL_EVICTED_MAX];
    size_t count;
};

/* Reserves the memory of the endpoints. CONFIG stays the caller's and must not change. False
 * without memory. */
bool pool_start(const struct config *config);

/* Whether reuse is only counted (MCPOOL_DRY_RUN). */
bool pool_is_dry_run(void);

/* Binds CONN, which is FRESH, to the endpoint at ADDRESS and moves it to IN_USE. REASON_NONE,
 * or why not: NO_ROOM, REENTERED, LOCKED, POOL_UNUSABLE. */
enum reason pool_bind_endpoint(struct conn *conn, const struct address *address, msec_t now);

/* The idle connection used last that leads to the same endpoint as CONN, can take on its
 * options and speaks PROTOCOL (WIRE_UNDECIDED: any); it is LENDING then. NULL when there is
 * none. Expired ones are added to VICTIMS. */
struct conn *pool_check_out(const struct conn *conn, enum wire_protocol protocol, msec_t now,
                            struct evicted *evicted);

/* The same of those that are owing: the one that has waited longest. */
COLD struct conn *pool_check_out_draining(const struct conn *conn, enum wire_protocol protocol,
                                          msec_t now, struct evicted *evicted);

/* Keeps CONN, which is LEAVING and lives at a private number: it is IDLE or OWING then, as TO
 * says, and what had to make room for it is added to VICTIMS. REASON_NONE, or why it was not
 * kept. */
enum reason pool_check_in(struct conn *conn, enum conn_state to, msec_t now,
                          struct evicted *evicted);

/* CONN, LENDING, is still OWING: it goes to the end of the queue, and its time runs on. False
 * when it cannot. */
COLD bool pool_return(struct conn *conn);

/* Takes out some idle connections for REASON, oldest first, as many as VICTIMS has room for;
 * all are out when VICTIMS is not full afterwards. False when the lock was not to be had. */
COLD bool pool_flush(enum reason reason, struct evicted *evicted);

/* The application closes the private fd FD, which is in the map no more: takes CONN out,
 * DOOMED, if it is idle there. NULL when it is not, or when it was lost, see below. */
COLD struct conn *pool_claim_shadow(struct conn *conn, int fd);

/* What must be done although another thread has the lock: private fds are taken out of the map
 * without it, and closed; no connection is lent from an fd that the map does not name. Then
 * pool_note_lost() says why there are idle connections without an fd. WORK is called without
 * the lock, by this thread or by the one that gives the lock back: it calls pool_claim_lost(),
 * which takes them out, until that is false, and gives up VICTIMS each time. */
COLD void pool_note_lost(enum reason reason);
void pool_when_lost(void (*work)(void));
COLD bool pool_claim_lost(struct evicted *evicted);

/* Around a fork: the lock is held over it so that the child finds the tables whole. In the
 * child the lists are emptied; their fds are the caller's to close. Another result than
 * REASON_NONE says why the lock was not to be had: the tables may be torn in the child, which
 * must not pool, and pool_after_fork_in_...() must not be called. */
COLD enum reason pool_before_fork(void);
COLD void pool_after_fork_in_parent(void);
COLD void pool_after_fork_in_child(void);

#endif
