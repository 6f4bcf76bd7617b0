/*
 * The fast paths of the text protocol: whole requests and replies of the commonest forms, each
 * in one pass over its bytes, where they are. What is accepted here is accepted by
 * text_request.c and text_reply.c too, and leaves the same state. In every doubt the bytes are
 * left to them.
 */
#include "wire/internal.h"

#include "wire/eight.h"
#include "wire/number.h"

/* Meta flags of so many bytes fit every line. */
#define SHORT_LINE 512

static inline uint64_t mark_end(uint64_t eight)
{
    return eight_mark(eight) & EIGHT_MARKS;
}

/* Where the word at AT ends; END if it does not. AT is before END, and the eight bytes before
 * END are readable. */
static inline const uint8_t *behind_word(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *last = end - sizeof(uint64_t);
    uint64_t mark;

    for (; at <= last; at += sizeof(uint64_t)) {
        mark = mark_end(eight_at(at));
        if (mark != 0)
            return at + (__builtin_ctzll(mark) >> 3);
    }
    if (at == end)
        return end;
    mark = mark_end(eight_at(last) >> ((unsigned)(at - last) * 8));
    return at + (__builtin_ctzll(mark) >> 3);
}

/* Moves *AT behind a key and the byte that follows it, which is returned. 0 if there is no key,
 * or no byte after that. */
static inline uint8_t pass_key(const uint8_t **at, const uint8_t *end)
{
    const uint8_t *behind = behind_word(*at, end);
    size_t length = (size_t)(behind - *at);

    if (behind + 1 >= end || length - 1 >= WIRE_KEY_MAX)
        return 0;
    *at = behind + 1;
    return *behind;
}

/* The compiler says how many copies of these there are. */
static inline bool pass_number(const uint8_t **at, const uint8_t *end, uint32_t *number)
{
    return number_pass(at, end, number);
}

static inline bool pass_flags(const uint8_t **at, const uint8_t *end)
{
    return number_pass_flags(at, end);
}

/* Behind the end of a line, which is at AT, a value of LENGTH bytes and its CR LF; else NULL.
 */
static inline const uint8_t *behind_data(const uint8_t *at, const uint8_t *end, uint32_t length)
{
    const size_t ends = 2 * sizeof(uint16_t);

    if ((size_t)(end - at) < length + ends || memcmp(at, "\r\n", 2) != 0 ||
        memcmp(at + 2 + length, "\r\n", 2) != 0)
        return NULL;
    return at + length + ends;
}

/* Behind TEXT, if it is at AT; else NULL. */
#define BEHIND(text, at, end)                                                                  \
    ((size_t)((end) - (at)) >= sizeof(text) - 1 && memcmp(at, text, sizeof(text) - 1) == 0     \
         ? (at) + (sizeof(text) - 1)                                                           \
         : NULL)

/* Behind one or more words and the end of their line; NULL if that is not there. */
static inline const uint8_t *behind_words(const uint8_t *at, const uint8_t *end)
{
    uint8_t next;

    do
        next = pass_key(&at, end);
    while (next == ' ');
    return next == '\r' ? BEHIND("\n", at, end) : NULL;
}

static inline const uint8_t *behind_get(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *keys = BEHIND("get ", at, end);

    if (!keys)
        keys = BEHIND("gets ", at, end);
    return keys ? behind_words(keys, end) : NULL;
}

static inline const uint8_t *behind_set(const uint8_t *at, const uint8_t *end)
{
    uint32_t length;

    at = BEHIND("set ", at, end);
    if (at && pass_key(&at, end) == ' ' && pass_flags(&at, end) && pass_flags(&at, end) &&
        pass_number(&at, end, &length))
        return behind_data(at, end, length);
    return NULL;
}

/* Moves *AT behind a blank and any number of flags, to the end of the line. False when it is
 * not there, when the line is long, and for the flag q in a request: which replies such a
 * request can have differs. IS_REQUEST: flags must be letters, each once. */
