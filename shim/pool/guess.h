/*
 * Which protocol will the next user of a connection speak? A server takes the first byte of a
 * connection for text or binary, and connect() does not say which will come. We guess that
 * users with the same kind of socket speak what such users spoke before. The first byte shows
 * whether the guess was right; if not, see pool/swap.h.
 *
 * No lock, no wait; errno is kept.
 */
#ifndef MCPOOL_GUESS_H
#define MCPOOL_GUESS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "base/hash.h"
#include "conn/conn.h"
#include "conn/endpoint.h"
#include "wire/wire.h"

/* Which kind of socket FRESH is, by its options and flags: client libraries prepare their
 * sockets each in their own way. */
static inline uint8_t guess_kind(const struct conn *fresh)
{
    uint32_t prepared = fresh->options.given * 2u + ((conn_flags(fresh) & O_NONBLOCK) != 0);

    return (uint8_t)(hash_mix(prepared) >> 48) % POOL_HABITS;
}

/* What the user of FRESH will probably speak; WIRE_UNDECIDED if that cannot be told. FRESH is
 * bound to its endpoint, and its flags are noted. Relaxed: an old value is a wrong guess. */
static inline enum wire_protocol guess_protocol(struct conn *fresh)
{
    fresh->socket_kind = guess_kind(fresh);
    return (enum wire_protocol)atomic_load_explicit(
        &fresh->endpoint->habits[fresh->socket_kind], memory_order_relaxed);
}

/* What is about to be sent. */
struct pieces {
    const struct iovec *iov;
    size_t count;
    bool readable; /* the pieces and the first byte are known to be readable */
};

/* PIECES are about to be sent on CONN, on which the caller is in a call. Learns from the first
 * byte what is spoken. False if CONN speaks another protocol: the caller then ends its call and
 * calls swap_to_fit(). */
bool guess_fits(struct conn *conn, const struct pieces *pieces);

/* Whether that is so without a look: the present user of CONN has sent something before. */
static inline bool guess_is_past(const struct conn *conn)
{
    return atomic_load_explicit(&conn->has_sent, memory_order_relaxed);
}

/* The first byte of the first piece that is not empty; NULL if it cannot be read. */
const uint8_t *guess_first_byte(const struct pieces *pieces);

/* Whether the next byte on CONN is the first of its present user. */
bool guess_is_open(const struct conn *conn);

/* Whether CONN, which is bound to its endpoint, speaks what users with the same kind of socket
 * spoke last, and nothing else was ever spoken to its server. */
bool guess_is_sure(const struct conn *conn);

#endif
