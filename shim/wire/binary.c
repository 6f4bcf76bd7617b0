/*
 * The parser of the binary protocol. Requests and replies are packets of a header and a body. A
 * reply has the opcode of its request, so it is always known which quiet requests got no reply.
 */
#include "wire/internal.h"

#define MAGIC_REPLY 0x81

#define OPCODE_QUIT  0x07
#define OPCODE_NOOP  0x0a
#define OPCODE_STAT  0x10
#define OPCODE_QUITQ 0x17

/* Offsets in the header. Numbers are in network order. */
enum field {
    FIELD_MAGIC = 0,
    FIELD_OPCODE = 1,
    FIELD_KEY_LENGTH = 2,
    FIELD_EXTRAS_LENGTH = 4,
    FIELD_DATATYPE = 5,
    FIELD_STATUS = 6, /* of a reply; in a request the virtual bucket */
    FIELD_BODY_LENGTH = 8,
    FIELD_OPAQUE = 12,
    FIELD_CAS = 16,
};

enum status {
    STATUS_OK = 0x00,
    STATUS_NOT_FOUND = 0x01,
    STATUS_EXISTS = 0x02,
    STATUS_TOO_BIG = 0x03,
    STATUS_NOT_STORED = 0x05,
    STATUS_NO_NUMBER = 0x06,
    STATUS_AUTH_ERROR = 0x20,
    STATUS_AUTH_CONTINUE = 0x21,
};

/* When a request is answered. */
enum answer {
    ANSWER_REFUSED, /* unknown: servers differ, some even lose the request behind it */
    ANSWER_ALWAYS,
    ANSWER_HIT,   /* only if the key was found */
    ANSWER_ERROR, /* only with an error */
    ANSWER_AUTH,
    ANSWER_QUIT,
};

enum presence { ABSENT, REQUIRED, OPTIONAL };

struct operation {
    enum answer answer;
    uint8_t extras;     /* their length */
    bool extras_or_not; /* the extras may be absent */
    enum presence key;
    enum presence value;
};

#define KEYED(answer, extras) answer, extras, false, REQUIRED, ABSENT
#define STORE(answer, extras) answer, extras, false, REQUIRED, OPTIONAL
#define BARE(answer)          answer, 0, false, ABSENT, ABSENT