static inline bool pass_meta_flags(const uint8_t **at, const uint8_t *end, bool is_request)
{
    struct wire_text_request request = {0};
    const uint8_t *line = *at, *flag;

    while (*at < end && **at == ' ') {
        flag = ++*at;
        if (pass_key(at, end) == 0)
            return false;
        --*at;
        if (is_request &&
            !meta_add_flag(&request, (struct word){(const char *)flag, (size_t)(*at - flag)}))
            return false;
    }
    return !request.quiet && *at - line < SHORT_LINE;
}

/* Behind a `mg`. */
static inline const uint8_t *behind_meta_get(const uint8_t *at, const uint8_t *end)
{
    at = BEHIND("mg ", at, end);
    if (!at || pass_key(&at, end) == 0)
        return NULL;
    at--;
    return pass_meta_flags(&at, end, true) ? BEHIND("\r\n", at, end) : NULL;
}

/* Behind a `ms` and its value. */
static inline const uint8_t *behind_meta_set(const uint8_t *at, const uint8_t *end)
{
    uint32_t length;

    at = BEHIND("ms ", at, end);
    if (at && pass_key(&at, end) == ' ' && pass_number(&at, end, &length) &&
        pass_meta_flags(&at, end, true))
        return behind_data(at, end, length);
    return NULL;
}

/* behind_requests() for requests that are no `get`. The value of a `set` may be a login until
 * the first reply was judged. */
static __attribute__((noinline)) const uint8_t *behind_others(const struct wire *wire,
                                                              const uint8_t *at,
                                                              const uint8_t *end,
                                                              struct wire_run *run)
{
    bool may_store = WIRE_GET(wire->login.judged);
    const uint8_t *behind;

    for (; may_store && (behind = behind_set(at, end)); run->count++)
        at = behind;
    run->class = CLASS_STORE;
    if (run->count > 0)
        return at;
    for (; (behind = behind_meta_get(at, end)); run->count++)
        at = behind;
    run->class = CLASS_MG;
    if (run->count > 0)
        return at;
    for (; (behind = behind_meta_set(at, end)); run->count++)
        at = behind;
    run->class = CLASS_MS;
    return at;
}

/* Behind as many whole requests as can be read, all of one class, which is noted in RUN. */
ALWAYS_INLINE const uint8_t *behind_requests(const struct wire *wire, const uint8_t *at,
                                             const uint8_t *end, struct wire_run *run)
{
    const uint8_t *behind;
    uint32_t count = 0;

    if ((size_t)(end - at) < sizeof(uint64_t))
        return at;
    for (; (behind = behind_get(at, end)); count++)
        at = behind;
    *run = (struct wire_run){CLASS_GET, false, count};
    if (count > 0)
        return at;
    return behind_others(wire, at, end, run);
}

bool text_are_whole(const struct wire *wire, const uint8_t *bytes, size_t n,
                    struct wire_run *run)
{
    const uint8_t *end = bytes + n;

    return n > 0 && !text_inside_request(wire) && behind_requests(wire, bytes, end, run) == end;
}

const uint8_t *text_sent_quickly(struct wire *wire, const uint8_t *at, const uint8_t *end)
{
    struct wire_run run;
    const uint8_t *behind = behind_requests(wire, at, end, &run);

    if (behind > at)
        text_sent_whole(wire, run);
    return behind;
}

static inline const uint8_t *behind_value(const uint8_t *at, const uint8_t *end)
{
    uint32_t length;

    if ((size_t)(end - at) < sizeof "VALUE" + sizeof(uint64_t) ||
        memcmp(at, "VALUE ", sizeof "VALUE") != 0)
        return NULL;
    at += sizeof "VALUE";
    if (pass_key(&at, end) == ' ' && pass_flags(&at, end) && pass_number(&at, end, &length))
        return behind_data(at, end, length);
    return NULL;
}

/* The oldest request was answered. */
static inline void answered(struct wire *wire, bool stored)
{
    queue_pop(&wire->queue);
    wire_answered(wire);
    auth_answered(&wire->login, stored);
    wire->reply.text.continued = false;
}

