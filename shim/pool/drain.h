/*
 * Draining: to finish the outstanding replies on a connection that has no user. Replies that
 * its last user did not wait for are read and parsed at the next check-out that could use the
 * connection. After quiet commands a fence is sent: a request whose answer proves that no other
 * reply is to come. Nothing here waits: what has not come is left for the next time.
 *
 * The caller is the only one with the connection and holds no lock. errno is kept.
 */
#ifndef MCPOOL_DRAIN_H
#define MCPOOL_DRAIN_H

#include "base/clock.h"
#include "base/compiler.h"
#include "conn/conn.h"
#include "base/reasons.h"

/* Why CONN, which is being checked in, can never be drained; REASON_NONE if it can, or if
 * nothing is outstanding. */
enum reason drain_prospect(const struct conn *conn, msec_t now);

/* Begins to drain CONN, which lives at its shadow fd: sends the fence, if it needs one.
 * REASON_NONE, or why it cannot be kept. */
enum reason drain_begin(struct conn *conn, msec_t now);

/* Asks CONN, which is clean, CHECKING_OUT and at its shadow fd, whether it is alive: sends a
 * fence. It is to be drained then, from NOW on. REASON_NONE, or why it cannot be kept. */
COLD enum reason drain_ask(struct conn *conn, msec_t now);

/* How many reads, of so many bytes at most, one call of the program pays for. They are small,
 * as a connection may be drained on a small signal stack. */
#define DRAIN_READS     512
#define DRAIN_READ_SIZE 128

/* Reads what has come on CONN, by at most *READS reads, and subtracts them. REASON_NONE: CONN
 * is clean. REPLY_OWED, REPLY_PARTIAL, UNCONFIRMED: not yet. Any other reason: it never will
 * be. */
enum reason drain(struct conn *conn, msec_t now, unsigned int *reads);

/* Whether REASON, a result of drain(), means that more may come. */
bool drain_goes_on(enum reason reason);

#endif
