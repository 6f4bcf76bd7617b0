/*
 * The disguise: a pooled connection looks like the fresh socket it replaces. Its flags, its
 * options (conn/sockopts.h) and its epoll registrations (conn/epoll_reg.h).
 */
#ifndef MCPOOL_INSTALL_H
#define MCPOOL_INSTALL_H

#include "conn/conn.h"
#include "base/reasons.h"

/* Gives CONN, LENDING at its private number, the status flags FLAGS and the options of FRESH,
 * whose socket is at FD. When it says why it could not, CONN is good for nothing. */
enum reason install_options(const struct conn *conn, int fd, const struct conn *fresh,
                            int flags);

/* Makes CONN, LENDING at its private number, look like FRESH and puts it over the number FD of
 * FRESH, whose socket is destroyed by that. Otherwise says why it could not, and FD is as it
 * was before; CONN is then good for nothing. Never blocks; errno is kept. */
enum reason install_over_fd(struct conn *conn, int fd, struct conn *fresh);

#endif
