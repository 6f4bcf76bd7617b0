/*
 * The wire tracker against the dialogues of wire_vectors.c, in every fragmentation, and its
 * laws: a refused connection stays refused, clean dialogues can be joined, the state does not
 * depend on the cuts.
 */
#include <criterion/criterion.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "wire/internal.h"
#include "wire/lone.h"
#include "wire_vectors.h"

/* Of the one lone `get` that is outstanding. */
static struct wire_key key;

/* Steps up to this length are cut at every byte, longer ones at so many places. */
#define CUT_EVERYWHERE 400
#define CUT_SAMPLES    50

#define RANDOM_ROUNDS 20
#define FAST_ROUNDS   20000

#define KEY_50  "kkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkkk"
#define KEY_250 KEY_50 KEY_50 KEY_50 KEY_50 KEY_50
#define KEY_251 KEY_250 "k"

static const char *const verdict_names[] = {"CLEAN",      "UNCONFIRMED", "UNPROVEN",
                                            "REPLY_OWED", "BUSY",        "DIRTY"};

static void feed(struct wire *wire, char direction, const char *bytes, size_t n)
{
    /* The bytes are copied to a block of their own size, so that the sanitizer sees every read
     * beyond it. */
    char *copy = malloc(n ? n : 1);

    memcpy(copy, bytes, n);
    if (direction == '>')
        wire_sent(wire, copy, n);
    else
        wire_received(wire, copy, n);
    free(copy);
}

/* The same as the hooks do it, by the fast paths where they accept the bytes. */
static void feed_as_hooks(struct wire *wire, char direction, const char *bytes, size_t n)
{
    char *copy = malloc(n ? n : 1);
    struct wire_run run;

    memcpy(copy, bytes, n);
    if (direction == '>' && lone_may_begin(wire) && lone_is_get(copy, n)) {
        lone_keep_key(wire, &key, copy, n);
        lone_sent(wire);
    } else if (direction == '>' && wire_are_whole(wire, copy, n, &run)) {
        wire_sent_whole(wire, run);
    } else if (direction == '>') {
        wire_sent(wire, copy, n);
    } else if (!lone_received(wire, &key, copy, n)) {
        wire_received(wire, copy, n);
    }
    free(copy);
}

static size_t step_count(const struct wire_vector *vector)
{
    size_t n = 0;

    while (n < WIRE_STEPS && vector->steps[n].direction)
        n++;
    return n;
}

static bool ends_dirty(const struct wire_vector *vector)
{
    size_t n = step_count(vector);

    return n > 0 && vector->steps[n - 1].verdict == WIRE_DIRTY;
}

static bool ends_clean(const struct wire_vector *vector)
{
    size_t n = step_count(vector);

    return n > 0 && vector->steps[n - 1].verdict == WIRE_CLEAN;
}

static void check(const struct wire *wire, enum wire_verdict verdict, enum reason reason,
                  const char *name, size_t step, size_t cut)
{
    if (wire_verdict(wire) == verdict && wire_refusal(wire) == reason)
        return;
    cr_assert_fail("vector \"%s\", step %zu, cut at %zu: %s/%s instead of %s/%s", name, step,
                   cut, verdict_names[wire_verdict(wire)], reason_name(wire_refusal(wire)),
                   verdict_names[verdict], reason_name(reason));
}

static void check_step(const struct wire *wire, const struct wire_vector *vector, size_t step,
                       size_t cut)
{
    check(wire, vector->steps[step].verdict, vector->steps[step].reason, vector->name, step,
          cut);
}

static void run_whole(struct wire *wire, const struct wire_vector *vector)
{
    for (size_t i = 0; i < step_count(vector); i++) {
        const struct wire_step *step = &vector->steps[i];

        feed(wire, step->direction, step->bytes, step->length);
        check_step(wire, vector, i, 0);
    }
}

/* Words and lines that are done are no part of the state. */
static void clear_dead(struct wire_text_request *request, struct wire_text_reply *reply)
{
    struct wire_word *tokens[] = {&request->token, &reply->token};
    size_t line = reply->head == 0 ? reply->line : 0;

    for (int i = 0; i < 2; i++) {
        if (tokens[i]->length < sizeof tokens[i]->text)
            memset(tokens[i]->text + tokens[i]->length, 0,
                   sizeof tokens[i]->text - tokens[i]->length);
    }
    if (line < sizeof reply->text)
        memset(reply->text + line, 0, sizeof reply->text - line);
}

/* Nor are runs that were dropped, and the key when no lone `get` is outstanding. */
static void clear_unused(struct wire *wire)
{
    wire_unsettle(wire);
    for (unsigned i = wire->queue.used; i < WIRE_RUNS; i++)
        memset(queue_run(&wire->queue, i), 0, sizeof(struct wire_run));
    wire->lone_length = 0;
}

static bool same_state(struct wire a, struct wire b)
{
    clear_unused(&a);
    clear_unused(&b);
    if (wire_protocol(&a) == WIRE_TEXT) {
        clear_dead(&a.request.text, &a.reply.text);
        clear_dead(&b.request.text, &b.reply.text);
    }
    return memcmp(&a, &b, sizeof a) == 0;
}

/* Byte by byte no fast path is taken. */
static void feed_bytes(struct wire *wire, char direction, const char *bytes, size_t n)
{
    for (size_t at = 0; at < n; at++)
        feed(wire, direction, bytes + at, 1);
}

/* The states after each step, byte by byte. */
static void run_bytes(struct wire *after, const struct wire_vector *vector)
{
    struct wire wire = {0};

    wire_init(&wire);
    for (size_t i = 0; i < step_count(vector); i++) {
        feed_bytes(&wire, vector->steps[i].direction, vector->steps[i].bytes,
                   vector->steps[i].length);
        after[i] = wire;
    }
}

