/*
 * Which protocol will the next user speak? A server fixes text or binary by the first byte of a
 * connection, and connect() does not say what that will be. It is guessed from what users with
 * the same kind of socket said before; the first byte shows whether that was right. If it was
 * not, see pool/swap.h.
 *
 * No lock, no wait; errno is kept.
 */
#ifndef MCPOOL_GUESS_H
#define MCPOOL_GUESS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "conn/conn.h"
#include "wire/wire.h"

/* What the user of FRESH, bound to its endpoint and with its flags noted, will probably speak;
 * WIRE_UNDECIDED when it cannot be told. */
enum wire_protocol guess_protocol(struct conn *fresh);

/* What is about to be sent. */
struct pieces {
    const struct iovec *iov;
    size_t count;
    bool readable; /* they and the first byte are known to be */
};

/* PIECES are about to be sent on CONN, on which the caller has a call under way; takes note of
 * what is spoken. False when CONN does not speak that: then the caller ends its call and has it
 * repaired. */
bool guess_fits(struct conn *conn, const struct pieces *pieces);

/* The first byte of the first piece that has one; NULL when it cannot be read. */
const uint8_t *guess_first_byte(const struct pieces *pieces);

/* Whether the next byte on CONN is the first of its present user. */
bool guess_is_open(const struct conn *conn);

/* Whether CONN, bound to its endpoint, speaks what users with the same kind of socket said
 * before, and nothing else was ever spoken to its server. */
bool guess_is_sure(const struct conn *conn);

#endif
