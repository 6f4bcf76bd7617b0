/*
 * The lone `get` (wire/lone.h) against the parsers that read byte by byte: with every key
 * length about its bounds, and with each byte of the request and of the reply replaced by every
 * other.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/lone.h"
#include "wire/wire.h"

/* Of the one lone `get` that is outstanding. */
static struct wire_key kept;

#define MOST 512

struct text {
    char bytes[MOST];
    size_t n;
};

static struct text request_for(size_t length)
{
    struct text text;

    text.n = (size_t)snprintf(text.bytes, MOST, "get %.*s\r\n", (int)length,
                              "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "0123456789abcdefghijklmnopqrstuvwxyz");
    return text;
}

/* The value of the key in REQUEST, for which FORMAT may have up to two %s. */
static struct text reply_to(const struct text *request, const char *format)
{
    struct text text;
    char key[MOST];

    snprintf(key, sizeof key, "%.*s", (int)(request->n - 6), request->bytes + 4);
    text.n = (size_t)snprintf(text.bytes, MOST, format, key, key);
    return text;
}

/* The bytes are copied to a block of their own size, so that the sanitizer sees every read
 * beyond it. */
static char *copy_of(const char *bytes, size_t n)
{
    char *copy = malloc(n ? n : 1);

    memcpy(copy, bytes, n);
    return copy;
}

/* Whether the fast path took the request. */
static bool send_lone(struct wire *wire, const struct text *request)
{
    char *copy = copy_of(request->bytes, request->n);
    bool lone = lone_may_begin(wire) && lone_is_get(copy, request->n);

    if (lone) {
        lone_keep_key(wire, &kept, copy, request->n);
        lone_sent(wire);
    } else {
        wire_sent(wire, copy, request->n);
    }
    free(copy);
    return lone;
}

/* The same for the reply. */
static bool receive_lone(struct wire *wire, const struct text *reply)
{
    char *copy = copy_of(reply->bytes, reply->n);
    bool lone = lone_received(wire, &kept, copy, reply->n);

    if (!lone)
        wire_received(wire, copy, reply->n);
    free(copy);
    return lone;
}

static void by_bytes(struct wire *wire, bool sent, const struct text *text)
{
    for (size_t i = 0; i < text->n; i++) {
        if (sent)
            wire_sent(wire, text->bytes + i, 1);
        else
            wire_received(wire, text->bytes + i, 1);
    }
}

static void settle(struct wire *wire)
{
    wire_init(wire);
    wire_sent(wire, "get a\r\n", 7);
    cr_assert_not(lone_may_begin(wire));
    wire_received(wire, "END\r\n", 5);
    cr_assert(lone_may_begin(wire));
}

static void demand_same(const struct wire *fast, const struct wire *slow,
                        const struct text *request, const struct text *reply)
{
    if (wire_verdict(fast) != wire_verdict(slow) || wire_refusal(fast) != wire_refusal(slow))
        cr_assert_fail("after %.*s and %.*s: %s instead of %s", (int)request->n, request->bytes,
                       (int)reply->n, reply->bytes, reason_name(wire_refusal(fast)),
                       reason_name(wire_refusal(slow)));
}

/* Plays the dialogue both ways, and one more behind it: whatever the first left behind would
 * show there. Returns whether the fast path took the request and its reply. */
static bool play(const struct text *request, const struct text *reply)
{
    static const struct text again = {"get b\r\n", 7}, none = {"END\r\n", 5};
    struct wire fast, slow;
    bool lone;

    settle(&fast);
    slow = fast;
    lone = send_lone(&fast, request);
    by_bytes(&slow, true, request);
    demand_same(&fast, &slow, request, &none);
    lone &= receive_lone(&fast, reply);
    by_bytes(&slow, false, reply);
    demand_same(&fast, &slow, request, reply);
    by_bytes(&fast, true, &again);
    by_bytes(&slow, true, &again);
    demand_same(&fast, &slow, request, reply);
    by_bytes(&fast, false, &none);
    by_bytes(&slow, false, &none);
    demand_same(&fast, &slow, request, reply);
    return lone;
}

static const char *const replies[] = {
    "END\r\n",
    "VALUE %s 0 0\r\n\r\nEND\r\n",
    "VALUE %s 7 1\r\nx\r\nEND\r\n",
    "VALUE %s 429496729 10\r\n0123456789\r\nEND\r\n",
    "VALUE %s 0 12\r\n\r\nEND\r\n\r\nEND\r\nEND\r\n",
    "VALUE %s 0 007\r\n\r\nEND\r\n\r\nEND\r\n",
};

/* What the fast path must leave to others: more, less, or something else than the value. */
static const char *const others[] = {
    "VALUE %s 0 5\r\nhello\r\nEND\r\nEND\r\n",
    "VALUE %s 0 5\r\nhello\r\n",
    "VALUE %s 0 5 77\r\nhello\r\nEND\r\n",
    "VALUE %s 0 4\r\nhello\r\nEND\r\n",
    "VALUE %s 0 6\r\nhello\r\nEND\r\n",
    "VALUE %s 0 4294967301\r\nhello\r\nEND\r\n",
    "VALUE %s 0 0000000005\r\nhello\r\nEND\r\n",
    "VALUE %s 4294967295 5\r\nhello\r\nEND\r\n",
    "VALUE %s 4294967296 5\r\nhello\r\nEND\r\n",
    "VALUE %s 0 5\r\nhello\r\nVALUE %s 0 5\r\nhello\r\nEND\r\n",
    "VALUE %sx 0 5\r\nhello\r\nEND\r\n",
    "VALUE another-key-than-that 0 5\r\nhello\r\nEND\r\n",
    "VALUE %s 0 \r\n\r\nEND\r\n",
    "VALUE %s  5\r\nhello\r\nEND\r\n",
    "ERROR\r\n",
    "SERVER_ERROR out of memory\r\n",
    "STORED\r\n",
    "ENDED\r\n",
};

Test(lone, keys_of_every_length)
{
    for (size_t length = 1; length < 80; length++) {
        struct text request = request_for(length);
        bool taken = length >= LONE_KEY_LEAST && length <= WIRE_LONE_KEY;

        for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
            struct text reply = reply_to(&request, replies[i]);

            cr_assert_eq(play(&request, &reply), taken, "%zu bytes, reply %zu", length, i);
        }
    }
}