/* Step number CUT_STEP in two pieces, the others whole. AFTER are the states that must follow.
 */
static void run_cut(const struct wire_vector *vector, const struct wire *after, size_t cut_step,
                    size_t cut)
{
    struct wire wire = {0};

    wire_init(&wire);
    for (size_t i = 0; i < step_count(vector); i++) {
        const struct wire_step *step = &vector->steps[i];
        size_t first = i == cut_step ? cut : 0;

        feed(&wire, step->direction, step->bytes, first);
        feed(&wire, step->direction, step->bytes + first, step->length - first);
        check_step(&wire, vector, i, first);
        if (wire_verdict(&wire) != WIRE_DIRTY && !same_state(wire, after[i]))
            cr_assert_fail(
                "vector \"%s\", step %zu, cut at %zu: another state than byte by byte",
                vector->name, i, first);
    }
}

Test(wire, unused_at_first)
{
    struct wire wire;

    memset(&wire, 0xff, sizeof wire);
    wire_init(&wire);
    check(&wire, WIRE_DIRTY, REASON_UNUSED, "nothing", 0, 0);
    cr_assert_eq(wire_protocol(&wire), WIRE_UNDECIDED);
    feed(&wire, '>', "", 0);
    feed(&wire, '<', "", 0);
    check(&wire, WIRE_DIRTY, REASON_UNUSED, "no bytes", 0, 0);
    cr_assert_eq(wire_protocol(&wire), WIRE_UNDECIDED);
}

Test(wire, small_enough)
{
    cr_assert_lt(sizeof(struct wire), 1024);
}

Test(wire, vectors_whole)
{
    cr_assert_geq(wire_vector_count, 130);
    for (size_t i = 0; i < wire_vector_count; i++) {
        struct wire wire;

        wire_init(&wire);
        run_whole(&wire, &wire_vectors[i]);
    }
}

Test(wire, vectors_byte_by_byte)
{
    for (size_t i = 0; i < wire_vector_count; i++) {
        const struct wire_vector *vector = &wire_vectors[i];
        struct wire wire;

        wire_init(&wire);
        for (size_t k = 0; k < step_count(vector); k++) {
            for (size_t at = 0; at < vector->steps[k].length; at++)
                feed(&wire, vector->steps[k].direction, vector->steps[k].bytes + at, 1);
            check_step(&wire, vector, k, 1);
        }
    }
}

Test(wire, vectors_cut_in_two)
{
    for (size_t i = 0; i < wire_vector_count; i++) {
        const struct wire_vector *vector = &wire_vectors[i];
        struct wire after[WIRE_STEPS];

        run_bytes(after, vector);
        for (size_t k = 0; k < step_count(vector); k++) {
            size_t length = vector->steps[k].length;
            size_t stride = length <= CUT_EVERYWHERE ? 1 : length / CUT_SAMPLES;

            for (size_t cut = 0; cut < length; cut += stride)
                run_cut(vector, after, k, cut);
        }
    }
}

static unsigned seed_of_test(void)
{
    const char *given = getenv("WIRE_SEED");
    unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)time(NULL);

    printf("WIRE_SEED=%u\n", seed);
    return seed;
}

/* Compares the whole state, not only the verdict: else a cut could show later. */
Test(wire, cuts_leave_no_trace)
{
    unsigned state = seed_of_test();

    for (unsigned round = 0; round < RANDOM_ROUNDS; round++) {
        for (size_t i = 0; i < wire_vector_count; i++) {
            const struct wire_vector *vector = &wire_vectors[i];
            struct wire whole = {0}, pieces = {0};

            wire_init(&whole);
            wire_init(&pieces);
            for (size_t k = 0; k < step_count(vector); k++) {
                const struct wire_step *step = &vector->steps[k];
                size_t largest = 1u << (rand_r(&state) % 12);

                feed_as_hooks(&whole, step->direction, step->bytes, step->length);
                for (size_t at = 0, n; at < step->length; at += n) {
                    n = 1 + (size_t)rand_r(&state) % largest;
                    if (n > step->length - at)
                        n = step->length - at;
                    feed(&pieces, step->direction, step->bytes + at, n);
                }
                check_step(&pieces, vector, k, 0);
                if (wire_verdict(&whole) == WIRE_DIRTY)
                    break;
                if (!same_state(whole, pieces))
                    cr_assert_fail("vector \"%s\", step %zu: the state depends on the cuts",
                                   vector->name, k);
            }
        }
    }
}

/* Every dirty ending, followed by bytes that could seem to make it clean again. */
Test(wire, poison_stays)
{
    for (size_t i = 0; i < wire_vector_count; i++) {
        const struct wire_vector *dirty = &wire_vectors[i];
        struct wire wire;
        enum reason reason;

        if (!ends_dirty(dirty))
            continue;
        wire_init(&wire);
        run_whole(&wire, dirty);
        reason = wire_refusal(&wire);
        for (size_t k = 0; k < wire_vector_count; k++) {
            for (size_t s = 0; s < step_count(&wire_vectors[k]); s++) {
                const struct wire_step *step = &wire_vectors[k].steps[s];

                feed(&wire, step->direction, step->bytes, step->length);
                check(&wire, WIRE_DIRTY, reason, dirty->name, s, 0);
            }
        }
    }
}

static enum wire_protocol protocol_of(const struct wire_vector *vector)
{
    struct wire wire;

    wire_init(&wire);
    run_whole(&wire, vector);
    return wire_protocol(&wire);
}

static void feed_steps(struct wire *wire, const struct wire_vector *vector)
{
    for (size_t i = 0; i < step_count(vector); i++)
        feed(wire, vector->steps[i].direction, vector->steps[i].bytes, vector->steps[i].length);
}

