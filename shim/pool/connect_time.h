/*
 * How long real connects take, which is what each reuse saves.
 *
 * A blocking connect() is timed by our clock. For a non-blocking one the kernel is asked for
 * the round trip of its handshake (TCP_INFO, tcp(7)), once, when the program first sends: what
 * the program does in between must not count.
 */
#ifndef MCPOOL_CONNECT_TIME_H
#define MCPOOL_CONNECT_TIME_H

#include <stdint.h>

#include "conn/conn.h"

/* Now, in microseconds of CLOCK_MONOTONIC. */
uint64_t connect_time_now(void);

/* Counts a real connect() to ENDPOINT that took MICROSECONDS. */
void connect_time_count(struct endpoint *endpoint, uint64_t microseconds);

/* The program is about to send on CONN for the first time, and rtt_pending is set: counts the
 * round trip of its handshake. One system call. */
void connect_time_ask(struct conn *conn);

#endif
