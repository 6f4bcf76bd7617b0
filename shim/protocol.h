/*
 * Which protocol will the next user speak? A server fixes text or binary by the first byte of a
 * connection, and connect() does not say what that will be. It is guessed from what users with
 * the same kind of socket said before; when the first byte shows that the guess was wrong, the
 * connection goes back and a new one to the same server takes the number before that byte is
 * sent, or the call fails with ECONNRESET.
 *
 * Called without the pool's lock.
 */
#ifndef MCPOOL_PROTOCOL_H
#define MCPOOL_PROTOCOL_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "cold.h"
#include "conn.h"
#include "pool.h"

/* What the user of FRESH, bound to its endpoint and with its flags noted, will probably speak;
 * WIRE_UNDECIDED when it cannot be told. */
enum wire_protocol protocol_guess(struct conn *fresh);

/* What is about to be sent. */
struct pieces {
    const struct iovec *iov;
    size_t count;
    bool readable; /* they and the first byte are known to be */
};

/* PIECES are about to be sent on CONN, on which the caller has a call under way; takes note of
 * what is spoken. False when CONN does not speak that: then the caller ends his call and has it
 * repaired. */
bool protocol_fits(struct conn *conn, const struct pieces *pieces);

/* Puts something that speaks it at FD. False, with errno set, when there is nothing. */
COLD bool protocol_repair(int fd, const struct pieces *pieces);

#endif