Test(wire, clean_dialogues_add_up)
{
    for (size_t a = 0; a < wire_vector_count; a++) {
        if (!ends_clean(&wire_vectors[a]))
            continue;
        for (size_t b = 0; b < wire_vector_count; b++) {
            struct wire wire;

            if (!ends_clean(&wire_vectors[b]) ||
                protocol_of(&wire_vectors[a]) != protocol_of(&wire_vectors[b]))
                continue;
            wire_init(&wire);
            feed_steps(&wire, &wire_vectors[a]);
            feed_steps(&wire, &wire_vectors[b]);
            if (wire_verdict(&wire) != WIRE_CLEAN)
                cr_assert_fail("\"%s\" and then \"%s\": %s", wire_vectors[a].name,
                               wire_vectors[b].name, reason_name(wire_refusal(&wire)));
        }
    }
}

/* A dialogue on a connection on which there was another one before: the fast paths that need a
 * settled connection, against the bytes one by one. */
Test(wire, fast_paths_leave_the_same_state)
{
    for (size_t a = 0; a < wire_vector_count; a++) {
        struct wire before = {0};

        if (!ends_clean(&wire_vectors[a]))
            continue;
        wire_init(&before);
        feed_steps(&before, &wire_vectors[a]);
        for (size_t b = 0; b < wire_vector_count; b++) {
            struct wire fast = before, slow = before;

            for (size_t i = 0; i < step_count(&wire_vectors[b]); i++) {
                const struct wire_step *step = &wire_vectors[b].steps[i];

                feed_as_hooks(&fast, step->direction, step->bytes, step->length);
                feed_bytes(&slow, step->direction, step->bytes, step->length);
                if (wire_verdict(&fast) != wire_verdict(&slow) ||
                    wire_refusal(&fast) != wire_refusal(&slow) ||
                    (wire_verdict(&slow) != WIRE_DIRTY && !same_state(fast, slow)))
                    cr_assert_fail("\"%s\" and then \"%s\", step %zu", wire_vectors[a].name,
                                   wire_vectors[b].name, i);
            }
        }
    }
}

static bool same_facts(const struct wire *a, const struct wire *b)
{
    return wire_verdict(a) == wire_verdict(b) && wire_refusal(a) == wire_refusal(b) &&
           wire_protocol(a) == wire_protocol(b) && wire_knows_mn(a) == wire_knows_mn(b) &&
           wire_may_be_authenticated(a) == wire_may_be_authenticated(b);
}

/* Another process goes on with a clean dialogue as the same one does. */
Test(wire, a_clean_dialogue_can_be_saved)
{
    for (size_t a = 0; a < wire_vector_count; a++) {
        if (!ends_clean(&wire_vectors[a]))
            continue;
        for (size_t b = 0; b < wire_vector_count; b++) {
            struct wire_saved saved;
            struct wire here, there;

            wire_init(&here);
            feed_steps(&here, &wire_vectors[a]);
            wire_save(&here, &saved);
            memset(&there, 0xff, sizeof(there));
            cr_assert(wire_restore(&there, &saved));
            if (!same_facts(&here, &there))
                cr_assert_fail("\"%s\" is another one", wire_vectors[a].name);
            for (size_t i = 0; i < step_count(&wire_vectors[b]); i++) {
                const struct wire_step *step = &wire_vectors[b].steps[i];

                feed(&here, step->direction, step->bytes, step->length);
                feed(&there, step->direction, step->bytes, step->length);
                if (!same_facts(&here, &there))
                    cr_assert_fail("\"%s\", saved, and then \"%s\": %s, not %s",
                                   wire_vectors[a].name, wire_vectors[b].name,
                                   verdict_names[wire_verdict(&there)],
                                   verdict_names[wire_verdict(&here)]);
            }
        }
    }
}

Test(wire, what_is_no_dialogue_is_not_restored)
{
    struct wire wire;

    for (unsigned int protocol = 0; protocol < 256; protocol++) {
        struct wire_saved saved = {.protocol = (uint8_t)protocol, .facts = 0xff};

        cr_expect(wire_restore(&wire, &saved) ==
                  (protocol == WIRE_TEXT || protocol == WIRE_BINARY));
    }
}

/* A few dialogues are dirty only until the server is known to be 1.6 or newer. */
static bool dirty_after_mn(const struct wire_vector *vector)
{
    struct wire wire;

    wire_init(&wire);
    feed(&wire, '>', "mn\r\n", 4);
    feed(&wire, '<', "MN\r\n", 4);
    feed_steps(&wire, vector);
    return wire_verdict(&wire) == WIRE_DIRTY;
}

Test(wire, dirt_spoils_what_was_clean)
{
    for (size_t a = 0; a < wire_vector_count; a++) {
        if (!ends_clean(&wire_vectors[a]))
            continue;
        for (size_t b = 0; b < wire_vector_count; b++) {
            struct wire wire;

            if (!ends_dirty(&wire_vectors[b]) || !dirty_after_mn(&wire_vectors[b]))
                continue;
            wire_init(&wire);
            feed_steps(&wire, &wire_vectors[a]);
            feed_steps(&wire, &wire_vectors[b]);
            feed_steps(&wire, &wire_vectors[a]);
            if (wire_verdict(&wire) != WIRE_DIRTY)
                cr_assert_fail("\"%s\" after \"%s\" is forgiven", wire_vectors[b].name,
                               wire_vectors[a].name);
        }
    }
}

/* Replies of one line each, and the requests after which they are right. */
static const char *const replies[] = {
    "END",    "VALUE a 0 0", "STORED",      "NOT_STORED", "EXISTS", "NOT_FOUND", "1",
    "OK",     "TOUCHED",     "DELETED",     "VERSION 1",  "MN",     "STAT a b",  "HD",
    "VA 0 a", "EN",          "NF",          "NS",         "EX",     "RESET",     "BUSY",
    "NOPE",   "ME a b",      "ITEM a [1b]", "END x",      "MN x",   "VA 0",      "HD b",
};

