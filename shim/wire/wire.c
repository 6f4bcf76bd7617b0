/*
 * The part of the wire tracker that both protocols share: it chooses the protocol by the first
 * byte, looks ahead at what is sent, and gives the verdict.
 */
#include "wire/internal.h"

#define TLS_HANDSHAKE 0x16

void wire_init(struct wire *wire)
{
    /* The runs need no clearing: each is written before it is read. */
    memset(wire, 0, offsetof(struct wire, queue.runs));
}

void wire_poison(struct wire *wire, enum reason reason)
{
    if (wire->poison == REASON_NONE)
        WIRE_SET(wire->poison, reason);
}

void wire_answered(struct wire *wire)
{
    wire->answered = true;
    wire->unfenced = queue_holds(&wire->queue, true);
}

enum wire_protocol wire_protocol_of(uint8_t first)
{
    return first == BINARY_MAGIC_REQUEST ? WIRE_BINARY : WIRE_TEXT;
}

static void choose_protocol(struct wire *wire, uint8_t first)
{
    wire->protocol = wire_protocol_of(first);
    if (first == TLS_HANDSHAKE)
        wire_poison(wire, REASON_TLS);
}

/* Copies only what the parsers of requests use. */
void wire_look_ahead(struct wire *ahead, const struct wire *wire)
{
    ahead->poison = WIRE_GET(wire->poison);
    ahead->protocol = wire->protocol;
    ahead->unfenced = false;
    ahead->need_mn = 0;
    ahead->known16 = false;
    ahead->request = wire->request;
    ahead->login = auth_ahead(&wire->login);
    ahead->queue.first = 0;
    ahead->queue.used = 0;
}

static void look_at(struct wire *ahead, const uint8_t *bytes, size_t n)
{
    if (ahead->protocol == WIRE_UNDECIDED)
        choose_protocol(ahead, *bytes);
    if (ahead->protocol == WIRE_BINARY)
        binary_sent(ahead, bytes, n);
    else
        text_sent(ahead, bytes, n);
}

static size_t skip(struct wire *ahead, size_t n)
{
    return ahead->protocol == WIRE_BINARY ? binary_skip(ahead, n) : text_skip(ahead, n);
}

bool wire_look_at(struct wire *ahead, const void *bytes, size_t n, wire_may_look *may_look,
                  void *context)
{
    const uint8_t *at = bytes;
    size_t used;

    for (; n > 0 && !ahead->poison; at += used, n -= used) {
        used = skip(ahead, n);
        if (used > 0)
            continue;
        used = may_look(context, at, n);
        if (used == 0)
            return false;
        look_at(ahead, at, used);
    }
    return true;
}

/* `need_mn` is dropped if a reply that came since the look ahead has shown that the server
 * knows MN. */
void wire_commit(struct wire *wire, const struct wire *ahead)
{
    if (wire->poison)
        return;
    WIRE_SET(wire->protocol, ahead->protocol);
    wire->request = ahead->request;
    queue_push_all(wire, &ahead->queue);
    wire->unfenced |= ahead->unfenced;
    if (!wire->known16)
        wire->need_mn |= ahead->need_mn;
    auth_commit(&wire->login, &ahead->login);
    if (ahead->poison)
        wire_poison(wire, ahead->poison);
}

bool wire_are_whole(const struct wire *wire, const void *bytes, size_t n, struct wire_run *run)
{
    if (WIRE_GET(wire->poison) != REASON_NONE)
        return false;
    return wire->protocol == WIRE_BINARY ? binary_are_whole(wire, bytes, n, run)
                                         : text_are_whole(wire, bytes, n, run);
}

void wire_sent_whole(struct wire *wire, struct wire_run run)
{
    if (wire->poison)
        return;
    if (wire->protocol == WIRE_BINARY) {
        binary_sent_whole(wire, run);
        return;
    }
    WIRE_SET(wire->protocol, WIRE_TEXT);
    text_sent_whole(wire, run);
}

static size_t may_look_at_all(void *context, const void *at, size_t n)
{
    (void)context;
    (void)at;
    return n;
}

void wire_sent(struct wire *wire, const void *bytes, size_t n)
{
    struct wire ahead;

    wire_look_ahead(&ahead, wire);
    wire_look_at(&ahead, bytes, n, may_look_at_all, NULL);
    wire_commit(wire, &ahead);
}

void wire_received(struct wire *wire, const void *bytes, size_t n)
{
    if (wire->protocol == WIRE_BINARY)
        binary_received(wire, bytes, n);
    else
        text_received(wire, bytes, (const uint8_t *)bytes + n);
}

static bool inside_request(const struct wire *wire)
{
    return wire->protocol == WIRE_BINARY ? binary_inside_request(wire)
                                         : text_inside_request(wire);
}

static bool inside_reply(const struct wire *wire)
{
    return wire->protocol == WIRE_BINARY ? binary_inside_reply(wire) : text_inside_reply(wire);
}

struct judgement {
    enum wire_verdict verdict;
    enum reason reason;
};

