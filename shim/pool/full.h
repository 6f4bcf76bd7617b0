/*
 * A server that has no room for more connections: it says so in place of a reply, or it refuses
 * a connect(). The idle connections of this process would keep others out, so they are given
 * up, and for a minute one is kept at most.
 *
 * Called without the pool's lock, which these functions take. None blocks; errno is kept.
 */
#ifndef MCPOOL_FULL_H
#define MCPOOL_FULL_H

#include "base/clock.h"
#include "base/compiler.h"
#include "conn/conn.h"

/* Gives up the idle connections to the endpoint of CONN, whose server has no room. */
COLD void full_note(const struct conn *conn, msec_t now);

/* The same, if the server has said so on CONN, which is not kept. */
COLD void full_note_refused(const struct conn *conn, msec_t now);

/* The same, if a connect() on CONN, in which the caller is, has ended with ERROR, and that
 * means that the server has no room. */
COLD void full_note_connect(const struct conn *conn, int error);

#endif