static const struct {
    const char *request;
    const char *right; /* each reply between bars */
} kinds[] = {
    {"get a\r\n", "|END|VALUE a 0 0|"},
    {"gets a\r\n", "|END|VALUE a 0 0|"},
    {"gat 0 a\r\n", "|END|VALUE a 0 0|"},
    {"gats 0 a\r\n", "|END|VALUE a 0 0|"},
    {"set a 0 0 0\r\n\r\n", "|STORED|NOT_STORED|EXISTS|NOT_FOUND|"},
    {"append a 0 0 0\r\n\r\n", "|STORED|NOT_STORED|EXISTS|NOT_FOUND|"},
    {"cas a 0 0 0 1\r\n\r\n", "|STORED|NOT_STORED|EXISTS|NOT_FOUND|"},
    {"incr a 1\r\n", "|1|NOT_FOUND|"},
    {"decr a 1\r\n", "|1|NOT_FOUND|"},
    {"touch a 1\r\n", "|TOUCHED|NOT_FOUND|"},
    {"delete a\r\n", "|DELETED|NOT_FOUND|"},
    {"flush_all\r\n", "|OK|"},
    {"version\r\n", "|VERSION 1|"},
    {"stats\r\n", "|STAT a b|END|"},
    {"mn\r\n", "|MN|"},
    {"mg a\r\n", "|HD|HD b|VA 0|VA 0 a|EN|"},
    {"ms a 0\r\n\r\n", "|HD|HD b|NS|EX|NF|"},
    {"md a\r\n", "|HD|HD b|NS|EX|NF|"},
    {"ma a\r\n", "|HD|HD b|VA 0|VA 0 a|NS|EX|NF|"},
    {"delete a noreply\r\n", ""},
    {"mg a q\r\n", "|HD|HD b|VA 0|VA 0 a|"},
    {"ms a 0 q\r\n\r\n", "|NS|EX|NF|"},
    {"md a q\r\n", "|NS|EX|NF|"},
    {"ma a q\r\n", "|HD|HD b|VA 0|VA 0 a|NS|EX|NF|"},
};

Test(wire, kinds_of_replies)
{
    for (size_t i = 0; i < sizeof kinds / sizeof kinds[0]; i++) {
        for (size_t k = 0; k < sizeof replies / sizeof replies[0]; k++) {
            char barred[32], line[32];
            struct wire wire;

            snprintf(barred, sizeof barred, "|%s|", replies[k]);
            snprintf(line, sizeof line, "%s\r\n", replies[k]);
            wire_init(&wire);
            feed(&wire, '>', kinds[i].request, strlen(kinds[i].request));
            feed(&wire, '<', line, strlen(line));
            cr_assert_eq(wire_verdict(&wire) != WIRE_DIRTY,
                         strstr(kinds[i].right, barred) != NULL, "%s%s", kinds[i].request,
                         replies[k]);
        }
    }
}

struct dialogue {
    const char *sent;
    const char *received;
    bool no_auth;
    bool maybe;
};

/* The answer of a server with -Y to a login looks like the answer of others to a store. */
static const struct dialogue dialogues[] = {
    {"get a\r\n", "END\r\n", true, false},
    {"get a\r\n", "", false, false},
    {"get a\r\n", "EN", false, false},
    {"get a\r\n", "VALUE a 0 0\r\n\r\n", false, false},
    {"get a\r\n", "ERROR\r\n", false, false},
    {"get a\r\n", "CLIENT_ERROR unauthenticated\r\n", false, false},
    {"mn\r\n", "MN\r\n", true, false},
    {"add a 0 0 3\r\nb c\r\n", "STORED\r\n", true, false},
    {"incr a 1\r\n", "CLIENT_ERROR cannot increment or decrement non-numeric value\r\n", false,
     false},
    {"set a 0 0 3\r\nbcd\r\n", "STORED\r\n", false, false},
    {"set a 0 0 3\r\nb c\r\n", "STORED\r\n", false, true},
    {"set a 0 0 3\r\nb c\r\n", "", false, false},
    {"set a 0 0 3\r\nb c\r\n", "NOT_STORED\r\n", false, false},
    {"set a 0 0 3\r\nb c\r\n", "SERVER_ERROR object too large for cache\r\n", false, false},
    {"get a\r\nset a 0 0 3\r\nb c\r\n", "END\r\nSTORED\r\n", true, false},
    {"get a\r\nset a 0 0 3\r\nb c\r\n", "STORED\r\n", false, false},
    {"add a 0 0 1\r\nb\r\nset a 0 0 3\r\nb c\r\n", "STORED\r\n", false, true},
    {"add a 0 0 1\r\nb\r\nset a 0 0 3\r\nb c\r\n", "NOT_STORED\r\nSTORED\r\n", true, false},
    {"set a 0 0 1\r\nb\r\nset a 0 0 3\r\nb c\r\n", "STORED\r\n", false, true},
    {"delete a noreply\r\nget a\r\n", "END\r\n", true, false},
    {"delete a noreply\r\nset a 0 0 3\r\nb c\r\n", "STORED\r\n", false, true},
    {"delete a noreply\r\nset a 0 0 3\r\nb c\r\n", "NOT_STORED\r\n", false, false},
    {"set a 0 0 3 noreply\r\nb c\r\nget a\r\n", "END\r\n", false, false},
};

Test(wire, login)
{
    for (size_t i = 0; i < sizeof dialogues / sizeof dialogues[0]; i++) {
        const struct dialogue *dialogue = &dialogues[i];

        for (size_t cut = 0; cut <= strlen(dialogue->sent); cut++) {
            struct wire wire;

            wire_init(&wire);
            cr_assert_not(wire_shows_no_auth(&wire) || wire_may_be_authenticated(&wire));
            feed(&wire, '>', dialogue->sent, cut);
            feed(&wire, '>', dialogue->sent + cut, strlen(dialogue->sent) - cut);
            feed(&wire, '<', dialogue->received, strlen(dialogue->received));
            cr_assert_eq(wire_shows_no_auth(&wire), dialogue->no_auth, "no_auth: %s%s",
                         dialogue->sent, dialogue->received);
            cr_assert_eq(wire_may_be_authenticated(&wire), dialogue->maybe, "maybe: %s%s",
                         dialogue->sent, dialogue->received);
        }
    }
}

