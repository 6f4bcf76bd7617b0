/*
 * The pool: the lists of idle and draining connections of each endpoint, their ages and limits,
 * and the one lock.
 *
 * The lock guards the table of endpoints (conn/endpoint.h) and these lists, and is held only
 * while they are read or changed. A signal handler that interrupted the holder is refused the
 * lock (REENTERED). So is a thread that has waited for LOCK_PATIENCE_MS (base/lock.h), and
 * every other thread from then until the holder gives the lock back (LOCKED). A refused call
 * checks nothing in or out, and the program's call is a plain one. See pool_note_lost() for
 * what must be done all the same.
 *
 * Functions that take connections out of the pool hand them to the caller, which closes them
 * without the lock.
 */
#ifndef MCPOOL_POOL_H
#define MCPOOL_POOL_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "base/clock.h"
#include "config/config.h"
#include "conn/conn.h"
#include "conn/endpoint.h"
#include "config/address.h"

/* How many connections one call may take out of the pool to be closed. */
#define POOL_EVICTED_MAX 8

/* Milliseconds in which the outstanding replies on a draining connection must come. */
#define POOL_DRAIN_TIMEOUT ((msec_t)10 * 1000)

/* A thread that closed a connection without waiting for its reply, and connects again, wants
 * another one: there may be another server behind the address by now. For this long it does not
 * get that connection back. */
#define POOL_SPARED ((msec_t)1000)

/* An idle connection that was not needed for this long is closed. The last used one of each
 * endpoint is kept until MCPOOL_IDLE_TIMEOUT. The last used is reused first, so those that were
 * not needed are those that have idled for so long: their number is the smallest number that
 * was idle at any moment of that time. */
#define POOL_LOW_WATER ((msec_t)10 * 1000)

/* How often the process looks for idle connections that have to be closed, at most. */
#define POOL_CUSTODY_PERIOD ((msec_t)1000)

#define POOL_NEVER INT64_MAX

/* When the next idle connection may have to be closed, on clock_now(); POOL_NEVER in a dry run.
 * Earlier than necessary if the connection was used meanwhile: a hit does not pay for that.
 * Relaxed: a hint, an old value costs one look or delays one. */
extern _Atomic msec_t pool_due __attribute__((visibility("hidden")));

/* How many connections are idle or draining beside one for each endpoint. Relaxed: a hint. */
extern _Atomic unsigned int pool_surplus __attribute__((visibility("hidden")));

/* Connections taken out of the pool, EVICTED: the caller closes each for its reason. */
struct evicted {
    struct conn *conn[POOL_EVICTED_MAX];
    enum reason reason[POOL_EVICTED_MAX];
    size_t count;
};

/* Once, at start-up. Reserves the memory of the endpoints; false if there is none. CONFIG stays
 * the caller's and must not change. */
bool pool_start(const struct config *config);

/* Whether reuse is only counted (MCPOOL_DRY_RUN). An operator may change that at any moment
 * (pool/switch.h). */
bool pool_is_dry_run(void);

/* After how many idle seconds TCP keepalive asks the peer of a kept connection; 0: never. */
unsigned int pool_keepalive(void);

/* Binds CONN, which is FRESH, to the endpoint at TARGET and moves it to IN_USE. REASON_NONE, or
 * why not: NO_ROOM, REENTERED, LOCKED, POOL_UNUSABLE.
 *
 * With REUSE, CONN is to be replaced at once if a connection idles there that pool_check_out()
 * would take out for it. That one is *FOUND then, CHECKING_OUT and the caller's, and CONN stays
 * FRESH: *FOUND counts in its place, so that the endpoint is in use. Before the caller gives
 * *FOUND up, it moves CONN to IN_USE. *FOUND is NULL if there is none. */
enum reason pool_bind(struct conn *conn, const struct destination *target, msec_t now,
                      bool reuse, struct conn **found, struct evicted *evicted);

/* The idle connection to the endpoint of CONN that was used last, can take on the options of
 * CONN and speaks PROTOCOL (WIRE_UNDECIDED: any). It is CHECKING_OUT then, and the caller's.
 * NULL if there is none. Expired connections that it meets are added to EVICTED. */
struct conn *pool_check_out(const struct conn *conn, enum wire_protocol protocol, msec_t now,
                            struct evicted *evicted);

/* As pool_check_out(), of the draining connections: the one that has waited longest. None that
 * this thread gave up in the last POOL_SPARED. */
COLD struct conn *pool_check_out_draining(const struct conn *conn, enum wire_protocol protocol,
                                          msec_t now, struct evicted *evicted);

/* Keeps CONN, which is CHECKING_IN and lives at its shadow fd. It is IDLE or DRAINING then, as
 * TO says. Connections that had to make room for it are added to EVICTED. REASON_NONE, or why
 * it was not kept. COVERED, false before and after, is true while the lock is held or waited
 * for: the caller has a cleanup handler that calls pool_abandon() then. */
enum reason pool_check_in(struct conn *conn, enum conn_state to, msec_t now,
                          struct evicted *evicted, bool *covered);
