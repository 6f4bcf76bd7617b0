/*
 * A lone `get`: a request for one key on a settled connection, and its whole reply, as a
 * program that keeps its connections open sends and receives nearly always. The two leave
 * struct wire as it was, so only one byte says that the request is outstanding, and the key is
 * remembered: the reply must begin with it. Whatever is read here is read by wire_look_at() and
 * wire_received() in the same way; every other form is left to them.
 */
#ifndef MCPOOL_LONE_H
#define MCPOOL_LONE_H

#include <string.h>

#include "base/compiler.h"
#include "wire/eight.h"
#include "wire/number.h"
#include "wire/wire.h"

/* So that the eight bytes that end with the key begin in the request, behind its first byte or
 * with that. */
#define LONE_KEY_LEAST 4

/* Of such eight bytes, those of a key of LENGTH bytes, which is shorter. */
ALWAYS_INLINE uint64_t lone_short(uint64_t eight, size_t length)
{
    return eight >> ((sizeof(uint64_t) - length) * 8);
}

/* Whether the bytes of TEXT, a literal, are at AT, where as many bytes are readable. */
#define LONE_IS(at, text) (memcmp(at, text, sizeof(text) - 1) == 0)

/* How long the key is if N bytes are a lone `get`. */
ALWAYS_INLINE size_t lone_length(size_t n)
{
    return n - (sizeof "get \r\n" - 1);
}

/* Whether the N bytes at BYTES are one. They are readable. */
ALWAYS_INLINE bool lone_is_get(const void *bytes, size_t n)
{
    const uint8_t *key = (const uint8_t *)bytes + sizeof "get " - 1, *last;
    size_t length = lone_length(n);
    uint64_t marks;

    if (length - LONE_KEY_LEAST > WIRE_LONE_KEY - LONE_KEY_LEAST || !LONE_IS(bytes, "get ") ||
        !LONE_IS((const uint8_t *)bytes + n - 2, "\r\n"))
        return false;
    last = key + length - sizeof(uint64_t);
    for (marks = eight_mark(eight_at(last)); key < last; key += sizeof(uint64_t))
        marks |= eight_mark(eight_at(key));
    marks &= EIGHT_MARKS;
    return __builtin_expect(marks == 0, 1) ||
           (length < sizeof(uint64_t) && lone_short(marks, length) == 0);
}

/* SENDER: whether a lone `get` may be the next request on WIRE. A hint without the lock. */
ALWAYS_INLINE bool lone_may_begin(const struct wire *wire)
{
    return __atomic_load_n(&wire->lone, __ATOMIC_RELAXED) == WIRE_SETTLED;
}

/* SENDER: the lone `get` at BYTES, of N bytes, is about to be sent. lone_may_begin() is true,
 * so no receiver reads the key now. Relaxed: lone_sent() is called with the lock, which orders.
 */
ALWAYS_INLINE void lone_keep_key(struct wire *wire, struct wire_key *where, const void *bytes,
                                 size_t n)
{
    const uint8_t *key = (const uint8_t *)bytes + sizeof "get " - 1;
    const uint8_t *last = key + lone_length(n) - sizeof(uint64_t);
    uint64_t *kept = where->words;

    for (; key < last; key += sizeof(uint64_t))
        __atomic_store_n(kept++, eight_at(key), __ATOMIC_RELAXED);
    __atomic_store_n(kept, eight_at(last), __ATOMIC_RELAXED);
    __atomic_store_n(&wire->lone_length, (uint8_t)lone_length(n), __ATOMIC_RELAXED);
}

/* It was sent. */
ALWAYS_INLINE void lone_sent(struct wire *wire)
{
    if (__builtin_expect(wire->lone == WIRE_SETTLED, 1))
        __atomic_store_n(&wire->lone, WIRE_LONE_GET, __ATOMIC_RELAXED);
    else
        wire_sent_get(wire);
}

/* Whether the N bytes at BYTES are the value of the key that is kept, whole, and nothing else.
 * The end is looked at first, so numbers end before it. */
ALWAYS_INLINE bool lone_is_value(const struct wire *wire, const struct wire_key *where,
                                 const uint8_t *bytes, size_t n)
{
    const uint8_t *at = bytes + sizeof "VALUE " - 1, *end = bytes + n;
    size_t length = __atomic_load_n(&wire->lone_length, __ATOMIC_RELAXED);
    const uint8_t *last = at + length - sizeof(uint64_t);
    const uint64_t *kept = where->words;
    uint64_t differ;
    uint32_t number;

    if (n < length + sizeof "VALUE  0 0\r\n\r\nEND\r\n" - 1 || !LONE_IS(bytes, "VALUE ") ||
        !LONE_IS(end - 7, "\r\nEND\r\n"))
        return false;
    for (; at < last; at += sizeof(uint64_t)) {
        if (eight_at(at) != __atomic_load_n(kept++, __ATOMIC_RELAXED))
            return false;
    }
    differ = eight_at(last) ^ __atomic_load_n(kept, __ATOMIC_RELAXED);
    if (__builtin_expect(differ != 0, 0) &&
        (length >= sizeof(uint64_t) || lone_short(differ, length) != 0))
        return false;
    at = last + sizeof(uint64_t);
    if (*at++ != ' ' || !number_pass_flags(&at, NULL) || !number_pass(&at, NULL, &number))
        return false;
    return (size_t)(end - at) == number + sizeof "\r\n\r\nEND\r\n" - 1 && LONE_IS(at, "\r\n");
}

/* The program received the N bytes at BYTES. False if they are not the whole reply to a lone
 * `get`: then they are for wire_received(). */
ALWAYS_INLINE bool lone_received(struct wire *wire, const struct wire_key *key,
                                 const void *bytes, size_t n)
{
    if (wire->lone != WIRE_LONE_GET ||
        !(__builtin_expect(lone_is_value(wire, key, bytes, n), 1) ||
          (n == 5 && LONE_IS(bytes, "END\r\n"))))
        return false;
    __atomic_store_n(&wire->lone, WIRE_SETTLED, __ATOMIC_RELAXED);
    return true;
}

#endif