/* The first good reply decides, and no later one. */
Test(wire, login_is_judged_once)
{
    struct wire wire;

    wire_init(&wire);
    feed(&wire, '>', "set a 0 0 1\r\nb\r\n", 16);
    feed(&wire, '<', "STORED\r\n", 8);
    feed(&wire, '>', "set a 0 0 3\r\nb c\r\nget a\r\n", 25);
    feed(&wire, '<', "STORED\r\nEND\r\n", 13);
    cr_assert_not(wire_may_be_authenticated(&wire));
    cr_assert_not(wire_shows_no_auth(&wire));
    check(&wire, WIRE_CLEAN, REASON_NONE, "login", 0, 0);
}

static struct wire after(const char *sent, size_t n)
{
    struct wire wire = {0};

    wire_init(&wire);
    feed(&wire, '>', sent, n);
    return wire;
}

#define AFTER(sent) after(sent, sizeof(sent) - 1)

Test(wire, protocol)
{
    static const char *const text[] = {"g", "mn\r\n", " ", "\n", "\x16", "\x81"};
    struct wire wire = AFTER("\x80");

    cr_assert_eq(wire_protocol(&wire), WIRE_BINARY);
    for (size_t i = 0; i < sizeof text / sizeof text[0]; i++) {
        wire = after(text[i], strlen(text[i]));
        cr_assert_eq(wire_protocol(&wire), WIRE_TEXT, "first bytes: %s", text[i]);
    }
    wire_init(&wire);
    feed(&wire, '<', "x", 1);
    cr_assert_eq(wire_protocol(&wire), WIRE_UNDECIDED);
}

/* Looks at N bytes, of which only those before LIMIT may be read. */
struct sight {
    const char *bytes;
    size_t limit;
    size_t asked; /* bytes that the tracker asked about */
};

static size_t may_look(void *context, const void *at, size_t n)
{
    struct sight *sight = context;
    size_t offset = (size_t)((const char *)at - sight->bytes);

    if (offset >= sight->limit)
        return 0;
    n = n < sight->limit - offset ? n : sight->limit - offset;
    n = n < 16 ? n : 16;
    sight->asked += n;
    return n;
}

static bool look_at(struct wire *ahead, const struct wire *wire, const char *bytes, size_t n,
                    struct sight *sight)
{
    sight->bytes = bytes;
    sight->asked = 0;
    wire_look_ahead(ahead, wire);
    return wire_look_at(ahead, bytes, n, may_look, sight);
}

#define LOOK(ahead, wire, text, sight) look_at(ahead, wire, text, sizeof(text) - 1, sight)

Test(wire, a_look_is_no_send)
{
    struct wire wire = AFTER("set a 0 0 5\r\nab"), same = wire, ahead;
    struct sight sight = {.limit = SIZE_MAX};

    cr_assert(LOOK(&ahead, &wire, "cde\r\nget b\r\n", &sight));
    cr_assert(memcmp(&wire, &same, sizeof wire) == 0);
    cr_assert_eq(wire_verdict(&wire), WIRE_BUSY);
    wire_commit(&wire, &ahead);
    cr_assert_eq(wire_verdict(&wire), WIRE_REPLY_OWED);
    feed(&wire, '<', "STORED\r\nEND\r\n", 13);
    check(&wire, WIRE_CLEAN, REASON_NONE, "look", 0, 0);
}

/* The tracker does not ask whether a value may be read, unless it may be a login. */
Test(wire, a_look_spares_values)
{
    static char long_set[20000] = "set a 0 0 10000\r\n";
    static const char setq[] = "\x80\x11\0\1\x08\0\0\0\0\0\x20\0\0\0\0\0\0\0\0\0\0\0\0\0";
    struct wire wire = AFTER("get a\r\n"), ahead;
    struct sight sight = {.limit = SIZE_MAX};
    size_t line = strlen(long_set), n = line + 10002;

    memset(long_set + line, 'x', 10000);
    memcpy(long_set + line + 10000, "\r\n", 2);
    cr_assert(look_at(&ahead, &wire, long_set, n, &sight));
    cr_assert_eq(sight.asked, n, "before the first reply it may be a login");
    feed(&wire, '<', "END\r\n", 5);
    cr_assert(look_at(&ahead, &wire, long_set, n, &sight));
    cr_assert_leq(sight.asked, line + 32);
    wire_commit(&wire, &ahead);
    cr_assert_eq(wire_verdict(&wire), WIRE_REPLY_OWED);
    memcpy(long_set, setq, 24);
    wire_init(&wire);
    cr_assert(look_at(&ahead, &wire, long_set, 24 + 0x2000, &sight));
    cr_assert_leq(sight.asked, 32);
    wire_commit(&wire, &ahead);
    cr_assert_eq(wire_verdict(&wire), WIRE_UNCONFIRMED);
}

Test(wire, a_look_ends_where_memory_does)
{
    static const char request[] = "set a 0 0 20\r\n01234567890123456789\r\nget b\r\n";
    struct wire wire = AFTER("get a\r\n"), ahead;

    feed(&wire, '<', "END\r\n", 5);
    for (size_t limit = 0; limit < sizeof request - 1; limit++) {
        struct sight sight = {.limit = limit};

        cr_assert_not(LOOK(&ahead, &wire, request, &sight));
    }
}

