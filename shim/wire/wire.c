/*
 * The common part of the tracker: which protocol, and what follows from what is known.
 */
#include "parts.h"

#define BINARY_REQUEST 0x80
#define TLS_HANDSHAKE  0x16

void wire_init(struct wire *wire)
{
    memset(wire, 0, sizeof *wire);
}

void wire_poison(struct wire *wire, enum reason reason)
{
    if (wire->poison == REASON_NONE)
        wire->poison = reason;
}

void wire_answered(struct wire *wire)
{
    wire->answered = true;
    wire->unfenced = queue_holds(&wire->queue, true);
}

static void choose_protocol(struct wire *wire, uint8_t first)
{
    wire->protocol = first == BINARY_REQUEST ? WIRE_BINARY : WIRE_TEXT;
    if (first == TLS_HANDSHAKE)
        wire_poison(wire, REASON_TLS);
}

void wire_sent(struct wire *wire, const void *bytes, size_t n)
{
    const uint8_t *first = bytes;

    if (n == 0)
        return;
    if (wire->protocol == WIRE_UNDECIDED)
        choose_protocol(wire, *first);
    if (wire->protocol == WIRE_BINARY)
        binary_sent(wire, first, n);
    else
        text_sent(wire, first, n);
}

void wire_received(struct wire *wire, const void *bytes, size_t n)
{
    if (wire->protocol == WIRE_BINARY)
        binary_received(wire, bytes, n);
    else
        text_received(wire, bytes, n);
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
        return (struct judgement){WIRE_BUSY, REASON_REPLY_PARTIAL};
    if (queue_holds(&wire->queue, false))
        return (struct judgement){WIRE_BUSY, REASON_REPLY_OWED};
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

enum wire_protocol wire_protocol(const struct wire *wire)
{
    return (enum wire_protocol)wire->protocol;
}

bool wire_used_meta(const struct wire *wire)
{
    return wire->used_meta;
}
