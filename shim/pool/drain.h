/*
 * Settling: what is still owed on a connection that nobody uses. Replies its last user gave up
 * on are read and parsed when somebody could use it again; behind quiet commands a fence is
 * sent, whose answer proves that nothing is to come. Nothing here waits: what has not come is
 * left for the next time.
 *
 * The caller has the connection to himself and holds no lock. errno is kept.
 */
#ifndef MCPOOL_DRAIN_H
#define MCPOOL_DRAIN_H

#include "base/clock.h"
#include "conn/conn.h"
#include "base/reasons.h"

/* Why CONN, which its user is about to leave, could never be settled; REASON_NONE when it
 * could, or is clean already. */
enum reason drain_prospect(const struct conn *conn, msec_t now);

/* Takes the first step on CONN, which lives at its private number and has no user any more: the
 * fence, if that is what it needs. REASON_NONE, or why it cannot be kept. */
enum reason drain_begin(struct conn *conn, msec_t now);

/* Reads, of at most 1 KiB each, that one call of the program pays for, whatever servers send.
 */
#define DRAIN_READS 64

/* Reads what has come, by at most *READS reads, which are subtracted. REASON_NONE: CONN is
 * clean. REPLY_OWED, REPLY_PARTIAL, UNCONFIRMED: not yet. Anything else: never. */
enum reason drain(struct conn *conn, msec_t now, unsigned int *reads);

/* Whether REASON, an answer of drain(), means that more may come. */
bool drain_goes_on(enum reason reason);

#endif
