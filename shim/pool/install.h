/*
 * The disguise: a pooled connection looks like the fresh socket it replaces. Its flags, its
 * options (conn/sockopts.h) and its epoll registrations.
 *
 * An epoll registration belongs to the open description and the number, and outlives close()
 * while a duplicate lives (epoll(7), Q6): it must go before a connection is kept, while the
 * application's number is still open, and those made on the fresh socket must be made again.
 */
#ifndef MCPOOL_INSTALL_H
#define MCPOOL_INSTALL_H

#include <sys/epoll.h>

#include "base/compiler.h"
#include "conn/conn.h"
#include "base/reasons.h"

/* Notes that epoll_ctl(EPFD, OP, the number of CONN, EVENT) succeeded. */
void disguise_note_watch(struct conn *conn, int epfd, int op, const struct epoll_event *event);

/* Notes that the fd EPFD of an epoll set goes, and its registrations with it; or, if the set
 * LIVES_ON out of our reach, that CONN can never be pooled. */
COLD void disguise_lose_watch(struct conn *conn, int epfd, bool lives_on);

/* Ends all registrations of CONN, which the application still has at FD; or none. */
enum reason disguise_take_off(struct conn *conn, int fd);

/* Makes the registrations WATCHES for what FD names by now. False when one was refused, for
 * being there already too. */
COLD bool disguise_replay_watches(int fd, const struct watches *watches);

/* Gives CONN, LENDING at its private number, the status flags FLAGS and the options of FRESH,
 * whose socket is at FD. When it says why it could not, CONN is good for nothing. */
enum reason disguise_dress(const struct conn *conn, int fd, const struct conn *fresh,
                           int flags);

/* Makes CONN, LENDING at its private number, look like FRESH and puts it over the number FD of
 * FRESH, whose socket is destroyed by that. Otherwise says why it could not, and FD is as it
 * was before; CONN is then good for nothing. Never blocks; errno is kept. */
enum reason disguise_put_on(struct conn *conn, int fd, struct conn *fresh);

#endif