static const struct operation operations[] = {
    [0x00] = {KEYED(ANSWER_ALWAYS, 0)},                /* GET */
    [0x01] = {STORE(ANSWER_ALWAYS, 8)},                /* SET */
    [0x02] = {STORE(ANSWER_ALWAYS, 8)},                /* ADD */
    [0x03] = {STORE(ANSWER_ALWAYS, 8)},                /* REPLACE */
    [0x04] = {KEYED(ANSWER_ALWAYS, 0)},                /* DELETE */
    [0x05] = {KEYED(ANSWER_ALWAYS, 20)},               /* INCREMENT */
    [0x06] = {KEYED(ANSWER_ALWAYS, 20)},               /* DECREMENT */
    [OPCODE_QUIT] = {BARE(ANSWER_QUIT)},               /* QUIT */
    [0x08] = {ANSWER_ALWAYS, 4, true, ABSENT, ABSENT}, /* FLUSH */
    [0x09] = {KEYED(ANSWER_HIT, 0)},                   /* GETQ */
    [OPCODE_NOOP] = {BARE(ANSWER_ALWAYS)},             /* NOOP */
    [0x0b] = {BARE(ANSWER_ALWAYS)},                    /* VERSION */
    [0x0c] = {KEYED(ANSWER_ALWAYS, 0)},                /* GETK */
    [0x0d] = {KEYED(ANSWER_HIT, 0)},                   /* GETKQ */
    [0x0e] = {STORE(ANSWER_ALWAYS, 0)},                /* APPEND */
    [0x0f] = {STORE(ANSWER_ALWAYS, 0)},                /* PREPEND */
    [OPCODE_STAT] = {ANSWER_ALWAYS, 0, false, OPTIONAL, ABSENT},
    [0x11] = {STORE(ANSWER_ERROR, 8)},                /* SETQ */
    [0x12] = {STORE(ANSWER_ERROR, 8)},                /* ADDQ */
    [0x13] = {STORE(ANSWER_ERROR, 8)},                /* REPLACEQ */
    [0x14] = {KEYED(ANSWER_ERROR, 0)},                /* DELETEQ */
    [0x15] = {KEYED(ANSWER_ERROR, 20)},               /* INCREMENTQ */
    [0x16] = {KEYED(ANSWER_ERROR, 20)},               /* DECREMENTQ */
    [OPCODE_QUITQ] = {BARE(ANSWER_QUIT)},             /* QUITQ */
    [0x18] = {ANSWER_ERROR, 4, true, ABSENT, ABSENT}, /* FLUSHQ */
    [0x19] = {STORE(ANSWER_ERROR, 0)},                /* APPENDQ */
    [0x1a] = {STORE(ANSWER_ERROR, 0)},                /* PREPENDQ */
    [0x1c] = {KEYED(ANSWER_ALWAYS, 4)},               /* TOUCH */
    [0x1d] = {KEYED(ANSWER_ALWAYS, 4)},               /* GAT */
    [0x1e] = {KEYED(ANSWER_HIT, 4)},                  /* GATQ */
    [0x20] = {BARE(ANSWER_AUTH)},                     /* SASL LIST MECHS */
    [0x21] = {BARE(ANSWER_AUTH)},                     /* SASL AUTH */
    [0x22] = {BARE(ANSWER_AUTH)},                     /* SASL STEP */
    [0x23] = {KEYED(ANSWER_ALWAYS, 4)},               /* GATK */
    [0x24] = {KEYED(ANSWER_HIT, 4)},                  /* GATKQ */
};

static const struct operation *operation_of(const uint8_t *header)
{
    static const struct operation unknown = {BARE(ANSWER_REFUSED)};
    uint8_t opcode = header[FIELD_OPCODE];

    return opcode < sizeof operations / sizeof operations[0] ? &operations[opcode] : &unknown;
}

bool binary_quit(const uint8_t *bytes, size_t n)
{
    static const uint8_t zeros[FIELD_OPAQUE - FIELD_KEY_LENGTH];

    return n == WIRE_PACKET_HEADER && bytes[FIELD_MAGIC] == BINARY_MAGIC_REQUEST &&
           (bytes[FIELD_OPCODE] == OPCODE_QUIT || bytes[FIELD_OPCODE] == OPCODE_QUITQ) &&
           memcmp(bytes + FIELD_KEY_LENGTH, zeros, sizeof zeros) == 0;
}

bool binary_quit_answer(const uint8_t *quit, uint8_t *answer)
{
    if (quit[FIELD_OPCODE] != OPCODE_QUIT)
        return false;
    memset(answer, 0, WIRE_PACKET_HEADER);
    answer[FIELD_MAGIC] = MAGIC_REPLY;
    answer[FIELD_OPCODE] = OPCODE_QUIT;
    memcpy(answer + FIELD_OPAQUE, quit + FIELD_OPAQUE, FIELD_CAS - FIELD_OPAQUE);
    return true;
}

/* The opaque needs no network order: the server returns its bytes as they are. */
size_t binary_noop(uint32_t opaque, uint8_t *bytes)
{
    memset(bytes, 0, WIRE_PACKET_HEADER);
    bytes[FIELD_MAGIC] = BINARY_MAGIC_REQUEST;
    bytes[FIELD_OPCODE] = OPCODE_NOOP;
    memcpy(bytes + FIELD_OPAQUE, &opaque, sizeof opaque);
    return WIRE_PACKET_HEADER;
}

static uint32_t number16(const uint8_t *header, enum field field)
{
    return (uint32_t)header[field] << 8 | header[field + 1];
}

static uint32_t number32(const uint8_t *header, enum field field)
{
    return number16(header, field) << 16 | number16(header, (enum field)(field + 2));
}

