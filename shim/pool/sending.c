/*
 * Looking at requests: a page of memory is probed once, then its bytes are parsed.
 */
#include "pool/sending.h"

#include <limits.h>

#include "base/usermem.h"

#define NO_PAGE UINTPTR_MAX

static uintptr_t page_of(const void *at)
{
    return (uintptr_t)at / READABLE_PAGE;
}

static bool is_page_readable(struct sending *sending, const void *at)
{
    uintptr_t page = page_of(at);

    if (page != sending->page && !usermem_word_readable(at))
        return false;
    sending->page = page;
    return true;
}

/* Whether an object of N bytes, fewer than a page, is readable. */
static bool is_object_readable(struct sending *sending, const void *at, size_t n)
{
    return is_page_readable(sending, at) && is_page_readable(sending, (const char *)at + n - 1);
}

/* How many of the N bytes at AT may be read, no further than the end of the page; 0: none. For
 * wire_look_at(). */
static size_t may_look(void *sending, const void *at, size_t n)
{
    size_t rest = READABLE_PAGE - (uintptr_t)at % READABLE_PAGE;

    if (!is_page_readable(sending, at))
        return 0;
    return n < rest ? n : rest;
}

static void begin(struct sending *sending, const struct wire *wire)
{
    sending->n = 0;
    sending->seen = true;
    sending->are_whole = false;
    sending->page = NO_PAGE;
    wire_look_ahead(&sending->ahead, wire);
}

static void add_bytes(struct sending *sending, const void *bytes, size_t n)
{
    sending->n += n;
    sending->seen = wire_look_at(&sending->ahead, bytes, n, may_look, sending);
}

static void add_pieces(struct sending *sending, const struct iovec *iov, size_t count,
                       size_t most)
{
    for (size_t i = 0; i < count && sending->seen && sending->n < most; i++) {
        size_t room = most - sending->n;

        sending->seen = i < IOV_MAX && is_object_readable(sending, &iov[i], sizeof(*iov));
        if (sending->seen)
            add_bytes(sending, iov[i].iov_base, iov[i].iov_len < room ? iov[i].iov_len : room);
    }
}

void sending_look_at_bytes(struct sending *sending, const struct wire *wire, const void *bytes,
                           bool readable, size_t most)
{
    begin(sending, wire);
    if (readable)
        sending->page = page_of(bytes);
    add_bytes(sending, bytes, most);
}

void sending_look_at_pieces(struct sending *sending, const struct wire *wire,
                            const struct iovec *iov, size_t count, size_t most)
{
    begin(sending, wire);
    add_pieces(sending, iov, count, most);
}

void sending_look_at_messages(struct sending *sending, const struct wire *wire,
                              const void *messages, size_t stride, size_t count, size_t most)
{
    begin(sending, wire);
    for (size_t i = 0; i < count && sending->seen && sending->n < most; i++) {
        const struct msghdr *msg = (const void *)((const char *)messages + i * stride);

        sending->seen = is_object_readable(sending, msg, sizeof(*msg));
        if (sending->seen)
            add_pieces(sending, msg->msg_iov, msg->msg_iovlen, most);
    }
}
