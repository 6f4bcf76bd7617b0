/*
 * Verification: what must be true of a connection when it is checked in and when it is checked
 * out, and of the fresh socket that it replaces. Each test is one line and has one reason.
 * errno and cancellation are not touched, and no call blocks.
 */
#ifndef MCPOOL_VERIFY_H
#define MCPOOL_VERIFY_H

#include "base/clock.h"
#include "conn/conn.h"
#include "base/reasons.h"

struct tcp_info;

/* Why CONN must not be kept; REASON_NONE if it may. It is CHECKING_IN, at the program's fd FD
 * and at its shadow fd SHADOW_FD, -1 if it has none. Notes its file status flags. Sets
 * *IS_CLEAN to whether no reply is to come; that holds until the next call on CONN begins. */
enum reason verify_for_idle(struct conn *conn, int fd, int shadow_fd, msec_t now,
                            bool *is_clean);

/* Asks the kernel for the file status flags of CONN, which is at FD, and notes them.
 * REASON_NONE, or ODD_FLAGS when CONN must not be reused with them. */
COLD enum reason verify_flags(struct conn *conn, int fd);

/* Why the bytes of CONN, CHECKING_OUT, forbid that it is reused; REASON_NONE if they do not. It
 * was DRAINING, or comes from another process. */
COLD enum reason verify_bytes(struct conn *conn);

/* Why CONN, CHECKING_OUT at its shadow fd, must not be reused; REASON_NONE if it may: then INFO
 * is what the kernel has told of it, and proof_of() says whether that proves it alive. What its
 * bytes say was verified when it became IDLE, or is by verify_bytes(): only the kernel's
 * counters can show that a byte has moved since. The caller must still test that the program
 * gets this socket: a bulk close in another thread may close the shadow fd at any time, and the
 * fd may then be reused for another file. */
enum reason verify_for_reuse(const struct conn *conn, struct tcp_info *info);

/* Why no pooled connection must replace CONN, which is fresh at FD; REASON_NONE if one may.
 * Notes its file status flags. */
enum reason verify_fresh(struct conn *conn, int fd);

#endif
