/*
 * Socket options: which ones a socket was given, and how to make a pooled connection carry
 * those of a fresh socket, no more and no less.
 *
 * A few options can be put back to what they were; a few cannot and become part of what must be
 * equal for a connection to be lent; any other one makes the connection unpoolable.
 */
#ifndef MCPOOL_OPTIONS_H
#define MCPOOL_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define OPTIONS_COUNT    14
#define OPTION_VALUE_MAX 16 /* struct timeval */

struct options {
    uint16_t given; /* bit per row: the application set it */
    uint8_t value[OPTIONS_COUNT][OPTION_VALUE_MAX];
};

/* Notes that setsockopt() succeeded with these arguments. False when the option is none we
 * could undo or compare; CONNECTED says that the socket already has a peer, when fewer can be.
 */
bool options_note(struct options *options, bool connected, int level, int name,
                  const void *value, socklen_t len);

/* Whether a connection with the options HAVE can be made equal to a socket with WANT: those
 * that cannot be put back are the same in both. */
bool options_fit(const struct options *have, const struct options *want);

/* Has the kernel send at once what Nagle's algorithm (tcp(7), TCP_NODELAY) holds back on the
 * connection FD, which carries OPTIONS and is left with them. */
void options_push(int fd, const struct options *options);

/* Sets on the socket FD, which carries none, all of OPTIONS. False when one failed. Neither
 * errno nor cancellation is touched. */
bool options_give(int fd, const struct options *options);

/* Sets on CONNECTION, which carries HAVE, what differs from FRESH, which carries WANT and from
 * which the kernel's defaults are read. A few system calls, none when nothing differs. False
 * when one failed. Neither errno nor cancellation is touched. */
bool options_apply(int connection, const struct options *have, int fresh,
                   const struct options *want);

#endif
