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
#include "pool/report.h"
#include "pool/spare.h"

void lending_note_refused(struct conn *conn, enum reason reason)
{
    struct endpoint *endpoint = conn->endpoint;

    stats_count(&endpoint->stats->refused[reason]);
    report_refused(conn, reason);
}

/* Closes PRIVATE_FD, the only fd of CONN's socket, unless a bulk close has closed it. The
 * caller is not the user that set SO_LINGER (socket(7)), and must not wait for it. */
static void close_at_once(const struct conn *conn, int private_fd)
{
    static const struct linger off;

    if (sockid_is_at(conn, private_fd))
        raw_syscall(SYS_setsockopt, private_fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
    twin_close(conn, private_fd);
}

void lending_discard(struct conn *conn, enum reason reason)
{
    struct endpoint *endpoint = conn->endpoint;

    stats_count(&endpoint->stats->discarded[reason]);
    report_discarded(conn, reason);
    if (conn->fd >= 0)
        close_at_once(conn, conn->fd);
    conn_move(conn, CONN_CLOSED);
}

void lending_discard_all(struct victims *victims)
{
    for (size_t i = 0; i < victims->count; i++)
        lending_discard(victims->conn[i], victims->reason[i]);
    victims->count = 0;
}

/* Idle connections that lost their fds while a thread had the pool's lock. */
static void discard_lost(void)
{
    struct victims victims = {.count = 0};
    int saved = errno;

    while (pool_take_lost(&victims))
        lending_discard_all(&victims);
    errno = saved;
}

void discard_start(void)
{
    pool_when_lost(discard_lost);
}

void lending_lose_private(struct conn *conn, int fd)
{
    if (spare_lose(conn, fd))
        return;
    conn = pool_take_private(conn, fd);
    if (!conn)
        return;
    conn->fd = -1;
    lending_discard(conn, REASON_SWEPT);
}

void lending_drop(struct conn *conn, enum reason reason)
{
    conn_refuse(conn, reason);
    if (!conn_unshare(conn))
        return;
    if (conn->endpoint)
        lending_note_refused(conn, reason);
    if (reason == REASON_OTHER_SOCKET) {
        int twin = twin_take(conn);

        if (twin >= 0)
            close_at_once(conn, twin);
    }
    twin_drop(conn);
    conn_move(conn, CONN_CLOSED);
}

/* Without the pool's lock, as in a bulk close by the program: a connection that another thread
 * is just being lent is not lent when its private fd was taken out of the map. */
static bool close_idle_fds(void)
{
    bool any = false;

    twin_sweep_begins();
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t slot = fdmap_get(fd);
        const struct conn *conn = conn_of_slot(slot);

        if (!conn || !(slot & FDMAP_PRIVATE) ||
            (conn_state(conn) != CONN_IDLE && conn_state(conn) != CONN_OWING) ||
            !fdmap_replace(fd, slot, FDMAP_NONE))
            continue;
        if (!sockid_is_elsewhere(conn, fd))
            raw_close(fd);
        any = true;
    }
    twin_sweep_ends();
    return any;
}

bool lending_is_elsewhere(struct conn *conn, int fd)
{
    if (!sockid_is_elsewhere(conn, fd))
        return false;
    if (fdmap_replace(fd, conn_slot(conn), FDMAP_NONE))
        lending_drop(conn, REASON_OTHER_SOCKET);
    return true;
}

bool lending_flush(enum reason reason)
{
    struct victims victims;
    unsigned int twins = twin_count();
    bool any, locked;
    int saved = errno;

    spare_flush();
    twin_drop_all();
    any = twin_count() < twins;
    do {
        victims.count = 0;
        locked = !pool_flush(reason, &victims);
        any |= victims.count > 0;
        if (victims.count < POOL_VICTIMS) {
            lending_discard_all(&victims);
            break;
        }
        lending_discard_all(&victims);
    } while (true);
    if (locked && close_idle_fds()) {
        any = true;
        pool_note_lost(reason);
    }
    errno = saved;
    return any;
}