static bool fits(enum presence presence, uint32_t length)
{
    return presence == OPTIONAL || (length > 0) == (presence == REQUIRED);
}

/* The bounds come first, so that the subtraction at the end cannot wrap. */
static bool lengths_fit(const struct operation *operation, const uint8_t *header)
{
    uint32_t key = number16(header, FIELD_KEY_LENGTH);
    uint32_t extras = header[FIELD_EXTRAS_LENGTH];
    uint32_t body = number32(header, FIELD_BODY_LENGTH);

    if (key > WIRE_KEY_MAX || body > WIRE_VALUE_MAX || key + extras > body)
        return false;
    if (extras != operation->extras && !(operation->extras_or_not && extras == 0))
        return false;
    return fits(operation->key, key) && fits(operation->value, body - key - extras);
}

/* Copies bytes up to the end of the header. Returns how many were used. */
static size_t read_header(struct wire_packet *packet, const uint8_t *bytes, size_t n)
{
    size_t room = (size_t)(WIRE_PACKET_HEADER - packet->have);

    if (n > room)
        n = room;
    memcpy(packet->header + packet->have, bytes, n);
    packet->have = (uint8_t)(packet->have + n);
    if (packet->have == WIRE_PACKET_HEADER)
        packet->body = number32(packet->header, FIELD_BODY_LENGTH);
    return n;
}

static size_t skip_body(struct wire_packet *packet, size_t n)
{
    if (n > packet->body)
        n = packet->body;
    packet->body -= (uint32_t)n;
    return n;
}

/* Why the connection is given up at the request with HEADER; REASON_NONE if it is not. */
static enum reason refusal_of(const uint8_t *header)
{
    const struct operation *operation = operation_of(header);

    if (operation->answer == ANSWER_REFUSED)
        return REASON_UNKNOWN_COMMAND;
    if (operation->answer == ANSWER_AUTH)
        return REASON_AUTH;
    if (header[FIELD_DATATYPE] != 0 || number16(header, FIELD_STATUS) != 0 ||
        !lengths_fit(operation, header))
        return REASON_BAD_REQUEST;
    return operation->answer == ANSWER_QUIT ? REASON_QUIT : REASON_NONE;
}

static void check_request(struct wire *wire)
{
    enum reason reason = refusal_of(wire->request.packet.header);

    if (reason != REASON_NONE)
        wire_poison(wire, reason);
}

/* The length of the packet at AT if it begins with MAGIC and is there in full; else 0. */
static size_t whole_packet(const uint8_t *at, const uint8_t *end, uint8_t magic)
{
    size_t rest = (size_t)(end - at), length;

    if (rest < WIRE_PACKET_HEADER || at[FIELD_MAGIC] != magic)
        return 0;
    length = WIRE_PACKET_HEADER + (size_t)number32(at, FIELD_BODY_LENGTH);
    return length <= rest ? length : 0;
}

/* Behind the whole requests at AT that are one run, which is RUN. Reads them where they are,
 * and stops before one at which the connection must be given up. */
static const uint8_t *behind_run(const uint8_t *at, const uint8_t *end, struct wire_run *run)
{
    size_t length;

    run->count = 0;
    while ((length = whole_packet(at, end, BINARY_MAGIC_REQUEST)) > 0 &&
           (run->count == 0 || at[FIELD_OPCODE] == run->class) &&
           refusal_of(at) == REASON_NONE) {
        run->class = at[FIELD_OPCODE];
        run->quiet = operation_of(at)->answer != ANSWER_ALWAYS;
        run->count++;
        at += length;
    }
    return at;
}

bool binary_are_whole(const struct wire *wire, const uint8_t *bytes, size_t n,
                      struct wire_run *run)
{
    return n > 0 && !binary_inside_request(wire) &&
           behind_run(bytes, bytes + n, run) == bytes + n;
}

void binary_sent_whole(struct wire *wire, struct wire_run run)
{
    if (run.quiet)
        wire->unfenced = true;
    queue_push_run(wire, run);
}

