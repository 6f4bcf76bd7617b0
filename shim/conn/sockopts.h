/*
 * Socket options: which ones a socket was given, and how to make a pooled connection carry
 * those of a fresh socket, no more and no less.
 *
 * A kernel acknowledges at once on a young connection and later waits up to 40 ms for something
 * to send along, which a sender under Nagle's algorithm waits for in turn. A program that
 * writes twice before it reads would pay that on every pooled connection and never on a new
 * one. So pooled ones are lent with TCP_NODELAY on, unless the program says otherwise itself,
 * and sockopts_seen() hides it.
 *
 * A few options can be put back to what they were; a few cannot and become part of what must be
 * equal for a connection to be lent; any other one makes the connection unpoolable.
 */
#ifndef MCPOOL_SOCKOPTS_H
#define MCPOOL_SOCKOPTS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "base/compiler.h"

#define OPTIONS_COUNT    15
#define OPTION_VALUE_MAX 16 /* struct timeval */

struct sockopts {
    uint16_t given;      /* bit per row: the application set it */
    bool forced_nodelay; /* TCP_NODELAY is on though nobody gave it; see sockopts_apply() */
    bool bound; /* the program bound it to a port that the kernel chose, before connect() */
    uint8_t value[OPTIONS_COUNT][OPTION_VALUE_MAX];
};

/* Notes that setsockopt() succeeded with these arguments. False when the option is none we
 * could undo or compare; CONNECTED says that the socket already has a peer, when fewer can be.
 */
bool sockopts_note(struct sockopts *options, bool connected, int level, int name,
                   const void *value, socklen_t len);

/* Whether a connection with the options HAVE can be made equal to a socket with WANT: those
 * that cannot be put back are the same in both. A bound socket keeps its port when a connect()
 * dissolves the connection (connect(2), AF_UNSPEC), another one loses it. */
bool sockopts_fit(const struct sockopts *have, const struct sockopts *want);

/* Has the kernel send at once what Nagle's algorithm (tcp(7), TCP_NODELAY) holds back on the
 * connection FD, which carries OPTIONS and is left with them. */
void sockopts_push(int fd, const struct sockopts *options);

/* Makes close() of the connection FD, which carries OPTIONS, not wait for what is unsent
 * (SO_LINGER with a time, socket(7)), and notes that in OPTIONS. One system call if it would
 * wait, else none. False when that failed. Neither errno nor cancellation is touched. */
bool sockopts_stop_lingering(int fd, struct sockopts *options);

/* Sets on the socket FD, which carries none, all of OPTIONS. False when one failed. Neither
 * errno nor cancellation is touched. */
COLD bool sockopts_give(int fd, const struct sockopts *options);

/* Whether OPTIONS, of a socket that was never connected, can be put back to the kernel's
 * defaults, which a bound one cannot; and puts them back on FD, false when one failed. Neither
 * errno nor cancellation is touched. */
bool sockopts_can_be_cleared(const struct sockopts *options);
bool sockopts_clear(int fd, const struct sockopts *options);

/* Sets on CONNECTION, which carries HAVE, what differs from FRESH, which carries
 * WANT and from which the kernel's defaults are read. A few system calls, none when nothing
 * differs. False when one failed. Neither errno nor cancellation is touched. What it carries
 * then is told by sockopts_equalize(). */
bool sockopts_apply(int connection, const struct sockopts *have, int fresh,
                    const struct sockopts *want);
void sockopts_equalize(struct sockopts *lent, const struct sockopts *want);

/* Takes from FD, a TCP connection that carries OPTIONS, what sockopts_apply() gave it unasked.
 * Neither errno nor cancellation is touched. */
COLD void sockopts_restore(int fd, struct sockopts *options);

/* Whether getsockopt() must not show the option as it is on a socket that carries OPTIONS. */
bool sockopts_hides(const struct sockopts *options, int level, int name);

/* getsockopt() gave VALUE of LEN bytes on a socket that carries OPTIONS: makes it what the
 * program must see. */
void sockopts_seen(const struct sockopts *options, int level, int name, void *value,
                   socklen_t len);

#endif
