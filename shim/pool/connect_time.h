/*
 * How long real connects take, which is what each reuse saves; those that failed; and how long
 * reused connections had been idle.
 *
 * A blocking connect() is timed by our clock. For a non-blocking one the kernel is asked for
 * the round trip of its handshake (TCP_INFO, tcp(7)), once, when the program first sends: what
 * the program does in between must not count.
 *
 * What a reuse saves is counted at that moment, so the sum never falls. It is the usual connect
 * to the endpoint: a running median. Each real connect moves it towards its own time, but by no
 * more than an eighth, and the first one counts as no more than USUAL_FIRST. So a connect that
 * took a thousand times longer than the others changes it by an eighth.
 */
#ifndef MCPOOL_CONNECT_TIME_H
#define MCPOOL_CONNECT_TIME_H

#include <stdint.h>

#include "conn/conn.h"
#include "stats/stats.h"

/* Microseconds that the first real connect to an endpoint counts as, at most. */
#define USUAL_FIRST UINT64_C(1000)

/* Now, in microseconds of CLOCK_MONOTONIC. */
uint64_t connect_time_now(void);

/* Counts a real connect() to ENDPOINT that took MICROSECONDS. */
void connect_time_count(struct endpoint *endpoint, uint64_t microseconds);

/* A real connect() of CONN, which does not block, or one to ENDPOINT has failed. The first is
 * counted once. */
COLD void connect_time_failed(struct conn *conn);
COLD void connect_time_failed_at(struct endpoint *endpoint);

/* Counts in STATS what was saved by the reuse of CONN, which was idle until NOW. Quietly: see
 * stats_add_quietly(). */
void connect_time_saved(const struct conn *conn, struct stats *stats, msec_t now);

/* The program is about to send on CONN for the first time, and rtt_pending is set: counts the
 * round trip of its handshake. One system call. */
void connect_time_ask(struct conn *conn);

#endif