/* What the tracker learned between the look and its commit counts as if it had come before. */
Test(wire, replies_between_look_and_commit)
{
    static const char store[] = "set a 0 0 3 noreply\r\nb c\r\n";
    struct wire wire = AFTER("mn\r\n"), ahead;
    struct sight sight = {.limit = SIZE_MAX};

    cr_assert(LOOK(&ahead, &wire, store, &sight));
    feed(&wire, '<', "MN\r\n", 4);
    wire_commit(&wire, &ahead);
    check(&wire, WIRE_UNCONFIRMED, REASON_UNCONFIRMED, "MN", 0, 0);
    cr_assert_not(wire.login.set);
    wire = AFTER("get a\r\n");
    cr_assert(LOOK(&ahead, &wire, "get b\r\n", &sight));
    feed(&wire, '<', "END\r\nEND\r\n", 10);
    wire_commit(&wire, &ahead);
    check(&wire, WIRE_DIRTY, REASON_UNSOLICITED, "too early", 0, 0);
}

/* One look may find more requests than there is room for, by itself or with those already
 * waiting. */
Test(wire, a_look_too_deep)
{
    char requests[WIRE_RUNS * 20] = "";
    struct wire wire, ahead;
    struct sight sight = {.limit = SIZE_MAX};

    for (int i = 0; i < WIRE_RUNS / 2; i++)
        strcat(requests, "get a\r\nversion\r\n");
    wire_init(&wire);
    cr_assert(look_at(&ahead, &wire, requests, strlen(requests), &sight));
    wire_commit(&wire, &ahead);
    check(&wire, WIRE_REPLY_OWED, REASON_REPLY_OWED, "as many as possible", 0, 0);
    cr_assert(LOOK(&ahead, &wire, "version\r\n", &sight));
    wire_commit(&wire, &ahead);
    check(&wire, WIRE_REPLY_OWED, REASON_REPLY_OWED, "one more of the last", 0, 0);
    cr_assert(LOOK(&ahead, &wire, "get a\r\nbogus\r\n", &sight));
    wire_commit(&wire, &ahead);
    check(&wire, WIRE_DIRTY, REASON_TOO_DEEP, "one too many", 0, 0);
    strcat(requests, "get a\r\nbogus\r\n");
    wire_init(&wire);
    cr_assert(look_at(&ahead, &wire, requests, strlen(requests), &sight));
    wire_commit(&wire, &ahead);
    check(&wire, WIRE_DIRTY, REASON_TOO_DEEP, "one too many at once", 0, 0);
}

/* The fast path for the commonest requests takes these and no others. */
Test(wire, whole_requests)
{
    static const char *const befores[] = {"",
                                          "get a\r\n",
                                          "version\r\n",
                                          "get",
                                          "get a\r",
                                          "set a 0 0 9\r\n",
                                          "set a 0 0 3\r\nb c\r\n",
                                          "bogus\r\n",
                                          "delete a noreply\r\n",
                                          "\x80"};
    static const struct {
        const char *bytes;
        unsigned gets;
    } cases[] = {{"get ab\r\n", 1},
                 {"get " KEY_250 "\r\n", 1},
                 {"get " KEY_251 "\r\n", 0},
                 {"get ab " KEY_250 "\r\n", 1},
                 {"get ab " KEY_251 "\r\n", 0},
                 {"get a b\r\n", 1},
                 {"gets a\r\n", 1},
                 {"get ab\r\ngets b\r\n", 2},
                 {"get ab\r\nversion\r\n", 0},
                 {"get ab\r\nget b", 0},
                 {"get ab\r\nget b\r", 0},
                 {"get ab ", 0},
                 {"get  ab\r\n", 0},
                 {"get a  b\r\n", 0},
                 {"get ab \r\n", 0},
                 {"get \r\n", 0},
                 {"getab a\r\n", 0},
                 {"get ab\n", 0},
                 {"get ab\t\r\n", 0},
                 {"get ab\x7f\r\n", 0},
                 {"get ab\r", 0},
                 {"get ab\rx", 0},
                 {"set ab 0 0 1\r\nx\r\n", 0},
                 {"", 0}};

    for (size_t before = 0; before < sizeof befores / sizeof befores[0]; before++) {
        struct wire wire = after(befores[before], strlen(befores[before]));
        bool ready =
            wire_verdict(&wire) != WIRE_BUSY && wire_protocol(&wire) != WIRE_BINARY &&
            (wire_verdict(&wire) != WIRE_DIRTY || wire_refusal(&wire) == REASON_UNUSED);

        for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
            const char *bytes = cases[i].bytes;
            struct wire_run run = {.count = 0};
            bool whole = wire_are_whole(&wire, bytes, strlen(bytes), &run);
            struct wire quick = wire, slow = wire;

            cr_assert_eq(whole ? run.count : 0, ready ? cases[i].gets : 0, "'%s' '%s'",
                         befores[before], bytes);
            if (!whole)
                continue;
            wire_sent_whole(&quick, run);
            feed_bytes(&slow, '>', bytes, strlen(bytes));
            cr_assert(same_state(quick, slow), "'%s' '%s'", befores[before], bytes);
        }
    }
}

/* A `set` may be a login until the first reply has come. */
Test(wire, whole_stores)
{
    struct wire wire = after("get a\r\n", 7);
    const char *stores = "set ab 0 0 1\r\nx\r\nset b 12 34 10\r\n0123456789\r\n";
    static const char *const others[] = {
        "set ab 0 0 1 noreply\r\nx\r\n",   "set ab 0 0 1\r\nxy\r\n",
        "set ab 0 0 2\r\nx\r\n",           "set ab 0 0\r\nx\r\n",
        "set ab 0 -1 1\r\nx\r\n",          "set ab  0 0 1\r\nx\r\n",
        "set ab 0 0 1\r\nx\r\nget ab\r\n", "set ab 0 0 0000000001\r\nx\r\n"};
    struct wire_run run;
    struct wire slow;

    cr_assert_not(wire_are_whole(&wire, stores, strlen(stores), &run));
    feed(&wire, '<', "END\r\n", 5);
    cr_assert(wire_are_whole(&wire, stores, strlen(stores), &run));
    cr_assert_eq(run.count, 2);
    slow = wire;
    wire_sent_whole(&wire, run);
    feed_bytes(&slow, '>', stores, strlen(stores));
    cr_assert(same_state(wire, slow));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        cr_expect_not(wire_are_whole(&wire, others[i], strlen(others[i]), &run), "%s",
                      others[i]);
}

