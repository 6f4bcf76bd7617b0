/*
 * What a call is about to send, parsed before the call is made.
 *
 * As soon as the bytes are sent, another thread may get the reply and give the memory of the
 * request back, while the sender is still in its call. So requests are parsed before the call,
 * together with the arrays that say where they are, and what was found counts only when the
 * call has sent all of it. A call that sent only a part gets a second look at that part: its
 * caller still has to send the rest.
 *
 * Memory that the kernel would refuse (EFAULT) is never touched. Nothing here locks, blocks or
 * changes the connection; errno is kept. The caller has a call of the kind SEND under way on
 * the connection whose tracker WIRE is, and is the only one.
 */
#ifndef MCPOOL_SENDING_H
#define MCPOOL_SENDING_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "wire/wire.h"

struct sending {
    size_t n;          /* bytes */
    bool seen;         /* all of them that must be */
    bool one_get;      /* see wire_is_one_get(); AHEAD is not filled in then */
    uintptr_t page;    /* the number of a page known to be readable */
    struct wire ahead; /* what the bytes do */
};

/* The first MOST bytes at BYTES, or of COUNT pieces at IOV, are about to be sent, or were.
 * READABLE: the first byte is known to be. */
void sending_look_at_bytes(struct sending *sending, const struct wire *wire, const void *bytes,
                           bool readable, size_t most);
void sending_look_at_pieces(struct sending *sending, const struct wire *wire,
                            const struct iovec *iov, size_t count, size_t most);

/* The same of COUNT messages at MESSAGES; each begins with a struct msghdr, STRIDE bytes behind
 * the one before. */
void sending_look_at_messages(struct sending *sending, const struct wire *wire,
                              const void *messages, size_t stride, size_t count, size_t most);

/* The N bytes at BYTES are about to be sent; READABLE: the first and the last of them are known
 * to be, if they are few enough to be one `get`. */
static inline void sending_look(struct sending *sending, const struct wire *wire,
                                const void *bytes, size_t n, bool readable)
{
    if (readable && n <= WIRE_ONE_GET_MAX && wire_is_one_get(wire, bytes, n)) {
        sending->n = n;
        sending->seen = true;
        sending->one_get = true;
    } else {
        sending_look_at_bytes(sending, wire, bytes, readable, n);
    }
}

/* Whether MOVED bytes, the result of the call, are what was looked at. */
static inline bool sending_is(const struct sending *sending, size_t moved)
{
    return sending->seen && sending->n == moved;
}

/* Notes in WIRE that what was looked at was sent. The caller holds the connection. */
static inline void sending_commit(const struct sending *sending, struct wire *wire)
{
    if (sending->one_get)
        wire_sent_one_get(wire);
    else
        wire_commit(wire, &sending->ahead);
}

#endif