static struct judgement judge(const struct wire *wire)
{
    if (wire->poison)
        return (struct judgement){WIRE_DIRTY, wire->poison};
    if (inside_request(wire))
        return (struct judgement){WIRE_BUSY, REASON_REQUEST_PARTIAL};
    if (inside_reply(wire))
        return (struct judgement){WIRE_REPLY_OWED, REASON_REPLY_PARTIAL};
    if (queue_holds(&wire->queue, false))
        return (struct judgement){WIRE_REPLY_OWED, REASON_REPLY_OWED};
    if (wire->need_mn)
        return (struct judgement){WIRE_UNPROVEN, REASON_UNCONFIRMED};
    if (wire->unfenced)
        return (struct judgement){WIRE_UNCONFIRMED, REASON_UNCONFIRMED};
    if (!wire->answered)
        return (struct judgement){WIRE_DIRTY, REASON_UNUSED};
    return (struct judgement){WIRE_CLEAN, REASON_NONE};
}

enum wire_verdict wire_verdict(const struct wire *wire)
{
    return judge(wire).verdict;
}

enum reason wire_refusal(const struct wire *wire)
{
    return judge(wire).reason;
}

static bool is_about_reply(const struct wire *wire, enum reason reason)
{
    switch (reason) {
    case REASON_REPLY_PARTIAL:
    case REASON_ERROR_REPLY:
    case REASON_SERVER_FULL:
    case REASON_UNEXPECTED_REPLY:
        return true;
    case REASON_AUTH:
        return inside_reply(wire);
    default:
        return false;
    }
}

static bool is_about_request(enum reason reason)
{
    return reason == REASON_REQUEST_PARTIAL || reason == REASON_UNKNOWN_COMMAND ||
           reason == REASON_TAKEOVER || reason == REASON_META || reason == REASON_BAD_REQUEST ||
           reason == REASON_AUTH;
}

bool wire_place(const struct wire *wire, enum reason reason, struct wire_place *place)
{
    *place = (struct wire_place){
        .in_reply = is_about_reply(wire, reason), .opcode = -1, .status = -1};
    if (wire->protocol == WIRE_UNDECIDED || !(place->in_reply || is_about_request(reason)))
        return false;
    if (wire->protocol == WIRE_BINARY)
        return binary_place(wire, place);
    return place->in_reply ? text_reply_place(wire, place) : text_request_place(wire, place);
}

enum wire_protocol wire_protocol(const struct wire *wire)
{
    return (enum wire_protocol)WIRE_GET(wire->protocol);
}

bool wire_may_be_quit(const void *bytes, size_t n)
{
    return text_quit(bytes, n) || binary_quit(bytes, n);
}

bool wire_quit(const struct wire *wire, const void *bytes, size_t n)
{
    return wire->protocol == WIRE_BINARY ? binary_quit(bytes, n)
                                         : wire->protocol == WIRE_TEXT && text_quit(bytes, n);
}

bool wire_quit_answer(const struct wire *wire, const void *bytes, uint8_t *answer)
{
    return wire->protocol == WIRE_BINARY && binary_quit_answer(bytes, answer);
}

/* A look ahead would take a copy of WIRE, most of a kilobyte of the stack. */
void wire_sent_fence(struct wire *wire, const uint8_t *bytes, size_t n)
{
    if (!wire->poison)
        look_at(wire, bytes, n);
}

enum fact {
    FACT_KNOWN16 = 1,
    FACT_JUDGED = 2,
    FACT_ASKED = 4,
    FACT_SET = 8,
    FACT_SPACED_SET = 16,
    FACT_NO_AUTH = 32,
    FACT_MAYBE = 64,
};

static uint8_t fact_if(bool holds, enum fact fact)
{
    return holds ? (uint8_t)fact : 0;
}

void wire_save(const struct wire *wire, struct wire_saved *saved)
{
    const struct wire_auth *login = &wire->login;

    saved->protocol = wire->protocol;
    saved->facts = fact_if(wire->known16, FACT_KNOWN16) | fact_if(login->judged, FACT_JUDGED) |
                   fact_if(login->asked, FACT_ASKED) | fact_if(login->set, FACT_SET) |
                   fact_if(login->spaced_set, FACT_SPACED_SET) |
                   fact_if(login->no_auth, FACT_NO_AUTH) | fact_if(login->maybe, FACT_MAYBE);
}

bool wire_restore(struct wire *wire, const struct wire_saved *saved)
{
    if (saved->protocol != WIRE_TEXT && saved->protocol != WIRE_BINARY)
        return false;
    wire_init(wire);
    wire->protocol = saved->protocol;
    wire->answered = true;
    wire->known16 = saved->facts & FACT_KNOWN16;
    wire->login = (struct wire_auth){.judged = saved->facts & FACT_JUDGED,
                                     .asked = saved->facts & FACT_ASKED,
                                     .set = saved->facts & FACT_SET,
                                     .spaced_set = saved->facts & FACT_SPACED_SET,
                                     .no_auth = saved->facts & FACT_NO_AUTH,
                                     .maybe = saved->facts & FACT_MAYBE};
    return true;
}

bool wire_knows_mn(const struct wire *wire)
{
    return wire->known16;
}

size_t wire_fence(struct wire *wire, bool mn, uint32_t nonce, uint8_t *bytes)
{
    static const uint8_t by_mn[] = {'m', 'n', '\r', '\n'};
    static const uint8_t by_version[] = {'v', 'e', 'r', 's', 'i', 'o', 'n', '\r', '\n'};
    const uint8_t *line = mn ? by_mn : by_version;
    size_t length = mn ? sizeof by_mn : sizeof by_version;

    if (wire->protocol == WIRE_BINARY) {
        wire->nonce = nonce;
        wire->has_nonce = true;
        return binary_noop(nonce, bytes);
    }
    memcpy(bytes, line, length);
    return length;
}