/* Requests and their replies, of forms that the fast paths take and of others. */
static const struct {
    const char *request, *reply;
} exchanges[] = {
    {"get ab\r\n", "END\r\n"},
    {"get ab\r\n", "VALUE ab 0 2\r\nxy\r\nEND\r\n"},
    {"get abcdefgh b\r\n", "VALUE abcdefgh 16 10\r\n0123456789\r\nVALUE b 1 0\r\n\r\nEND\r\n"},
    {"gets abcdefg\r\n", "VALUE abcdefg 123456789 2 77\r\nEN\r\nEND\r\n"},
    {"get k\r\n", "VALUE k 0 0000000005\r\nvalue\r\nEND\r\n"},
    {"set k 0 0 2\r\nab\r\n", "STORED\r\n"},
    {"set abcdefgh 123456789 1 10\r\n0123456789\r\n", "STORED\r\n"},
    {"set k 0 -1 0\r\n\r\n", "NOT_STORED\r\n"},
    {"set k 0 0 2 noreply\r\nab\r\n", ""},
    {"version\r\n", "VERSION 1\r\n"},
    {"delete k\r\n", "DELETED\r\n"},
    {"mg ab v\r\n", "VA 2\r\nab\r\n"},
    {"mg ab v\r\n", "EN\r\n"},
    {"mg ab\r\n", "HD\r\n"},
    {"mg abcdefgh v t f Oab\r\n", "VA 10 t-1 f0 Oab\r\n0123456789\r\n"},
    {"mg ab k q\r\n", "HD kab\r\n"},
    {"mg ab v v\r\n", ""},
    {"mg ab k Oab\r\n", "HD kab Oab\r\n"},
    {"ms ab 2 T0\r\nxy\r\n", "HD\r\n"},
    {"ms ab 2\r\nxy\r\n", "NS\r\n"},
    {"ms ab 2\r\nxy\r\n", "VA 2\r\nab\r\n"},
    {"ms ab 2\r\nxy\r\n", "EN\r\n"},
    {"ms ab 2 q\r\nxy\r\n", ""},
};

/* What is on its way in one direction. */
struct stream {
    char text[1024];
    size_t n;
};

static void append(struct stream *stream, const char *text)
{
    memcpy(stream->text + stream->n, text, strlen(text));
    stream->n += strlen(text);
}

static void change_a_byte(struct stream *stream, unsigned *state)
{
    if (stream->n > 0)
        stream->text[(size_t)rand_r(state) % stream->n] = "\r\n 0x\x7f\xff"[rand_r(state) % 7];
}

/* Feeds the first N bytes, which leave the stream, at once and one by one. */
static void deliver(struct wire *whole, struct wire *bytes, char direction,
                    struct stream *stream, size_t n)
{
    feed(whole, direction, stream->text, n);
    feed_bytes(bytes, direction, stream->text, n);
    cr_assert_eq(wire_refusal(whole), wire_refusal(bytes), "'%.*s'", (int)n, stream->text);
    cr_assert(whole->poison || same_state(*whole, *bytes), "'%.*s'", (int)n, stream->text);
    memmove(stream->text, stream->text + n, stream->n - n);
    stream->n -= n;
}

/* Some requests are sent at once, and some bytes of the replies received, again and again. */
Test(wire, fast_paths_leave_no_trace)
{
    unsigned state = seed_of_test(), clean = 0;

    for (unsigned round = 0; round < FAST_ROUNDS; round++) {
        struct wire whole = {0}, bytes = {0};
        struct stream sent = {.n = 0}, received = {.n = 0};

        wire_init(&whole);
        wire_init(&bytes);
        for (unsigned step = 0; step < 4; step++) {
            for (int i = rand_r(&state) % 4; i >= 0; i--) {
                size_t which = (size_t)rand_r(&state) % (sizeof exchanges / sizeof *exchanges);

                append(&sent, exchanges[which].request);
                append(&received, exchanges[which].reply);
            }
            if (rand_r(&state) % 16 == 0)
                change_a_byte(rand_r(&state) % 2 ? &sent : &received, &state);
            deliver(&whole, &bytes, '>', &sent, sent.n);
            if (received.n > 0)
                deliver(&whole, &bytes, '<', &received,
                        rand_r(&state) % 2 ? (size_t)rand_r(&state) % received.n : received.n);
        }
        clean += !whole.poison;
    }
    cr_expect_gt(clean, FAST_ROUNDS / 5, "%u", clean);
}

static const char quit_packet[24] = {'\x80', '\x07', [12] = 'o', 'p', 'a', 'q'};
static const char binary_quitq[24] = {'\x80', '\x17'};

Test(wire, quits_of_text)
{
    static const struct {
        const char *before;
        const char *bytes;
        bool quit;
    } cases[] = {
        {"get a\r\n", "quit\r\n", true},
        {"get a\r\n", "get b\r\nquit\r\n", false},
        {"get a\r\n", "set a 0 0 1 noreply\r\nx\r\nquit\r\n", false},
        {"get a\r\n", "quit\n", false},
        {"get a\r\n", "xquit\r\n", false},
        {"get a\r\n", " quit\r\n", false},
        {"get a\r\n", "quit\r\nget a\r\n", false},
        {"get a\r\n", "uit\r\n", false},
        {"\x80", "quit\r\n", false},
        {"", "quit\r\n", false},
        {"get a\r\n", "", false},
    };

    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct wire wire = after(cases[i].before, strlen(cases[i].before));

        cr_expect_eq(wire_quit(&wire, cases[i].bytes, strlen(cases[i].bytes)), cases[i].quit,
                     "'%s' '%s'", cases[i].before, cases[i].bytes);
    }
}

