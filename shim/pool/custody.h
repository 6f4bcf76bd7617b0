/*
 * Custody: idle connections are closed when they were not needed for a while, also if the
 * program does not connect any more. An idle connection takes one of the server's places, and
 * other processes may need it.
 *
 * What was not needed for POOL_LOW_WATER goes to the family (pool/sharing.h) or is closed, but
 * the last used connection of each endpoint is kept until MCPOOL_IDLE_TIMEOUT. We have no
 * thread: calls that wait do the work (pool/due.h). In a dry run no wait does it; check-outs
 * do, so that their forecast is right.
 *
 * Called without the pool's lock. Connections are closed without it, by the calling thread:
 * they were taken out of the lists before, so no check-out can have them. errno is kept; no
 * function blocks or is a cancellation point.
 */
#ifndef MCPOOL_CUSTODY_H
#define MCPOOL_CUSTODY_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "conn/limits.h"
#include "pool/pool.h"

struct tcp_info; /* linux/tcp.h */

/* When there may be work for custody_do_due(), on clock_now(); POOL_NEVER if nothing is idle.
 */
static inline msec_t custody_due_at(void)
{
    msec_t due = atomic_load_explicit(&pool_due, memory_order_relaxed);

    return due != POOL_NEVER && limits_idle() > 0 ? due : POOL_NEVER;
}

/* Closes what has to be closed by NOW. */
COLD void custody_do_due(msec_t now);

/* In how many milliseconds from NOW the work is certainly due, as clock_now() may be late. */
msec_t custody_in(msec_t now);

/* The only thread of the process is about to wait in accept(FD) for an unknown time, and that
 * wait is not cut. Gives the family what it has if it has none in use. Then gives the family,
 * or closes, all but the last used connection of each endpoint. Does nothing if FD does not
 * block; if a connection waits there already, the process only counts as blocked. */
COLD void custody_before_accept(int fd, msec_t now);

/* The process is about to sleep for LENGTH milliseconds. If it has one thread: gives the family
 * what it has if it has none in use, and does what it would have to do by the end. */
COLD void custody_before_sleep(msec_t now, msec_t length);

/* CONN, CHECKING_OUT, is not established any more, as the kernel has just told in INFO. If the
 * server has closed it, its idle time may teach how long the server keeps idle connections. */
COLD void custody_note_end(const struct conn *conn, const struct tcp_info *info, msec_t now);

#endif
