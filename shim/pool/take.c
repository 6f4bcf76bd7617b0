/*
 * Taking a connection of the family, and what it must be before it is believed.
 */
#include "pool/take.h"

#include <sys/socket.h>

#include "base/owner.h"
#include "base/rawsys.h"
#include "config/address.h"
#include "conn/shadow.h"
#include "conn/sockid.h"
#include "pool/account.h"
#include "pool/discard.h"
#include "pool/members.h"
#include "pool/pool.h"
#include "pool/queues.h"
#include "pool/request.h"
#include "pool/verify.h"
#include "stats/mode.h"

/* How many connections one connect() looks at. */
#define TAKE_LOOKS 3

static bool can_serve(const struct account *account, const struct conn *fresh,
                      enum wire_protocol protocol)
{
    return address_equal(&account->address, &fresh->endpoint->address) &&
           account->domain == fresh->domain &&
           (protocol == WIRE_UNDECIDED || account->wire.protocol == protocol);
}

/* The kernel's word that TAKEN is a connection to the peer of FRESH, and the one that the
 * account is about. verify_for_reuse() asks the rest. */
static bool is_connected_to(const struct taken *taken, const struct conn *fresh)
{
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof(peer);
    struct address address;
    uint64_t cookie = 0;

    return sockid_cookie(taken->fd, &cookie) && cookie == taken->account.cookie &&
           raw_syscall(SYS_getpeername, taken->fd, &peer, &length) == 0 &&
           peer.ss_family == fresh->domain &&
           address_from(&address, (const void *)&peer, length) &&
           address_equal(&address, &fresh->endpoint->address);
}

/* Makes a record for TAKEN, with a shadow fd. CHECKING_OUT; REASON tells whether it can be
 * used. NULL when there is no room for it. */
static struct conn *adopt(const struct taken *taken, const struct conn *fresh, msec_t now,
                          enum reason *reason)
{
    struct conn *conn = conn_new(taken->fd, fresh->domain);
    bool good;

    if (!conn)
        return NULL;
    conn->fork_epoch = atomic_load(&fork_epoch);
    conn->orphan_epoch = atomic_load(&orphan_epoch);
    conn->cred_epoch = atomic_load(&cred_epoch);
    conn->endpoint = fresh->endpoint;
    good = account_apply(&taken->account, conn, now);
    shadow_make(conn, taken->fd);
    conn->fd = shadow_claim(conn);
    if (conn->fd < 0) {
        conn_move(conn, CONN_CLOSED);
        return NULL;
    }
    conn_move(conn, CONN_CHECKING_OUT);
    *reason = good ? verify_flags(conn, conn->fd) : REASON_TOO_OLD;
    return conn;
}

/* In a turn. */
static struct conn *take_in_turn(size_t i, const struct conn *fresh,
                                 enum wire_protocol protocol, msec_t now, enum reason *reason)
{
    struct taken taken;

    for (int looks = 0; looks < TAKE_LOOKS; looks++) {
        enum got got = queues_take(i, &taken);
        struct conn *conn;

        if (got == GOT_NOTHING)
            return NULL;
        if (got == GOT_OTHER) {
            stats_count(&fresh->endpoint->stats->foreign);
            continue;
        }
        if (!can_serve(&taken.account, fresh, protocol)) {
            queues_give_back(i, &taken);
            continue;
        }
        if (!is_connected_to(&taken, fresh)) {
            queues_close(&taken);
            stats_count(&fresh->endpoint->stats->foreign);
            continue;
        }
        conn = adopt(&taken, fresh, now, reason);
        if (!conn) {
            queues_give_back(i, &taken);
            return NULL;
        }
        queues_close(&taken);
        if (family_forked_since(taken.forks))
            *reason = REASON_FORKED;
        return conn;
    }
    return NULL;
}

struct conn *take_shared_slow(const struct conn *fresh, enum wire_protocol protocol, msec_t now)
{
    static const struct sockopts none;
    struct family_board *board = family_get();
    enum reason reason = REASON_NONE;
    struct family_turn turn;
    struct conn *conn;
    size_t i;

    if (!board || mode_now() != MODE_ON || !sockopts_fit(&none, &fresh->options) ||
        !sockopts_know_usual(fresh->fd, &fresh->options))
        return NULL;
    request_note_wanted();
    members_join(&board->members);
    i = family_queue_for(fresh->endpoint);
    if (atomic_load(&board->queues[i].queued) == 0 || !family_begin(&turn))
        return NULL;
    conn = take_in_turn(i, fresh, protocol, now, &reason);
    family_end(&turn);
    if (!conn)
        return NULL;
    if (reason == REASON_NONE)
        reason = pool_refusal(conn, now);
    if (reason != REASON_NONE) {
        discard(conn, reason);
        return NULL;
    }
    return conn;
}
