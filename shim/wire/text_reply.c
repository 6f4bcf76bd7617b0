/*
 * The parser of text replies: where each reply ends, and whether the oldest request can have
 * it. The first word of a line decides. Only VALUE and STAT lines are followed by more lines of
 * the same reply, and only VALUE and VA lines by data.
 */
#include "wire/internal.h"

#define LINE_LIMIT 4096

enum state { IN_LINE, AT_LF, IN_DATA, AT_DATA_CR, AT_DATA_LF };

enum form {
    FORM_ALONE, /* the line has no other word */
    FORM_REST,  /* at least one word, of any form */
    FORM_VALUE, /* key, flags, length, and perhaps cas */
    FORM_FLAGS, /* any number of meta flags */
    FORM_VA,    /* length and any number of meta flags */
};

/* A first word, and what may follow it. */
struct head {
    struct word name;
    unsigned kind;
    enum form form;
};

enum { HEAD_UNKNOWN, HEAD_NUMBER, HEAD_NAMED, HEAD_END = HEAD_NAMED };

static const struct head heads[] = {
    [HEAD_UNKNOWN] = {WORD(""), 0, FORM_REST},
    [HEAD_NUMBER] = {WORD(""), KIND_NUMBER, FORM_ALONE},
    [HEAD_END] = {WORD("END"), KIND_END, FORM_ALONE},
    {WORD("VALUE"), KIND_VALUE, FORM_VALUE},
    {WORD("STORED"), KIND_STORED, FORM_ALONE},
    {WORD("NOT_STORED"), KIND_NOT_STORED, FORM_ALONE},
    {WORD("EXISTS"), KIND_EXISTS, FORM_ALONE},
    {WORD("NOT_FOUND"), KIND_NOT_FOUND, FORM_ALONE},
    {WORD("TOUCHED"), KIND_TOUCHED, FORM_ALONE},
    {WORD("DELETED"), KIND_DELETED, FORM_ALONE},
    {WORD("OK"), KIND_OK, FORM_ALONE},
    {WORD("VERSION"), KIND_VERSION, FORM_REST},
    {WORD("STAT"), KIND_STAT, FORM_REST},
    {WORD("MN"), KIND_MN, FORM_ALONE},
    {WORD("HD"), KIND_HD, FORM_FLAGS},
    {WORD("VA"), KIND_VA, FORM_VA},
    {WORD("EN"), KIND_EN, FORM_FLAGS},
    {WORD("NF"), KIND_NF, FORM_FLAGS},
    {WORD("NS"), KIND_NS, FORM_FLAGS},
    {WORD("EX"), KIND_EX, FORM_FLAGS},
};

/* The kinds of replies that each class of classic requests can have. */
static const unsigned classic_answers[TEXT_CLASSES] = {
    [CLASS_GET] = KIND_VALUE | KIND_END,
    [CLASS_STORE] = KIND_STORED | KIND_NOT_STORED | KIND_EXISTS | KIND_NOT_FOUND,
    [CLASS_ARITH] = KIND_NUMBER | KIND_NOT_FOUND,
    [CLASS_TOUCH] = KIND_TOUCHED | KIND_NOT_FOUND,
    [CLASS_DELETE] = KIND_DELETED | KIND_NOT_FOUND,
    [CLASS_FLUSH] = KIND_OK,
    [CLASS_VERSION] = KIND_VERSION,
    [CLASS_STATS] = KIND_STAT | KIND_END,
    [CLASS_MN] = KIND_MN,
};

/* The errors after which all servers tried go on in step, and the class of requests that can
 * have them. */
static const struct {
    const char *line;
    enum text_class class;
} soft_errors[] = {
    {"CLIENT_ERROR cannot increment or decrement non-numeric value", CLASS_ARITH},
    {"CLIENT_ERROR cannot increment or decrement non-numeric value", CLASS_MA},
    {"SERVER_ERROR object too large for cache", CLASS_STORE},
    {"SERVER_ERROR out of memory storing object", CLASS_STORE},
};