static void end_request(struct wire *wire)
{
    struct wire_packet *packet = &wire->request.packet;
    struct wire_run run = {packet->header[FIELD_OPCODE],
                           operation_of(packet->header)->answer != ANSWER_ALWAYS, 1};

    binary_sent_whole(wire, run);
    memset(packet, 0, sizeof *packet);
}

size_t binary_skip(struct wire *wire, size_t n)
{
    struct wire_packet *packet = &wire->request.packet;

    if (packet->have < WIRE_PACKET_HEADER)
        return 0;
    n = skip_body(packet, n);
    if (packet->body == 0)
        end_request(wire);
    return n;
}

void binary_sent(struct wire *wire, const uint8_t *bytes, size_t n)
{
    struct wire_packet *packet = &wire->request.packet;
    struct wire_run run;
    size_t used;

    for (; n > 0 && !wire->poison; bytes += used, n -= used) {
        if (packet->have == 0) {
            used = (size_t)(behind_run(bytes, bytes + n, &run) - bytes);
            if (used > 0) {
                binary_sent_whole(wire, run);
                continue;
            }
            if (*bytes != BINARY_MAGIC_REQUEST)
                wire_poison(wire, REASON_BAD_REQUEST);
        }
        if (packet->have < WIRE_PACKET_HEADER) {
            used = read_header(packet, bytes, n);
            if (packet->have == WIRE_PACKET_HEADER)
                check_request(wire);
        } else {
            used = skip_body(packet, n);
        }
        if (packet->have == WIRE_PACKET_HEADER && packet->body == 0 && !wire->poison)
            end_request(wire);
    }
}

/* Whether every server goes on in step after a reply with this status. */
static bool stays_in_step(uint32_t status)
{
    return status == STATUS_OK || status == STATUS_NOT_FOUND || status == STATUS_EXISTS ||
           status == STATUS_TOO_BIG || status == STATUS_NOT_STORED ||
           status == STATUS_NO_NUMBER;
}

/* False when the reply with HEADER, to our fence, has another opaque than the fence. While a
 * fence is outstanding no NOOP of the program is: a fence is sent only when every reply that
 * must come has come, and the program sends nothing behind it. */
static bool is_our_noop(const struct wire *wire, const uint8_t *header)
{
    return !wire->has_nonce || header[FIELD_OPCODE] != OPCODE_NOOP ||
           memcmp(header + FIELD_OPAQUE, &wire->nonce, sizeof wire->nonce) == 0;
}

/* Whether the oldest request can have the reply with HEADER. Quiet requests before that one got
 * no reply. */
static bool is_expected(struct wire *wire, const uint8_t *header)
{
    uint8_t opcode = header[FIELD_OPCODE];
    const struct wire_run *run = queue_at(&wire->queue, 0);

    for (unsigned i = 1; run && run->quiet && run->class != opcode; i++)
        run = queue_at(&wire->queue, i);
    if (!run || run->class != opcode)
        return false;
    switch (operation_of(header)->answer) {
    case ANSWER_HIT:
        return number16(header, FIELD_STATUS) == STATUS_OK;
    case ANSWER_ERROR:
        return number16(header, FIELD_STATUS) != STATUS_OK;
    default:
        return true;
    }
}

/* Why the connection is given up at the reply with HEADER; REASON_NONE if it is not. */
static enum reason refusal_at(struct wire *wire, const uint8_t *header)
{
    uint32_t status = number16(header, FIELD_STATUS);
    uint32_t body = number32(header, FIELD_BODY_LENGTH);
    uint32_t least = number16(header, FIELD_KEY_LENGTH) + header[FIELD_EXTRAS_LENGTH];

    if (header[FIELD_DATATYPE] != 0 || body > WIRE_VALUE_MAX || least > body)
        return REASON_UNEXPECTED_REPLY;
    if (status == STATUS_AUTH_ERROR || status == STATUS_AUTH_CONTINUE)
        return REASON_AUTH;
    if (!stays_in_step(status))
        return REASON_ERROR_REPLY;
    return is_expected(wire, header) && is_our_noop(wire, header) ? REASON_NONE
                                                                  : REASON_UNEXPECTED_REPLY;
}