/* Reads lines and values of the reply to a `get`, as many as are whole. */
static inline const uint8_t *read_values(struct wire *wire, const uint8_t *at,
                                         const uint8_t *end)
{
    const uint8_t *behind;

    while (!(behind = BEHIND("END\r\n", at, end))) {
        behind = behind_value(at, end);
        if (!behind)
            return at;
        wire->reply.text.continued = true;
        at = behind;
    }
    answered(wire, false);
    return behind;
}

static inline const uint8_t *read_stored(struct wire *wire, const uint8_t *at,
                                         const uint8_t *end)
{
    const uint8_t *behind = BEHIND("STORED\r\n", at, end);

    if (!behind)
        return at;
    answered(wire, true);
    return behind;
}

/* Behind a reply to a `mg`, or to a `ms` if STORE. */
static inline const uint8_t *behind_meta(const uint8_t *at, const uint8_t *end, bool store)
{
    const uint8_t *behind = BEHIND("HD\r\n", at, end);
    uint32_t length;

    if (!behind && !store)
        behind = BEHIND("EN\r\n", at, end);
    if (behind || (size_t)(end - at) < sizeof(uint64_t))
        return behind;
    if ((behind = BEHIND("HD", at, end)))
        return pass_meta_flags(&behind, end, false) ? BEHIND("\r\n", behind, end) : NULL;
    behind = BEHIND("VA ", at, end);
    if (behind && !store && pass_number(&behind, end, &length) &&
        pass_meta_flags(&behind, end, false))
        return behind_data(behind, end, length);
    return NULL;
}

static inline const uint8_t *read_meta(struct wire *wire, const uint8_t *at, const uint8_t *end,
                                       bool store)
{
    const uint8_t *behind = behind_meta(at, end, store);

    if (!behind)
        return at;
    answered(wire, false);
    return behind;
}

/* Behind the values and the END of the reply to a `get`. */
static inline const uint8_t *behind_values(const uint8_t *at, const uint8_t *end)
{
    const uint8_t *behind;

    while (!(behind = BEHIND("END\r\n", at, end))) {
        at = behind_value(at, end);
        if (!at)
            return NULL;
    }
    return behind;
}

bool text_is_reply(enum text_class class, const uint8_t *at, const uint8_t *end)
{
    switch (class) {
    case CLASS_GET:
        return behind_values(at, end) == end;
    case CLASS_STORE:
        return BEHIND("STORED\r\n", at, end) == end;
    default:
        return behind_meta(at, end, class == CLASS_MS) == end;
    }
}

/* Reads whole replies, as many as it can. AT is at the beginning of a line. */
static const uint8_t *read_replies(struct wire *wire, const uint8_t *at, const uint8_t *end)
{
    const uint8_t *before;

    do {
        const struct wire_run *run = queue_at(&wire->queue, 0);

        before = at;
        if (run && run->class == CLASS_GET)
            at = read_values(wire, at, end);
        else if (run && run->class == CLASS_STORE)
            at = read_stored(wire, at, end);
        else if (run && run->class == CLASS_MG && !run->quiet)
            at = read_meta(wire, at, end, false);
        else if (run && run->class == CLASS_MS && !run->quiet)
            at = read_meta(wire, at, end, true);
    } while (at != before && at < end);
    return at;
}

static __attribute__((noinline)) void read_all(struct wire *wire, const uint8_t *at,
                                               const uint8_t *end)
{
    while (at < end && !wire->poison) {
        if (text_at_line(wire))
            at = read_replies(wire, at, end);
        if (at < end)
            at = text_read_reply(wire, at, end);
    }
}

/* Most often the bytes are one reply to a `get`: then nothing is called, so no registers are
 * saved. */
void text_received(struct wire *wire, const uint8_t *at, const uint8_t *end)
{
    const struct wire_run *run = queue_at(&wire->queue, 0);

    if (!wire->poison && text_at_line(wire) && run && run->class == CLASS_GET)
        at = read_values(wire, at, end);
    if (at < end)
        read_all(wire, at, end);
}
