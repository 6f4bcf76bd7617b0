/*
 * Fuzzes the wire tracker with libFuzzer. The program's name selects the dialogues: fuzz-text,
 * fuzz-meta or fuzz-binary. An input is a sequence of records. The first byte of a record has a
 * bit (the highest) for bytes from the server, and the number of the bytes that follow.
 *
 * Every input must cause no undefined behaviour, and keep the rules that the functions below
 * are named after.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/lone.h"
#include "wire/wire.h"

/* Of the one lone `get` that is outstanding. */
static struct wire_key key;

#define FROM_SERVER 0x80
#define LONGEST     0x7f

int LLVMFuzzerInitialize(int *argc, char ***argv);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum kind { TEXT, META, BINARY };

static enum kind kind;

static const uint8_t noop[WIRE_PACKET_HEADER] = {0x80, 0x0a};
static const uint8_t noop_answer[WIRE_PACKET_HEADER] = {0x81, 0x0a};

int LLVMFuzzerInitialize(int *argc, char ***argv)
{
    const char *name = strrchr((*argv)[0], '-');

    (void)argc;
    if (name && strcmp(name, "-meta") == 0)
        kind = META;
    else if (name && strcmp(name, "-binary") == 0)
        kind = BINARY;
    return 0;
}

static void demand(bool holds, const char *what)
{
    if (holds)
        return;
    fprintf(stderr, "violated: %s\n", what);
    abort();
}

/* The bytes are copied to a block of their own size, so that the sanitizer sees every read
 * beyond it. */
static void feed(struct wire *wire, bool from_server, const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);

    memcpy(copy, bytes, n);
    if (from_server)
        wire_received(wire, copy, n);
    else
        wire_sent(wire, copy, n);
    free(copy);
}

/* The same as the hooks do it, by the fast paths where they accept the bytes. */
static void feed_as_hooks(struct wire *wire, bool from_server, const uint8_t *bytes, size_t n)
{
    uint8_t *copy = malloc(n ? n : 1);
    struct wire_run run;

    memcpy(copy, bytes, n);
    if (!from_server && lone_may_begin(wire) && lone_is_get(copy, n)) {
        lone_keep_key(wire, &key, copy, n);
        lone_sent(wire);
    } else if (!from_server && wire_are_whole(wire, copy, n, &run)) {
        wire_sent_whole(wire, run);
    } else if (!from_server) {
        wire_sent(wire, copy, n);
    } else if (!lone_received(wire, &key, copy, n)) {
        wire_received(wire, copy, n);
    }
    free(copy);
}

/* The bytes that the tracker may look at, a few at a time: the others are not readable. */
struct sight {
    const uint8_t *real;
    uint8_t *shown;
};

static size_t look(void *context, const void *at, size_t n)
{
    struct sight *sight = context;
    size_t offset = (size_t)((const uint8_t *)at - sight->shown);

    n = n < 1 + offset % 5 ? n : 1 + offset % 5;
    memcpy(sight->shown + offset, sight->real + offset, n);
    return n;
}

/* What the hook of send() does when the kernel takes only SENT of the N bytes at first. */
static void feed_in_sight(struct wire *wire, const uint8_t *bytes, size_t n, size_t sent)
{
    struct sight sight = {bytes, malloc(n ? n : 1)};
    const struct wire before = *wire;
    struct wire ahead;

    wire_look_ahead(&ahead, wire);
    demand(wire_look_at(&ahead, sight.shown, n, look, &sight), "all could be looked at");
    if (sent != n) {
        memset(sight.shown, 0, n);
        wire_look_ahead(&ahead, wire);
        demand(wire_look_at(&ahead, sight.shown, sent, look, &sight), "and so could a part");
    }
    demand(memcmp(wire, &before, sizeof(before)) == 0, "a look changes nothing");
    wire_commit(wire, &ahead);
    free(sight.shown);
    if (sent != n)
        feed_in_sight(wire, bytes + sent, n - sent, n - sent);
}

/* The same bytes four times: whole, one by one, cut at places that depend on them, and visible
 * only where the tracker asked. */
struct trackers {
    struct wire whole, single, cut, sighted;
};

static void feed_all(struct trackers *trackers, bool from_server, const uint8_t *bytes,
                     size_t n)
{
    uint32_t mixed = (uint32_t)n;

    feed_as_hooks(&trackers->whole, from_server, bytes, n);
    if (from_server)
        feed(&trackers->sighted, true, bytes, n);
    else
        feed_in_sight(&trackers->sighted, bytes, n, n / 3);
    for (size_t i = 0; i < n; i++)
        feed(&trackers->single, from_server, bytes + i, 1);
    for (size_t at = 0, length; at < n; at += length) {
        mixed = (mixed ^ bytes[at]) * 16777619u;
        length = 1 + (mixed >> 16) % 7;
        if (length > n - at)
            length = n - at;
        feed(&trackers->cut, from_server, bytes + at, length);
    }
}

static bool agree(const struct wire *a, const struct wire *b)
{
    return wire_verdict(a) == wire_verdict(b) && wire_refusal(a) == wire_refusal(b) &&
           wire_protocol(a) == wire_protocol(b) &&
           wire_shows_no_auth(a) == wire_shows_no_auth(b) &&
           wire_may_be_authenticated(a) == wire_may_be_authenticated(b) &&
           wire_knows_mn(a) == wire_knows_mn(b);
}