Test(wire, quits_of_binary)
{
    static const char noop[24] = {'\x80', '\x0a'};
    struct wire wire = after(noop, sizeof noop);
    char both[48], odd[24];
    uint8_t answer[WIRE_QUIT_ANSWER];

    cr_expect(wire_quit(&wire, quit_packet, 24));
    cr_expect(wire_quit(&wire, binary_quitq, 24));
    cr_expect_not(wire_quit(&wire, quit_packet, 23));
    cr_expect_not(wire_quit(&wire, noop, 24));
    cr_expect_not(wire_quit(&wire, "quit\r\n", 6));
    memcpy(both, noop, 24);
    memcpy(both + 24, binary_quitq, 24);
    cr_expect_not(wire_quit(&wire, both, 48));
    for (int i = 2; i < 12; i++) {
        memcpy(odd, quit_packet, 24);
        odd[i] = 1;
        cr_expect_not(wire_quit(&wire, odd, 24), "byte %d", i);
    }
    cr_expect(wire_quit_answer(&wire, quit_packet, answer));
    cr_expect(answer[0] == 0x81 && answer[1] == 0x07 && memcmp(answer + 12, "opaq", 4) == 0);
    cr_expect_not(wire_quit_answer(&wire, binary_quitq, answer));
    wire = AFTER("get a\r\n");
    cr_expect_not(wire_quit(&wire, quit_packet, 24));
    cr_expect_not(wire_quit_answer(&wire, "quit\r\n", answer));
}

/* Sends the fence of WIRE and answers it with ANSWER. */
static enum wire_verdict fenced(struct wire *wire, bool mn, const char *answer)
{
    uint8_t fence[WIRE_FENCE_MAX];

    feed(wire, '>', (char *)fence, wire_fence(wire, mn, 7, fence));
    feed(wire, '<', answer, strlen(answer));
    return wire_verdict(wire);
}

Test(wire, fences_of_text)
{
    static const char store[] = "set a 0 0 1 noreply\r\nx\r\n";
    static const char removal[] = "delete a noreply\r\n";
    struct wire wire;

    wire = after(store, strlen(store));
    cr_expect(fenced(&wire, true, "MN\r\n") == WIRE_CLEAN);
    wire = after(store, strlen(store));
    cr_expect(fenced(&wire, false, "VERSION 1.6.18\r\n") == WIRE_UNPROVEN);
    wire = after(removal, strlen(removal));
    cr_expect(fenced(&wire, false, "VERSION 1.6.18\r\n") == WIRE_CLEAN);
    wire = after(removal, strlen(removal));
    cr_expect(fenced(&wire, true, "EN\r\n") == WIRE_DIRTY);
    wire = after(removal, strlen(removal));
    cr_expect(fenced(&wire, true, "ERROR\r\n") == WIRE_DIRTY);
    wire = after(removal, strlen(removal));
    cr_expect(fenced(&wire, true, "MN\r\nMN\r\n") == WIRE_DIRTY);
}

/* Only the exact opaque that was sent proves anything. */
Test(wire, fences_of_binary)
{
    static const char deleteq[25] = {'\x80', '\x14', 0, 1, [11] = 1, [24] = 'k'};

    for (int byte = -1; byte < 4; byte++) {
        struct wire wire = after(deleteq, sizeof deleteq);
        uint8_t fence[WIRE_FENCE_MAX];

        cr_assert(wire_verdict(&wire) == WIRE_UNCONFIRMED);
        cr_assert(wire_fence(&wire, true, 0x12345678, fence) == sizeof fence);
        feed(&wire, '>', (char *)fence, sizeof fence);
        cr_assert(wire_verdict(&wire) == WIRE_REPLY_OWED);
        fence[0] = 0x81;
        if (byte >= 0)
            fence[12 + byte] ^= 1;
        feed(&wire, '<', (char *)fence, sizeof fence);
        cr_expect(wire_verdict(&wire) == (byte < 0 ? WIRE_CLEAN : WIRE_DIRTY), "byte %d", byte);
    }
}

/* The program's own NOOPs may have any opaque. */
Test(wire, nonce_of_a_fence_is_used_once)
{
    static const char deleteq[25] = {'\x80', '\x14', 0, 1, [11] = 1, [24] = 'k'};
    static const char noop[24] = {'\x80', '\x0a', [15] = 9};
    char answer[24];
    struct wire wire = after(deleteq, sizeof deleteq);
    uint8_t fence[WIRE_FENCE_MAX];

    feed(&wire, '>', (char *)fence, wire_fence(&wire, true, 1, fence));
    fence[0] = 0x81;
    feed(&wire, '<', (char *)fence, sizeof fence);
    feed(&wire, '>', noop, sizeof noop);
    memcpy(answer, noop, sizeof noop);
    answer[0] = '\x81';
    feed(&wire, '<', answer, sizeof answer);
    cr_expect(wire_verdict(&wire) == WIRE_CLEAN);
}

/* Four thousand million pipelined requests, of which all but one are simulated. */
Test(wire, counts_do_not_wrap)
{
    struct wire wire = AFTER("get a\r\n");

    wire.queue.runs[0].count = UINT32_MAX;
    feed(&wire, '>', "get a\r\n", 7);
    cr_assert_eq(wire.queue.used, 2);
    cr_assert_eq(wire.queue.runs[0].count, UINT32_MAX);
    cr_assert_eq(wire.queue.runs[1].count, 1);
}