static void check_reply(struct wire *wire)
{
    enum reason reason = refusal_at(wire, wire->reply.packet.header);

    if (reason != REASON_NONE)
        wire_poison(wire, reason);
}

/* The reply with HEADER was read in full. Drops the quiet requests that got none. */
static void answered(struct wire *wire, const uint8_t *header)
{
    bool more = header[FIELD_OPCODE] == OPCODE_STAT &&
                number16(header, FIELD_STATUS) == STATUS_OK &&
                number32(header, FIELD_BODY_LENGTH) > 0;
    bool quiet;

    while (queue_at(&wire->queue, 0)->class != header[FIELD_OPCODE])
        queue_drop(&wire->queue);
    quiet = queue_at(&wire->queue, 0)->quiet;
    wire->reply.packet.continued = more;
    if (header[FIELD_OPCODE] == OPCODE_NOOP)
        wire->has_nonce = false;
    if (more)
        return;
    queue_pop(&wire->queue);
    if (!quiet)
        wire_answered(wire);
}

static void end_reply(struct wire *wire)
{
    struct wire_packet *packet = &wire->reply.packet;
    struct wire_packet ended = *packet;

    memset(packet, 0, sizeof *packet);
    answered(wire, ended.header);
}

/* Behind the whole replies at AT, which are noted in WIRE. Reads them where they are, and stops
 * before one at which the connection must be given up. */
static const uint8_t *behind_replies(struct wire *wire, const uint8_t *at, const uint8_t *end)
{
    size_t length;

    while ((length = whole_packet(at, end, MAGIC_REPLY)) > 0 &&
           refusal_at(wire, at) == REASON_NONE) {
        answered(wire, at);
        at += length;
    }
    return at;
}

/* A reply that begins with no header. It is text: as long as it may say that the server has no
 * room, the rest is waited for. */
static void check_text(struct wire *wire)
{
    static const char words[] = WIRE_SERVER_FULL;
    const struct wire_packet *packet = &wire->reply.packet;

    _Static_assert(sizeof words - 1 == WIRE_PACKET_HEADER, "it is read like a header");
    if (memcmp(packet->header, words, packet->have) != 0)
        wire_poison(wire, REASON_UNEXPECTED_REPLY);
    else if (packet->have == WIRE_PACKET_HEADER)
        wire_poison(wire, REASON_SERVER_FULL);
}

void binary_received(struct wire *wire, const uint8_t *bytes, size_t n)
{
    struct wire_packet *packet = &wire->reply.packet;
    size_t used;

    for (; n > 0 && !wire->poison; bytes += used, n -= used) {
        if (packet->have == 0) {
            used = (size_t)(behind_replies(wire, bytes, bytes + n) - bytes);
            if (used > 0)
                continue;
        }
        if (queue_empty(&wire->queue))
            wire_poison(wire, REASON_UNSOLICITED);
        if (packet->have < WIRE_PACKET_HEADER) {
            used = read_header(packet, bytes, n);
            if (packet->header[0] != MAGIC_REPLY)
                check_text(wire);
            else if (packet->have == WIRE_PACKET_HEADER)
                check_reply(wire);
        } else {
            used = skip_body(packet, n);
        }
        if (packet->have == WIRE_PACKET_HEADER && packet->body == 0 && !wire->poison)
            end_reply(wire);
    }
}

bool binary_place(const struct wire *wire, struct wire_place *place)
{
    const struct wire_packet *packet =
        place->in_reply ? &wire->reply.packet : &wire->request.packet;

    place->n = packet->body;
    if (packet->have < WIRE_PACKET_HEADER)
        return true;
    place->opcode = packet->header[FIELD_OPCODE];
    if (place->in_reply)
        place->status = (int)number16(packet->header, FIELD_STATUS);
    return true;
}

bool binary_inside_reply(const struct wire *wire)
{
    return wire->reply.packet.have > 0 || wire->reply.packet.continued;
}
