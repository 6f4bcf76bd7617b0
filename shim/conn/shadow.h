/*
 * Twins: private numbers for sockets that the application has. What has a twin survives when
 * the application's number is closed or replaced, so it can be kept without another system
 * call: a fresh socket as a spare (pool/spare.h), a lent connection in the pool.
 *
 * A twin is in the map as private (conn/fdmap.h) and in the record of its socket. Other threads
 * may sweep our private numbers at any moment: who empties the slot in the map has the number.
 *
 * Called without the pool's lock; takes no lock, does not block, keeps errno.
 */
#ifndef MCPOOL_SHADOW_H
#define MCPOOL_SHADOW_H

#include <stdbool.h>

#include "base/compiler.h"
#include "conn/conn.h"

/* Gives CONN, whose socket is at FD, a twin if it has none; it may fail to. */
void shadow_make(struct conn *conn, int fd);

/* A private fd for what FD names, in no map; or the kernel's -errno. */
long shadow_duplicate(int fd);

/* PRIVATE_FD, in the map and naming the socket of CONN, which has no twin, is its twin now. If
 * there are too many already, or it was swept meanwhile, it is closed, and CONN has none. */
void shadow_adopt(struct conn *conn, int shadow_fd);

/* CONN's twin, if it has one and it was not swept, is the caller's, and stays in the map; -1
 * when there is none. */
int shadow_claim(struct conn *conn);

/* Closes FD and takes it out of the map, if the map says that it is a private fd of CONN. What
 * the program put there after it had closed the private fd unseen stays open. */
COLD void shadow_close(const struct conn *conn, int fd);

/* Around a sweep: a call of the application that closes whatever there is in a range of
 * numbers. What it may close has to be in no map any more when it does, so it begins before the
 * map is looked at. No twin is made until it has ended and whoever had a number of ours in his
 * hands by then has let go of it: he would take the twin for what he had. */
COLD void bulk_close_begins(void);
COLD void bulk_close_ends(void);

/* In the child of a fork, where nobody sweeps. */
COLD void bulk_close_after_fork_in_child(void);

/* Whether CONN has a twin that was not swept. */
bool shadow_exists(const struct conn *conn);

/* CONN, if it has a twin, has none any more; the application's number remains. */
void shadow_drop(struct conn *conn);

/* The private number FD of CONN was swept by the application. False when it is no twin. */
COLD bool shadow_lose(struct conn *conn, int fd);

/* The connection at FD, if it is one, must not be pooled for REASON, and needs no twin. Changes
 * nothing in a process that is not the owner. */
COLD void shadow_refuse(int fd, enum reason reason);

/* Drops those of all that the application has. */
COLD void shadow_drop_all(void);

/* How many there are. */
COLD unsigned int shadow_count(void);

#endif
