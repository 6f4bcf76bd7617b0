/*
 * What a call is about to send, parsed before the call is made.
 *
 * As soon as the bytes are sent, another thread may receive the reply and free the memory of
 * the request, while the sender is still in its call. So requests are parsed before the call,
 * with the arrays that say where they are. What was found counts only if the call has sent all
 * of it. If it has sent a part, that part is parsed after the call: the caller still has to
 * send the rest, so the memory is still there.
 *
 * Memory that the kernel would refuse (EFAULT) is never touched. Nothing here locks, blocks or
 * changes the connection; errno is kept. The caller is in a call of the kind SEND on the
 * connection that WIRE belongs to, and is the only one.
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
    size_t n;       /* bytes that were looked at */
    bool seen;      /* all bytes were readable, as far as they have to be parsed */
    bool are_whole; /* see wire_are_whole(): WHOLE is set then, else AHEAD */
    struct wire_run whole;
    uintptr_t page;    /* index of a page that is known to be readable */
    struct wire ahead; /* the state of the tracker after the bytes */
};

/* The first MOST bytes at BYTES, or of COUNT pieces at IOV, are about to be sent, or were sent.
 * READABLE: the first byte is known to be readable. */
void sending_look_at_bytes(struct sending *sending, const struct wire *wire, const void *bytes,
                           bool readable, size_t most);
void sending_look_at_pieces(struct sending *sending, const struct wire *wire,
                            const struct iovec *iov, size_t count, size_t most);

/* The same for COUNT messages at MESSAGES: each begins with a struct msghdr, STRIDE bytes after
 * the one before. */
void sending_look_at_messages(struct sending *sending, const struct wire *wire,
                              const void *messages, size_t stride, size_t count, size_t most);

/* The N bytes at BYTES are about to be sent. FIRST: the first byte is known to be readable,
 * ALL: all of them are. */
static inline void sending_look(struct sending *sending, const struct wire *wire,
                                const void *bytes, size_t n, bool first, bool all)
{
    if (all && wire_are_whole(wire, bytes, n, &sending->whole)) {
        sending->n = n;
        sending->seen = true;
        sending->are_whole = true;
    } else {
        sending_look_at_bytes(sending, wire, bytes, first, n);
    }
}

/* Whether MOVED, the result of the call, is the number of bytes that were looked at, all
 * readable. */
static inline bool sending_is(const struct sending *sending, size_t moved)
{
    return sending->seen && sending->n == moved;
}

/* Notes in WIRE that the bytes that were looked at were sent. The caller has conn_trylock(). */
static inline void sending_commit(const struct sending *sending, struct wire *wire)
{
    if (sending->are_whole)
        wire_sent_whole(wire, sending->whole);
    else
        wire_commit(wire, &sending->ahead);
}

#endif
