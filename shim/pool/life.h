/*
 * What a death means: one that the program meets, or that keepalive finds, speaks for the idle
 * connections to the same server that have been silent for as long.
 *
 * Called without the pool's lock, which some of these functions take. None blocks; errno is
 * kept.
 */
#ifndef MCPOOL_LIFE_H
#define MCPOOL_LIFE_H

#include <stdbool.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "conn/conn.h"

/* Keepalive's verdict on CONN, CHECKING_OUT, is that it is dead: discards it and the older idle
 * connections to its endpoint. */
COLD void life_is_over(struct conn *conn);

/* A call on CONN, in which the caller is, has returned MOVED, 0 or -1, and set errno. If that
 * is the end of a reused connection before the first byte of a reply, the older idle
 * connections to its endpoint are discarded. */
COLD void life_note_failure(struct conn *conn, ssize_t moved);

/* The program leaves CONN, at FD, perhaps with a reply owed. If its bytes are being sent again
 * and again, the idle connections that are older than that are asked before they are reused. */
COLD void life_note_left(const struct conn *conn, int fd, msec_t now);

#endif