COLD void pool_abandon(void);

/* Takes out connections that have to be closed by NOW, as many as EVICTED has room for: if it
 * is full afterwards, there may be more. With ALL, takes out all but the last used one of each
 * endpoint. Does not wait for the lock; false if it was refused. */
COLD bool pool_evict_due(msec_t now, bool all, struct evicted *evicted);

/* A wait was cut into one more piece. Counted for the endpoint whose connection has idled
 * longest; not at all if none idles, or the lock was refused. Does not make the counters due to
 * be written, which would cut the next wait. */
COLD void pool_count_piece(void);

/* Notes what conn/path_limit.h learns from: a connection to ENDPOINT that had idled for AGE was
 * found dead, without a word from the server, or was closed by the server at AT. Others are not
 * trusted for so long. Nothing if the lock was refused. */
COLD void pool_note_death(struct endpoint *endpoint, msec_t age, msec_t now);
COLD void pool_note_close(struct endpoint *endpoint, msec_t age, msec_t at);

/* Takes out the connections that have been IDLE since SINCE or longer, as SURPLUS, oldest first
 * and as many as EVICTED has room for. Not those whose socket options cannot be set back: no
 * other process could use them. BUT_LAST: not the one that was used last. False if the lock was
 * refused. */
COLD bool pool_take_idle(msec_t since, bool but_last, struct evicted *evicted);

/* Since when the connection that was used longest ago has been idle or draining; NOW when there
 * is none, or the lock was refused. */
COLD msec_t pool_oldest_idle(msec_t now);

/* CONN, which pool_take_idle() has taken out, goes back to where it was. False if the lock was
 * refused, or an operator does not want it: CONN stays the caller's. */
COLD bool pool_put_back(struct conn *conn);

/* Why CONN, CHECKING_OUT and in no list before, must not be reused for its age or because an
 * operator does not want it; REASON_NONE if it may. */
COLD enum reason pool_refusal(struct conn *conn, msec_t now);

/* A connection to ADDRESS that had no record was discarded for REASON. */
COLD void pool_count_discarded(const struct address *address, enum reason reason);

/* MCPOOL_IDLE_TIMEOUT. */
msec_t pool_idle_timeout(void);

/* CONN, CHECKING_OUT, goes back as DRAINING, to the end of the queue. Its time runs on, from
 * `idle_since`, which is the caller's while CONN is CHECKING_OUT. False if the lock was
 * refused, or an operator does not want it: CONN stays the caller's. */
COLD bool pool_return(struct conn *conn);

/* Takes out the connections to ENDPOINT that have been idle since SINCE or longer, as
 * PEER_DIED, oldest first, as many as EVICTED has room for. None if the lock was refused. */
COLD void pool_drop_older(struct endpoint *endpoint, msec_t since, struct evicted *evicted);

/* The server of ENDPOINT has no room: takes out all idle and draining connections to it but the
 * latest, as SERVER_FULL and as many as EVICTED has room for. One is kept at most for a minute
 * from NOW. Does nothing if the lock was refused. */
COLD void pool_note_full(struct endpoint *endpoint, msec_t now, struct evicted *evicted);

/* Takes out idle and draining connections for REASON, oldest first, as many as EVICTED has room
 * for: if it is not full afterwards, all are out. False if the lock was refused. */
COLD bool pool_flush(enum reason reason, struct evicted *evicted);

/* The same, for FLUSHED, with those to the endpoint NAME, or to all if NAME is empty. From now
 * on no connection to these endpoints is kept that was opened by NOW. */
COLD bool pool_flush_older(const char *name, msec_t now, struct evicted *evicted);

/* The program has closed the shadow fd FD, which is not in the map any more: takes CONN out,
 * EVICTED, if it is idle or draining there. NULL if it is not, or if the lock was refused and
 * pool_note_lost() was called instead. */
COLD struct conn *pool_claim_shadow(struct conn *conn, int fd);

/* Idle connections must be given up also when another thread has the lock, for instance because
 * the program closes their shadow fds in bulk. Then the shadow fds are taken out of the map and
 * closed without the lock; no connection is reused whose fd the map does not name.
 * pool_note_lost() notes that the lists hold such lost connections, and why. They are taken out
 * by this thread if the lock is free, and otherwise by the thread that gives it back: WORK is
 * called without the lock and calls pool_claim_lost() until that is false, closing EVICTED each
 * time. */
COLD void pool_note_lost(enum reason reason);
void pool_when_lost(void (*work)(void));
COLD bool pool_claim_lost(struct evicted *evicted);

/* Around a fork: the lock is held over it, so that the child finds the tables whole. In the
 * child the lists are emptied; the fds in them are the caller's to close. If pool_before_fork()
 * returns another reason than REASON_NONE, the lock was refused: pool_after_fork_in_...() must
 * not be called, and the child must not pool, as its tables may be half changed. */
COLD enum reason pool_before_fork(void);
COLD void pool_after_fork_in_parent(void);
COLD void pool_after_fork_in_child(void);

#endif
