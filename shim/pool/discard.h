/*
 * The ends of a connection other than the program's close(): in the pool, on its way there, or
 * because its fd was closed where no hook saw it.
 *
 * Called without the pool's lock, which some of these functions take. None blocks; errno is
 * kept.
 */
#ifndef MCPOOL_DISCARD_H
#define MCPOOL_DISCARD_H

#include <stdbool.h>

#include "base/compiler.h"
#include "base/reasons.h"
#include "conn/conn.h"
#include "pool/pool.h"

/* Once, at start-up. From then on idle connections that lose their fds while another thread has
 * the pool's lock are discarded (pool_when_lost()). */
void discard_start(void);

/* Counts and logs why CONN is not kept. */
COLD void discard_note_refused(struct conn *conn, enum reason reason);

/* Closes CONN, which has no user and is in no list, and its shadow fd if it has one; or all in
 * EVICTED, which is empty then. */
COLD void discard(struct conn *conn, enum reason reason);
void discard_evicted(struct evicted *evicted);

/* Closes all idle and draining connections and all spares, for REASON. True if there were
 * any. */
COLD bool discard_idle(enum reason reason);

/* FD, which the map had as a shadow fd of CONN, is not ours any more, and the caller closes it.
 * If CONN is a spare or idle there, it is given up. */
COLD void discard_lose_shadow(struct conn *conn, int fd);

/* Gives up the record of a connection or fresh socket that the program has. Its fd is the
 * program's and is in no map any more. If it has duplicates, it is only refused, and the record
 * goes with the last one. */
COLD void discard_open(struct conn *conn, enum reason reason);

/* Whether FD, where CONN should be, certainly names something else: it was closed where no hook
 * saw it, and perhaps given out again. CONN is given up then, and FD is not tracked. The caller
 * must be in a call on CONN (conn_get()). One system call, a second one if the kernel does not
 * support the first. */
COLD bool discard_if_elsewhere(struct conn *conn, int fd);

#endif
