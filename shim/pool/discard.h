/*
 * The ends a connection can have outside the program: in the pool, on its way there, or closed
 * behind our back.
 *
 * Called without the pool's lock, which some of these take inside. None blocks; errno is kept.
 */
#ifndef MCPOOL_DISCARD_H
#define MCPOOL_DISCARD_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/reasons.h"
#include "conn/conn.h"
#include "pool/pool.h"

/* Once, at start-up: idle connections that lose their fds while another thread has the pool's
 * lock are discarded from now on. */
void discard_start(void);

/* Counts and logs why CONN is not kept. */
COLD void discard_note_refused(struct conn *conn, enum reason reason);

/* Closes CONN, which nobody uses and no list holds, at its private number if it has one; or all
 * VICTIMS. */
COLD void discard(struct conn *conn, enum reason reason);
void discard_evicted(struct evicted *evicted);

/* Closes all idle connections for REASON. True when there were any. */
COLD bool discard_idle(enum reason reason);

/* Our private number FD is CONN's no more, the descriptor is the caller's to close: CONN is
 * given up if it is idle there. */
COLD void discard_lose_shadow(struct conn *conn, int fd);

/* Gives up the record of a connection or fresh socket in the application's hands; its number is
 * the application's affair, and in no map any more. One that has duplicates is not pooled, and
 * its record goes with the last. */
COLD void discard_open(struct conn *conn, enum reason reason);

/* Whether FD, at which CONN should be, certainly names something else: it was closed unseen,
 * and perhaps given out again. CONN is given up then, and FD is not tracked. The caller has a
 * call under way on CONN. One system call, another where the kernel does not tell. */
COLD bool discard_if_elsewhere(struct conn *conn, int fd);

#endif
