/*
 * What this process gives up for a server that has no room.
 */
#include "pool/full.h"

#include <errno.h>

#include "base/owner.h"
#include "conn/endpoint.h"
#include "pool/discard.h"
#include "pool/pool.h"
#include "pool/tending.h"

void full_note(const struct conn *conn, msec_t now)
{
    struct endpoint *endpoint = conn->endpoint;
    struct evicted evicted;
    bool more;
    int saved = errno;

    stats_count(&endpoint->stats->server_full);
    do {
        evicted.count = 0;
        pool_note_full(endpoint, now, &evicted);
        more = evicted.count == POOL_EVICTED_MAX;
        discard_evicted(&evicted);
    } while (more);
    tending_empty(endpoint, now, REASON_SERVER_FULL);
    errno = saved;
}

void full_note_refused(const struct conn *conn, msec_t now)
{
    if (wire_refusal(&conn->wire) == REASON_SERVER_FULL)
        full_note(conn, now);
}

void full_note_connect(const struct conn *conn, int error)
{
    if (error == ECONNREFUSED && owner_is_this_process() && conn->endpoint &&
        conn_answer(conn) == CONN_ANSWER_KERNEL && conn_refusal(conn) == REASON_NONE)
        full_note(conn, clock_now());
}
