/*
 * Spares: sockets that a pooled connection took the place of before they were ever connected.
 * To make and destroy a TCP socket costs more than all the rest of a check-out, so such a
 * socket lives on as a twin (conn/shadow.h), and the next socket() gives a duplicate of it.
 *
 * A spare is what the kernel would have made: every hook that saw something happen to the
 * socket that cannot be undone ended its life as one. It never outlives a fork, a change of
 * identity or of namespace.
 *
 * Called without the pool's lock; takes no lock, does not block, keeps errno.
 */
#ifndef MCPOOL_SPARE_H
#define MCPOOL_SPARE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "conn/conn.h"

/* Spares kept at the same time: as many as may be about to connect at once. */
#define SPARE_MAX 8

/* What socket(DOMAIN, TYPE, 0) would make, from a spare: FRESH at the lowest free number, in no
 * map yet. NULL when there is none. */
struct conn *spare_reuse(int domain, int type);

/* FRESH, at FD, is about to be replaced there: gives it a twin to survive at, unless it is no
 * spare. */
void spare_save(struct conn *fresh, int fd);

/* FRESH was replaced, and no number of the application names it: it is a spare, or CLOSED. */
void spare_keep(struct conn *fresh);

/* The private number FD of CONN was swept by the application. False when it was no twin; a
 * spare is none any more. */
COLD bool spare_lose(struct conn *conn, int fd);

/* Gives up all. */
COLD void spare_flush(void);

#endif