static const char *const auth_errors[] = {
    "CLIENT_ERROR unauthenticated",
    "CLIENT_ERROR authentication failure",
    "CLIENT_ERROR bad authentication token format",
    "CLIENT_ERROR auth token too long",
};

static bool begins_with(const struct wire_text_reply *reply, const char *text)
{
    size_t length = strlen(text);

    return reply->line >= length && memcmp(reply->text, text, length) == 0;
}

static bool is_error(const struct wire_text_reply *reply)
{
    return reply->head == HEAD_UNKNOWN &&
           (begins_with(reply, "ERROR") || begins_with(reply, "CLIENT_ERROR") ||
            begins_with(reply, "SERVER_ERROR"));
}

static bool is_auth_error(const struct wire_text_reply *reply)
{
    for (size_t i = 0; i < sizeof auth_errors / sizeof auth_errors[0]; i++) {
        if (begins_with(reply, auth_errors[i]))
            return true;
    }
    return false;
}

/* Whether the stream stays in step after the error. Not behind a quiet request: the error may
 * be the reply to that one. */
static bool is_soft_error(struct wire *wire)
{
    const struct wire_text_reply *reply = &wire->reply.text;
    const struct wire_run *run = queue_at(&wire->queue, 0);

    if (wire->unfenced || wire->need_mn & WIRE_NEED_QUIET)
        return false;
    for (size_t i = 0; i < sizeof soft_errors / sizeof soft_errors[0]; i++) {
        if (run->class == soft_errors[i].class && reply->line == strlen(soft_errors[i].line) &&
            begins_with(reply, soft_errors[i].line))
            return true;
    }
    return false;
}

static uint8_t find_head(struct word word)
{
    uint64_t number;

    for (size_t i = HEAD_NAMED; i < sizeof heads / sizeof heads[0]; i++) {
        if (word_is(word, heads[i].name))
            return (uint8_t)i;
    }
    return word_number(word, UINT64_MAX, &number) ? HEAD_NUMBER : HEAD_UNKNOWN;
}

static bool parse_length(struct wire_text_reply *reply, struct word word)
{
    uint64_t number;

    if (!word_number(word, WIRE_VALUE_MAX, &number))
        return false;
    reply->data = (uint32_t)number;
    return true;
}

static bool parse_value_arg(struct wire_text_reply *reply, struct word word)
{
    uint64_t number;

    switch (reply->tokens) {
    case 1:
        return word.length <= WIRE_KEY_MAX;
    case 2:
        return word_number(word, UINT32_MAX, &number);
    case 3:
        return parse_length(reply, word);
    case 4:
        return word_number(word, UINT64_MAX, &number);
    default:
        return false;
    }
}

static bool parse_arg(struct wire_text_reply *reply, struct word word)
{
    switch (heads[reply->head].form) {
    case FORM_VALUE:
        return parse_value_arg(reply, word);
    case FORM_VA:
        return reply->tokens > 1 || parse_length(reply, word);
    default:
        return true;
    }
}

static void end_word(struct wire_text_reply *reply, const uint8_t *bytes, size_t n)
{
    struct word word = word_end(&reply->token, bytes, n);

    if (word.length == 0)
        reply->malformed = true;
    else if (reply->tokens == 0)
        reply->head = find_head(word);
    else if (!parse_arg(reply, word))
        reply->malformed = true;
    if (reply->tokens < UINT8_MAX)
        reply->tokens++;
}

static bool well_formed(const struct wire_text_reply *reply)
{
    switch (heads[reply->head].form) {
    case FORM_ALONE:
        return reply->tokens == 1;
    case FORM_REST:
        return reply->tokens > 1;
    case FORM_VALUE:
        return !reply->malformed && reply->tokens >= 4;
    case FORM_FLAGS:
        return !reply->malformed;
    case FORM_VA:
        return !reply->malformed && reply->tokens > 1;
    }
    return false;
}

