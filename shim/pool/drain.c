/*
 * Fences and outstanding replies.
 *
 * Which fence proves what? After most quiet commands any request that is always answered will
 * do. But memcached up to 1.5.22 executes the value of a refused noreply command as commands.
 * Only `MN` is proof then: those versions never say it, and newer ones say it in answer to
 * nothing but `mn`. Servers before 1.5.19 and some proxies do not know `mn`: that is noted
 * once, and `mn` is tried again after a while.
 */
#include "pool/drain.h"

#include <errno.h>
#include <sys/socket.h>

#include "conn/endpoint.h"
#include "conn/sockid.h"
#include "base/hash.h"
#include "base/rawsys.h"

/* Bytes that are read on one draining connection before it is given up. */
#define DRAINED_MOST ((size_t)1 << 20)

/* Milliseconds after which a server that did not know `mn` is asked it again. */
#define MN_AGAIN_AFTER ((msec_t)60 * 1000)

static bool may_ask_mn(const struct conn *conn, msec_t now)
{
    return wire_knows_mn(&conn->wire) || now >= atomic_load(&conn->endpoint->no_mn_until);
}

enum reason drain_prospect(const struct conn *conn, msec_t now)
{
    switch (wire_verdict(&conn->wire)) {
    case WIRE_CLEAN:
    case WIRE_REPLY_OWED:
    case WIRE_UNCONFIRMED:
        return REASON_NONE;
    case WIRE_UNPROVEN:
        return may_ask_mn(conn, now) ? REASON_NONE : REASON_UNCONFIRMED;
    default:
        return wire_refusal(&conn->wire);
    }
}

static bool is_unconfirmed(const struct conn *conn)
{
    enum wire_verdict verdict = wire_verdict(&conn->wire);

    return verdict == WIRE_UNCONFIRMED || verdict == WIRE_UNPROVEN;
}

/* The value that a fence's answer must echo: no secret, only a different one each time. */
static uint32_t next_nonce(const struct conn *conn)
{
    static _Atomic uint32_t count;
    uint64_t other = (conn->cookie << 32 | atomic_fetch_add(&count, 1)) + conn->sent;

    return (uint32_t)(hash_mix(other) >> 32);
}

static enum reason send_fence(struct conn *conn, bool mn)
{
    uint8_t bytes[WIRE_FENCE_MAX];
    size_t n = wire_fence(&conn->wire, mn, next_nonce(conn), bytes);

    if (raw_syscall(SYS_sendto, conn->fd, bytes, n, MSG_DONTWAIT | MSG_NOSIGNAL, NULL, 0) !=
        (long)n)
        return REASON_NO_FENCE;
    /* Nagle's algorithm would hold the fence back behind another small request until the
     * server's delayed acknowledgement. */
    sockopts_push(conn->fd, &conn->options);
    stats_count(&conn->endpoint->stats->fences);
    conn->fence = mn && wire_protocol(&conn->wire) == WIRE_TEXT ? FENCE_MN : FENCE_OTHER;
    conn->sent += n;
    wire_sent_fence(&conn->wire, bytes, n);
    return REASON_NONE;
}

enum reason drain_begin(struct conn *conn, msec_t now)
{
    conn->fence = FENCE_NONE;
    conn->drained = 0;
    return is_unconfirmed(conn) ? send_fence(conn, may_ask_mn(conn, now)) : REASON_NONE;
}

/* Any request that the server surely knows will do. */
enum reason drain_ask(struct conn *conn, msec_t now)
{
    conn->idle_since = now;
    conn->drained = 0;
    return send_fence(conn,
                      wire_knows_mn(&conn->wire) || atomic_load(&conn->endpoint->knows_mn));
}

/* A fence had no answer, or a wrong one. A server that has understood `mn` before is asked
 * again, once: it may have been restarted. */
static enum reason fence_failed(const struct conn *conn, msec_t now)
{
    struct endpoint *endpoint = conn->endpoint;

    if (conn->fence == FENCE_MN && !wire_knows_mn(&conn->wire) &&
        !atomic_exchange(&endpoint->knows_mn, false))
        atomic_store(&endpoint->no_mn_until, now + MN_AGAIN_AFTER);
    return REASON_NO_FENCE;
}

/* What is known after the bytes that were just read; as drain(). */
static enum reason judge(struct conn *conn, msec_t now)
{
    enum reason reason = wire_refusal(&conn->wire);

    if (wire_verdict(&conn->wire) == WIRE_DIRTY)
        return conn->fence == FENCE_NONE ? reason : fence_failed(conn, now);
    if (reason == REASON_NONE && conn->fence == FENCE_MN)
        atomic_store(&conn->endpoint->knows_mn, true);
    return reason;
}

static enum reason read_chunk(struct conn *conn, msec_t now)
{
    char bytes[DRAIN_READ_SIZE];
    long n =
        raw_syscall(SYS_recvfrom, conn->fd, bytes, sizeof(bytes), MSG_DONTWAIT, NULL, NULL);

    if (n == -EAGAIN)
        return wire_refusal(&conn->wire);
    if (n <= 0)
        return conn->fence == FENCE_NONE ? REASON_NOT_ESTABLISHED : fence_failed(conn, now);
    conn->received += (uint64_t)n;
    conn->drained += (size_t)n;
    wire_received(&conn->wire, bytes, (size_t)n);
    if (conn->drained > DRAINED_MOST)
        return REASON_DRAIN_LIMIT;
    return judge(conn, now);
}

bool drain_goes_on(enum reason reason)
{
    return reason == REASON_REPLY_OWED || reason == REASON_REPLY_PARTIAL ||
           reason == REASON_UNCONFIRMED;
}

enum reason drain(struct conn *conn, msec_t now, unsigned int *reads)
{
    enum reason reason = REASON_REPLY_OWED;

    /* If the fd was closed in bulk and reused, its bytes are not ours to read. */
    if (!sockid_is_at(conn, conn->fd))
        return REASON_OTHER_SOCKET;
    while (*reads > 0 && drain_goes_on(reason)) {
        uint64_t before = conn->received;

        --*reads;
        reason = read_chunk(conn, now);
        if (reason == REASON_UNCONFIRMED) {
            if (conn->fence != FENCE_NONE)
                return fence_failed(conn, now);
            reason = send_fence(conn, may_ask_mn(conn, now));
            return reason == REASON_NONE ? REASON_UNCONFIRMED : reason;
        }
        if (conn->received == before)
            break;
    }
    return reason;
}
