/*
 * What a death means for other connections.
 */
#include "pool/life.h"

#include <errno.h>
#include <linux/tcp.h>
#include <stddef.h>

#include "base/owner.h"
#include "conn/endpoint.h"
#include "conn/sockid.h"
#include "pool/discard.h"
#include "pool/pool.h"
#include "pool/tending.h"

#define TCP_STATE_ESTABLISHED 1 /* linux/tcp_states.h is not for user space */

/* Discards the connections to ENDPOINT that have been idle since SINCE or longer. */
static void drop_older(struct endpoint *endpoint, msec_t since)
{
    struct evicted evicted;
    bool more;

    stats_count(&endpoint->stats->deaths);
    do {
        evicted.count = 0;
        pool_drop_older(endpoint, since, &evicted);
        more = evicted.count == POOL_EVICTED_MAX;
        discard_evicted(&evicted);
    } while (more);
    tending_empty(endpoint, since, REASON_PEER_DIED);
}

void life_is_over(struct conn *conn)
{
    struct endpoint *endpoint = conn->endpoint;
    msec_t since = conn->idle_since, now = clock_now();

    discard(conn, REASON_UNANSWERED);
    drop_older(endpoint, since);
    pool_note_death(endpoint, now - since, now);
}

/* Whether CONN was reused and its user has received nothing yet. What the program did to it, or
 * sent, may be why the server ended it: then it proves nothing. */
static bool ended_before_reply(struct conn *conn)
{
    bool before = false;

    if (conn_state(conn) != CONN_IN_USE || conn_answer(conn) == CONN_ANSWER_KERNEL ||
        conn_refusal(conn) != REASON_NONE || !conn_trylock(conn))
        return false;
    before = conn->received == conn->received_before && wire_verdict(&conn->wire) != WIRE_DIRTY;
    conn_unlock(conn);
    return before;
}

/* The kernel's word: a call on no bytes returns 0 as well. */
static bool has_ended(const struct conn *conn)
{
    struct tcp_info info;

    return sockid_is_at(conn, conn->fd) &&
           sockid_tcp_info(conn->fd, &info) > offsetof(struct tcp_info, tcpi_state) &&
           info.tcpi_state != TCP_STATE_ESTABLISHED;
}

void life_note_failure(struct conn *conn, ssize_t moved)
{
    int saved = errno;

    if (moved < 0 && saved != ECONNRESET && saved != EPIPE && saved != ETIMEDOUT)
        return;
    /* Once: a second call on the dead connection finds it refused. */
    if (owner_is_this_process() && ended_before_reply(conn) && has_ended(conn)) {
        conn_refuse(conn, REASON_NOT_ESTABLISHED);
        drop_older(conn->endpoint, conn->idle_since);
        /* An end of file is a word of the server. */
        if (moved < 0)
            pool_note_death(conn->endpoint, clock_now() - conn->idle_since, clock_now());
    }
    errno = saved;
}

/* The first transmission was at least half of the present time-out ago, as that doubles with
 * each retransmission. Connections that came back later have had a reply since. */
void life_note_left(const struct conn *conn, int fd, msec_t now)
{
    enum wire_verdict verdict = wire_verdict(&conn->wire);
    struct endpoint *endpoint = conn->endpoint;
    struct tcp_info info;
    msec_t since;

    if (pool_is_dry_run() || (verdict != WIRE_REPLY_OWED && verdict != WIRE_BUSY) ||
        sockid_tcp_info(fd, &info) <= offsetof(struct tcp_info, tcpi_rto) ||
        info.tcpi_retransmits == 0)
        return;
    since = now - (msec_t)(info.tcpi_rto / 2000);
    stats_count(&endpoint->stats->stalls);
    if (since > atomic_load(&endpoint->ask_before))
        atomic_store(&endpoint->ask_before, since);
    /* One lost packet is not a death, and neither is that of a connection that had a reply. */
    if (info.tcpi_retransmits > 1 && conn_answer(conn) != CONN_ANSWER_KERNEL &&
        conn->received == conn->received_before)
        pool_note_death(endpoint, since - conn->idle_since, now);
}