Test(lone, other_replies)
{
    for (size_t length = 4; length < 20; length++) {
        struct text request = request_for(length);

        for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
            struct text reply = reply_to(&request, others[i]);

            cr_assert_not(play(&request, &reply), "%zu bytes, reply %zu", length, i);
        }
    }
}

/* Each byte of the one, then of the other, becomes every other byte. */
static void replace_all(const struct text *request, const struct text *reply)
{
    struct text changed = *request;

    for (size_t at = 0; at < request->n; at++) {
        for (int byte = 0; byte < 256; byte++) {
            changed.bytes[at] = (char)byte;
            play(&changed, reply);
        }
        changed.bytes[at] = request->bytes[at];
    }
    changed = *reply;
    for (size_t at = 0; at < reply->n; at++) {
        for (int byte = 0; byte < 256; byte++) {
            changed.bytes[at] = (char)byte;
            play(request, &changed);
        }
        changed.bytes[at] = reply->bytes[at];
    }
}

Test(lone, every_byte_replaced)
{
    static const size_t lengths[] = {4, 7, 8, 9, 16, 17, 64};

    for (size_t l = 0; l < sizeof lengths / sizeof lengths[0]; l++) {
        struct text request = request_for(lengths[l]);

        for (size_t i = 0; i < sizeof replies / sizeof replies[0]; i++) {
            struct text reply = reply_to(&request, replies[i]);

            replace_all(&request, &reply);
        }
    }
}

/* The request and the reply end too early. */
Test(lone, every_length)
{
    struct text request = request_for(11), reply = reply_to(&request, replies[3]), part;

    for (size_t n = 0; n < request.n; n++) {
        part = request;
        part.n = n;
        play(&part, &reply);
    }
    for (size_t n = 0; n < reply.n; n++) {
        part = reply;
        part.n = n;
        play(&request, &part);
    }
}

/* Before the lock is taken another thread may have received something: the request counts all
 * the same. */
Test(lone, no_longer_settled)
{
    struct text request = request_for(8), reply = reply_to(&request, replies[2]);
    struct wire wire;

    settle(&wire);
    lone_keep_key(&wire, &kept, request.bytes, request.n);
    wire_sent(&wire, "get b\r\n", 7);
    lone_sent(&wire);
    cr_assert_not(receive_lone(&wire, &(struct text){"END\r\n", 5}));
    cr_assert_eq(wire_verdict(&wire), WIRE_REPLY_OWED);
    receive_lone(&wire, &reply);
    cr_assert_eq(wire_verdict(&wire), WIRE_CLEAN);
}