static void end_demanded(struct wire *wire, bool error)
{
    unsigned kind = heads[wire->reply.text.head].kind;

    wire_answered(wire);
    if (kind == KIND_MN) {
        wire->known16 = true;
        wire->need_mn = 0;
    }
    if (!error)
        auth_answered(&wire->login, kind == KIND_STORED);
}

/* CONTINUED: the next line belongs to the same reply. The text needs no clearing: `line` says
 * how much of it is valid. */
static void next_line(struct wire_text_reply *reply, bool continued)
{
    memset(reply, 0, offsetof(struct wire_text_reply, text));
    reply->continued = continued;
}

static void end_reply(struct wire *wire, bool error)
{
    bool quiet = queue_at(&wire->queue, 0)->quiet;

    queue_pop(&wire->queue);
    if (!quiet)
        end_demanded(wire, error);
    next_line(&wire->reply.text, false);
}

static bool can_answer(const struct wire_run *run, unsigned kind)
{
    if (run->class >= CLASS_MG)
        return meta_answers((enum text_class)run->class, run->quiet) & kind;
    return classic_answers[run->class] & kind;
}

/* The oldest request is quiet and can have this reply. Whether a later request can have it too:
 * then it is not known which of them was answered, nor what is still to come. */
static bool is_ambiguous(struct wire *wire, unsigned kind)
{
    const struct wire_run *run;

    for (unsigned i = 1; (run = queue_at(&wire->queue, i)); i++) {
        if (can_answer(run, kind))
            return true;
        if (!run->quiet)
            return false;
    }
    return false;
}

/* Whether the oldest request can have this reply. Quiet requests before that one got no reply,
 * and are dropped from the queue. */
static bool is_expected(struct wire *wire, unsigned kind)
{
    const struct wire_run *run;

    while ((run = queue_at(&wire->queue, 0)) && run->quiet && !can_answer(run, kind))
        queue_drop(&wire->queue);
    return run && can_answer(run, kind) && !(run->quiet && is_ambiguous(wire, kind));
}

/* memcached reads the value of a store that it refuses, and drops it. A server that only
 * resembles memcached may take the value for commands, and answer each of them. */
static void end_soft_error(struct wire *wire)
{
    bool store = queue_at(&wire->queue, 0)->class == CLASS_STORE;

    end_reply(wire, true);
    if (store)
        wire->need_mn |= WIRE_NEED_VALUE;
}

static void end_error(struct wire *wire)
{
    if (is_auth_error(&wire->reply.text))
        wire_poison(wire, REASON_AUTH);
    else if (begins_with(&wire->reply.text, WIRE_SERVER_FULL))
        wire_poison(wire, REASON_SERVER_FULL);
    else if (is_soft_error(wire))
        end_soft_error(wire);
    else
        wire_poison(wire, REASON_ERROR_REPLY);
}

static void end_line(struct wire *wire)
{
    struct wire_text_reply *reply = &wire->reply.text;
    unsigned kind = heads[reply->head].kind;

    if (is_error(reply))
        end_error(wire);
    else if (!well_formed(reply) || !is_expected(wire, kind))
        wire_poison(wire, REASON_UNEXPECTED_REPLY);
    else if (kind == KIND_VALUE || kind == KIND_VA)
        reply->state = reply->data > 0 ? IN_DATA : AT_DATA_CR;
    else if (kind == KIND_STAT)
        next_line(reply, true);
    else
        end_reply(wire, false);
}

static void end_data(struct wire *wire)
{
    if (heads[wire->reply.text.head].kind == KIND_VALUE)
        next_line(&wire->reply.text, true);
    else
        end_reply(wire, false);
}

