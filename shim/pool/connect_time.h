/*
 * How long real connects take: what each reuse saves.
 *
 * One that blocks is timed as the program lives it. One that does not is timed by the kernel:
 * the round trip of its handshake, asked for once when the program first sends something, as
 * what it did in between is its own affair.
 */
#ifndef MCPOOL_CONNECT_TIME_H
#define MCPOOL_CONNECT_TIME_H

#include <stdint.h>

#include "conn/conn.h"

/* Microseconds that never go back. */
uint64_t connect_time_now(void);

/* A connect() to ENDPOINT that blocked has taken so many MICROSECONDS. */
void connect_time_count(struct endpoint *endpoint, uint64_t microseconds);

/* CONN, untimed, is about to be sent to for the first time. */
void connect_time_ask(struct conn *conn);

#endif
