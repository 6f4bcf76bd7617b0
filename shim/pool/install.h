/*
 * Installation: a pooled connection is made to look like the fresh socket that it replaces,
 * with the same flags, options (conn/sockopts.h) and epoll registrations (conn/epoll_reg.h),
 * and is put over its fd.
 *
 * Called without locks. Nothing blocks; errno is kept.
 */
#ifndef MCPOOL_INSTALL_H
#define MCPOOL_INSTALL_H

#include "conn/conn.h"
#include "base/reasons.h"

/* Gives CONN, CHECKING_OUT at its shadow fd, the file status flags FLAGS and the options of
 * FRESH, whose socket is at FD. REASON_NONE, or why that failed: CONN can then only be
 * discarded. */
enum reason install_options(const struct conn *conn, int fd, const struct conn *fresh,
                            int flags);

/* Makes CONN, CHECKING_OUT at its shadow fd, look like FRESH and puts it over FD. That closes
 * the socket of FRESH, unless it has a shadow fd. REASON_NONE, or why that failed: FD is then
 * as it was before, and CONN can only be discarded. */
enum reason install_over_fd(struct conn *conn, int fd, struct conn *fresh);

#endif