static void count_line(struct wire *wire, const uint8_t *bytes, size_t n)
{
    struct wire_text_reply *reply = &wire->reply.text;

    /* The text is kept only of lines that may be errors. */
    if (reply->head == HEAD_UNKNOWN && reply->line < sizeof reply->text) {
        size_t room = sizeof reply->text - reply->line;

        memcpy(reply->text + reply->line, bytes, n < room ? n : room);
    }
    if (n > (size_t)(LINE_LIMIT - reply->line))
        wire_poison(wire, REASON_UNEXPECTED_REPLY);
    else
        reply->line = (uint16_t)(reply->line + n);
}

/* A byte of a word in a reply, in which servers send control characters too. Almost all bytes
 * need only the first comparison. */
static bool is_reply_char(uint8_t byte)
{
    return byte > ' ' || (byte != ' ' && byte != '\r' && byte != '\n');
}

/* Reads the line as far as it has come, its CR included. One space is between two words. */
static const uint8_t *read_line(struct wire *wire, const uint8_t *start, const uint8_t *end)
{
    struct wire_text_reply *reply = &wire->reply.text;
    const uint8_t *at = start;

    while (at < end && reply->state == IN_LINE) {
        const uint8_t *word = at;

        while (at < end && is_reply_char(*at))
            at++;
        if (at == end) {
            word_add(&reply->token, word, (size_t)(at - word));
            break;
        }
        if (*at == '\n') {
            wire_poison(wire, REASON_UNEXPECTED_REPLY);
            return end;
        }
        end_word(reply, word, (size_t)(at - word));
        if (*at++ == '\r')
            reply->state = AT_LF;
    }
    count_line(wire, start, (size_t)(at - start) - (reply->state == AT_LF));
    return at;
}

static const uint8_t *read_data(struct wire_text_reply *reply, const uint8_t *at,
                                const uint8_t *end)
{
    size_t n = (size_t)(end - at);

    if (n > reply->data)
        n = reply->data;
    reply->data -= (uint32_t)n;
    if (reply->data == 0)
        reply->state = AT_DATA_CR;
    return at + n;
}

/* Only of errors the text is told, as it is the server's own. Other lines may have keys in
 * them: of those the first word is told, if it is a known one. */
bool text_reply_place(const struct wire *wire, struct wire_place *place)
{
    const struct wire_text_reply *reply = &wire->reply.text;

    place->word = reply->tokens > 0 && !is_error(reply) ? reply->tokens : 1;
    place->n = reply->line;
    if (is_error(reply)) {
        place->text = reply->text;
        place->kept = reply->line < sizeof reply->text ? reply->line : sizeof reply->text;
    } else if (reply->head >= HEAD_NAMED) {
        place->line = heads[reply->head].name.text;
    }
    return true;
}

bool text_inside_reply(const struct wire *wire)
{
    const struct wire_text_reply *reply = &wire->reply.text;

    return reply->state != IN_LINE || reply->line > 0 || reply->continued;
}

const uint8_t *text_read_reply(struct wire *wire, const uint8_t *bytes, const uint8_t *end)
{
    struct wire_text_reply *reply = &wire->reply.text;

    if (queue_empty(&wire->queue))
        wire_poison(wire, REASON_UNSOLICITED);
    do {
        if (wire->poison)
            return end;
        switch ((enum state)reply->state) {
        case IN_LINE:
            bytes = read_line(wire, bytes, end);
            if (bytes == end || wire->poison)
                break;
            /* fall through */
        case AT_LF:
            if (*bytes++ == '\n')
                end_line(wire);
            else
                wire_poison(wire, REASON_UNEXPECTED_REPLY);
            break;
        case IN_DATA:
            bytes = read_data(reply, bytes, end);
            if (bytes == end)
                break;
            /* fall through */
        case AT_DATA_CR:
            reply->state = AT_DATA_LF;
            if (*bytes++ != '\r')
                wire_poison(wire, REASON_UNEXPECTED_REPLY);
            break;
        case AT_DATA_LF:
            if (*bytes++ == '\n')
                end_data(wire);
            else
                wire_poison(wire, REASON_UNEXPECTED_REPLY);
            break;
        }
    } while (bytes < end && reply->state != IN_LINE);
    return bytes;
}
