/*
 * Closing what is in the pool, or was about to be.
 */
#include "pool/discard.h"

#include <errno.h>
#include <sys/socket.h>

#include "base/rawsys.h"
#include "conn/fdmap.h"
#include "conn/shadow.h"
#include "conn/sockid.h"
#include "conn/sockopts.h"
#include "pool/report.h"
#include "pool/spare.h"

void discard_note_refused(struct conn *conn, enum reason reason)
{
    struct endpoint *endpoint = conn->endpoint;

    stats_count(&endpoint->stats->refused[reason]);
    report_refused(conn, reason);
}

/* Closes SHADOW_FD, the only fd of CONN's socket, unless a bulk close has done so. SO_LINGER
 * (socket(7)), which a former user may have set, is turned off first: this caller must not
 * wait. */
static void close_at_once(const struct conn *conn, int shadow_fd)
{
    if (sockid_is_at(conn, shadow_fd))
        sockopts_linger_off(shadow_fd);
    shadow_close(conn, shadow_fd);
}

void discard(struct conn *conn, enum reason reason)
{
    struct endpoint *endpoint = conn->endpoint;

    stats_count(&endpoint->stats->discarded[reason]);
    report_discarded(conn, reason);
    if (conn->fd >= 0)
        close_at_once(conn, conn->fd);
    conn_move(conn, CONN_CLOSED);
}

void discard_evicted(struct evicted *evicted)
{
    for (size_t i = 0; i < evicted->count; i++)
        discard(evicted->conn[i], evicted->reason[i]);
    evicted->count = 0;
}

/* The idle connections that lost their fds while a thread had the pool's lock. */
static void discard_lost(void)
{
    struct evicted evicted = {.count = 0};
    int saved = errno;

    while (pool_claim_lost(&evicted))
        discard_evicted(&evicted);
    errno = saved;
}

void discard_start(void)
{
    pool_when_lost(discard_lost);
}

void discard_lose_shadow(struct conn *conn, int fd)
{
    if (spare_lose(conn, fd))
        return;
    conn = pool_claim_shadow(conn, fd);
    if (!conn)
        return;
    conn->fd = -1;
    discard(conn, REASON_CLOSED_IN_BULK);
}

void discard_open(struct conn *conn, enum reason reason)
{
    conn_refuse(conn, reason);
    if (!conn_unshare(conn))
        return;
    if (conn->endpoint)
        discard_note_refused(conn, reason);
    if (reason == REASON_OTHER_SOCKET) {
        int shadow_fd = shadow_claim(conn);

        if (shadow_fd >= 0)
            close_at_once(conn, shadow_fd);
    }
    shadow_drop(conn);
    conn_move(conn, CONN_CLOSED);
}

/* Without the pool's lock, in the steps of a bulk close by the program: a connection that
 * another thread is checking out is not reused if its shadow fd is not in the map any more. See
 * concurrency.md, 3. */
static bool close_idle_fds(void)
{
    bool any = false;

    bulk_close_begins();
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t word = fdmap_get(fd);
        const struct conn *conn = conn_of_word(word);

        if (!conn || !(word & FDMAP_SHADOW) ||
            (conn_state(conn) != CONN_IDLE && conn_state(conn) != CONN_DRAINING) ||
            !fdmap_replace(fd, word, FDMAP_NONE))
            continue;
        if (!sockid_is_elsewhere(conn, fd))
            raw_close(fd);
        any = true;
    }
    bulk_close_ends();
    return any;
}

bool discard_if_elsewhere(struct conn *conn, int fd)
{
    if (!sockid_is_elsewhere(conn, fd))
        return false;
    if (fdmap_replace(fd, conn_id(conn), FDMAP_NONE))
        discard_open(conn, REASON_OTHER_SOCKET);
    return true;
}

bool discard_idle(enum reason reason)
{
    struct evicted evicted;
    unsigned int shadows = shadow_count();
    bool any, locked;
    int saved = errno;

    spare_flush();
    shadow_drop_all();
    any = shadow_count() < shadows;
    do {
        evicted.count = 0;
        locked = !pool_flush(reason, &evicted);
        any |= evicted.count > 0;
        if (evicted.count < POOL_EVICTED_MAX) {
            discard_evicted(&evicted);
            break;
        }
        discard_evicted(&evicted);
    } while (true);
    if (locked && close_idle_fds()) {
        any = true;
        pool_note_lost(reason);
    }
    errno = saved;
    return any;
}
