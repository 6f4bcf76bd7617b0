/*
 * Spares: sockets that were replaced by a pooled connection before they were ever connected. To
 * make and destroy a TCP socket costs more than all the rest of a check-out. So such a socket
 * is kept at a shadow fd (conn/shadow.h), and the next socket() gets a duplicate of it.
 *
 * A spare is indistinguishable from a new socket: one to which something happened that cannot
 * be undone is not kept. It never outlives a fork, or a change of identity or namespace.
 *
 * Called without the pool's lock; takes no lock, does not block, keeps errno.
 */
#ifndef MCPOOL_SPARE_H
#define MCPOOL_SPARE_H

#include <stdbool.h>

#include "base/compiler.h"
#include "conn/conn.h"

/* How many spares are kept: as many as threads may be about to connect at once. */
#define SPARE_MAX 8

/* What socket(DOMAIN, TYPE, 0) would make, from a spare: a FRESH record at the lowest free fd,
 * FD, in no map yet. NULL if there is none. */
struct conn *spare_reuse(int domain, int type, int *fd);

/* FRESH is about to be replaced at FD: gives it a shadow fd that keeps its socket open, unless
 * it cannot be a spare. */
void spare_save(struct conn *fresh, int fd);

/* FRESH was replaced, and the program has no fd of it: it becomes a spare, or CLOSED. */
void spare_keep(struct conn *fresh);

/* The program has closed FD in bulk, which the map had as a shadow fd of CONN. False if it was
 * not the shadow fd of a spare or of a connection in use. A spare is given up. */
COLD bool spare_lose(struct conn *conn, int fd);

/* Gives up all spares. */
COLD void spare_flush(void);

#endif