static void cuts_do_not_matter(const struct trackers *trackers)
{
    demand(agree(&trackers->whole, &trackers->single), "whole and byte by byte agree");
    demand(agree(&trackers->whole, &trackers->cut), "whole and in pieces agree");
    demand(agree(&trackers->whole, &trackers->sighted), "whole and in part unseen agree");
}

static void poison_stays(const struct wire *before, const struct wire *after)
{
    if (wire_verdict(before) != WIRE_DIRTY || wire_refusal(before) == REASON_UNUSED)
        return;
    demand(wire_verdict(after) == WIRE_DIRTY, "dirty stays dirty");
    demand(wire_refusal(after) == wire_refusal(before), "the first reason stays");
}

/* Another request can begin, and be answered. */
static void clean_is_a_boundary(const struct wire *wire)
{
    struct wire next = *wire;

    if (wire_protocol(wire) == WIRE_BINARY) {
        feed(&next, false, noop, sizeof(noop));
        demand(wire_verdict(&next) == WIRE_REPLY_OWED, "a request demands its reply");
        feed(&next, true, noop_answer, sizeof(noop_answer));
    } else {
        feed(&next, false, (const uint8_t *)"get a\r\n", 7);
        demand(wire_verdict(&next) == WIRE_REPLY_OWED, "a request demands its reply");
        feed(&next, true, (const uint8_t *)"END\r\n", 5);
    }
    demand(wire_verdict(&next) == WIRE_CLEAN, "clean and a whole exchange are clean");
}

/* No byte can come that any user waits for. */
static void nothing_is_owed_when_clean(const struct wire *wire)
{
    static const uint8_t bytes[] = {'E', 0x81, '\r', '\n', 0};

    for (size_t i = 0; i < sizeof(bytes); i++) {
        struct wire next = *wire;

        feed(&next, true, &bytes[i], 1);
        demand(wire_verdict(&next) == WIRE_DIRTY, "an unrequested byte is noticed");
    }
}

static void a_fence_confirms(const struct wire *wire)
{
    struct wire next = *wire;
    uint8_t fence[WIRE_FENCE_MAX];
    size_t n = wire_fence(&next, true, 0x01020304, fence);

    feed(&next, false, fence, n);
    demand(wire_verdict(&next) == WIRE_REPLY_OWED, "a fence demands its answer");
    if (wire_protocol(wire) == WIRE_BINARY)
        fence[0] = 0x81;
    else
        memcpy(fence, "MN\r\n", 4);
    feed(&next, true, fence, n);
    demand(wire_verdict(&next) == WIRE_CLEAN, "and then nothing is owed");
}

static void a_quit_that_is_sent_is_the_end(const struct wire *wire)
{
    static const uint8_t quitq[WIRE_PACKET_HEADER] = {0x80, 0x17};
    struct wire next = *wire;

    if (wire_quit(wire, "quit\r\n", 6))
        feed(&next, false, (const uint8_t *)"quit\r\n", 6);
    else if (wire_quit(wire, quitq, sizeof(quitq)))
        feed(&next, false, quitq, sizeof(quitq));
    else
        return;
    demand(wire_refusal(&next) == REASON_QUIT, "nothing is reused after a quit");
}

static void check(const struct wire *wire, bool replied)
{
    switch (wire_verdict(wire)) {
    case WIRE_CLEAN:
        demand(replied, "nothing is clean before the first reply");
        clean_is_a_boundary(wire);
        nothing_is_owed_when_clean(wire);
        a_quit_that_is_sent_is_the_end(wire);
        break;
    case WIRE_UNCONFIRMED:
    case WIRE_UNPROVEN:
        a_fence_confirms(wire);
        break;
    default:
        break;
    }
}

/* Dialogues of another kind are for another fuzz program. */
static bool is_of_kind(uint8_t first)
{
    return (wire_protocol_of(first) == WIRE_BINARY) == (kind == BINARY);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct trackers trackers;
    bool sent = false, replied = false;
    size_t at = 0;

    wire_init(&trackers.whole);
    wire_init(&trackers.single);
    wire_init(&trackers.cut);
    wire_init(&trackers.sighted);
    if (kind ==
        META) { /* meta commands prove nothing before the server is known to understand them */
        feed_all(&trackers, false, (const uint8_t *)"mn\r\n", 4);
        feed_all(&trackers, true, (const uint8_t *)"MN\r\n", 4);
        sent = replied = true;
    }
    while (at < size) {
        bool from_server = data[at] & FROM_SERVER;
        size_t n = data[at] & LONGEST;
        struct wire before = trackers.whole;

        at++;
        if (n > size - at)
            n = size - at;
        if (n > 0 && !from_server && !sent && !is_of_kind(data[at]))
            return 0;
        sent |= n > 0 && !from_server;
        replied |= n > 0 && from_server;
        feed_all(&trackers, from_server, data + at, n);
        at += n;
        cuts_do_not_matter(&trackers);
        poison_stays(&before, &trackers.whole);
        check(&trackers.whole, replied);
    }
    return 0;
}
