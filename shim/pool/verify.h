/*
 * The proof: the gates a connection passes when it is checked in and when it is checked out.
 * Each gate is one line and has one reason. Neither errno nor cancellation is touched; no call
 * blocks.
 */
#ifndef MCPOOL_VERIFY_H
#define MCPOOL_VERIFY_H

#include "base/clock.h"
#include "conn/conn.h"
#include "base/reasons.h"

/* Why CONN, LEAVING at the application's number FD and with the private fd PRIVATE_FD, if it
 * has one, must not be kept; REASON_NONE when it may. Notes its file status flags. */
enum reason verify_for_idle(struct conn *conn, int fd, int shadow_fd, msec_t now);

/* Why CONN, LENDING, must not be lent; REASON_NONE when it may, if what gets to the application
 * is its socket: other threads may sweep our private numbers at any time, and give them out
 * again. */
enum reason verify_for_reuse(const struct conn *conn);

/* Why nothing must be lent over CONN, which is fresh at FD; REASON_NONE when it may. Notes its
 * file status flags. */
enum reason verify_fresh(struct conn *conn, int fd);

#endif
