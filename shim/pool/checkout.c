/*
 * The sequence of check-out.
 */
#include "pool/checkout.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>

#include "base/hash.h"
#include "base/owner.h"
#include "base/usermem.h"
#include "conn/fdmap.h"
#include "conn/shadow.h"
#include "hooks/libc.h"
#include "pool/callers.h"
#include "pool/connect_time.h"
#include "pool/discard.h"
#include "pool/drain.h"
#include "pool/guess.h"
#include "pool/install.h"
#include "pool/pool.h"
#include "pool/spare.h"
#include "pool/verify.h"
#include "config/rules.h"
#include "stats/log.h"

/* Owing connections that one connect() asks. */
#define SETTLED_AT_ONCE 4

static const struct config *settings;

void lending_start(const struct config *config)
{
    settings = config;
}

/* Up to a tenth of the lifetime less, different for each connection, so that connections opened
 * together do not all end together. */
static msec_t expiry(const struct conn *conn, msec_t now)
{
    uint64_t mixed = hash_mix(conn->cookie + (uint64_t)now);
    msec_t tenth = settings->max_lifetime / 10;

    return now + settings->max_lifetime - (msec_t)((mixed >> 32) * (uint64_t)tenth >> 32);
}

/* The pooled connection takes the number and the place of the fresh socket. */
static void hand_over(struct conn *conn, int fd, struct conn *fresh, uint32_t children)
{
    int private_fd = conn->fd;

    conn->fd = fd;
    conn_set_flags(conn, conn_flags(fresh), conn_fd_flags(fresh));
    conn->children = children;
    options_lend(&conn->options, &fresh->options);
    conn->watches.count = 0;
    if (fresh->watches.count > 0)
        conn->watches = fresh->watches;
    conn->habit = fresh->habit;
    conn_set_word(conn, conn_word(fresh));
    atomic_store_explicit(&conn->spoke, false, memory_order_relaxed);
    conn_move(conn, CONN_IN_USE);
    twin_adopt(conn, private_fd);
    /* Another thread may have closed the number meanwhile, and it names something new. */
    if (!fdmap_replace(fd, conn_slot(fresh) | FDMAP_CLOSING, conn_slot(conn))) {
        twin_drop(conn);
        conn_move(conn, CONN_CLOSED);
    }
    spare_keep(fresh);
}

static void pretend_to_lend(struct conn *conn)
{
    stats_count(&conn->endpoint->stats->reused);
    log_line(LOG_DEBUG, "%s: would be reused", conn->endpoint->text);
    conn_move(conn, CONN_CLOSED);
}

/* Stale connections are passed over. */
static struct conn *find_clean(const struct conn *fresh, enum wire_protocol protocol,
                               msec_t now)
{
    struct victims victims;
    struct conn *conn;
    enum reason reason;

    victims.count = 0;
    while (true) {
        conn = pool_take(fresh, protocol, now, &victims);
        lending_discard_all(&victims);
        if (!conn || pool_is_dry_run())
            return conn;
        reason = proof_check_out(conn);
        if (reason == REASON_NONE)
            return conn;
        lending_discard(conn, reason);
    }
}

/* Those that have waited longest are asked whether all has come by now; a few, as a server that
 * did not answer them has hardly answered the others. */
static struct conn *find_settled(const struct conn *fresh, enum wire_protocol protocol,
                                 msec_t now)
{
    struct victims victims;
    unsigned int reads = SETTLE_READS;

    victims.count = 0;
    for (int i = 0; i < SETTLED_AT_ONCE && reads > 0; i++) {
        struct conn *conn = pool_take_owing(fresh, protocol, now, &victims);
        enum reason reason;

        lending_discard_all(&victims);
        if (!conn)
            return NULL;
        reason = settle(conn, now, &reads);
        if (settle_goes_on(reason) && pool_put_back(conn))
            continue;
        if (reason == REASON_NONE)
            reason = proof_check_out(conn);
        if (reason == REASON_NONE) {
            stats_count(&conn->endpoint->stats->settled);
            return conn;
        }
        lending_discard(conn, reason);
    }
    return NULL;
}

struct conn *lending_find(const struct conn *fresh, enum wire_protocol protocol, msec_t now)
{
    struct conn *conn = find_clean(fresh, protocol, now);

    if (pool_is_dry_run()) {
        if (conn)
            pretend_to_lend(conn);
        return NULL;
    }
    return conn ? conn : find_settled(fresh, protocol, now);
}

static enum conn_word word_for(const struct conn *fresh, const void *caller)
{
    bool waits = conn_flags(fresh) & O_NONBLOCK;

    return waits && !callers_take_zero(caller) ? CONN_WORD_CONNECTING : CONN_WORD_CONNECTED;
}

/* One that cannot take on the looks of FRESH ends the search, as the next could not either. */
static bool check_out(struct conn *fresh, int fd, msec_t now, const void *caller)
{
    struct conn *conn = lending_find(fresh, guess_protocol(fresh), now);
    enum reason reason;
    uint32_t children;

    if (!conn)
        return false;
    /* Read before the connection gets its number: a child made from now on may have it. */
    children = atomic_load(&process_children);
    spare_save(fresh, fd);
    reason = disguise_put_on(conn, fd, fresh);
    if (reason != REASON_NONE) {
        lending_discard(conn, reason);
        return false;
    }
    conn_set_word(fresh, word_for(fresh, caller));
    /* Counted first: once handed over, another thread may close it, and it is not ours. */
    stats_count(&conn->endpoint->stats->reused);
    log_line(LOG_DEBUG, "%s: reused as %d", conn->endpoint->text, fd);
    hand_over(conn, fd, fresh, children);
    return true;
}

/* What the kernel would not take, or not for such a socket, is left for it to refuse. */
static bool address_for(const struct conn *conn, struct address *address,
                        const struct sockaddr *addr, socklen_t len)
{
    return len >= sizeof(addr->sa_family) && len <= sizeof(struct sockaddr_storage) &&
           is_readable(addr, len) && addr->sa_family == conn->domain &&
           address_from(address, addr, len);
}

/* Another connect() on a socket, and what decides its result. */
struct again {
    const struct conn *lent; /* NULL: what the kernel says */
    bool dissolves;          /* the address is none: an end of the connection, connect(2) */
};

/* CONN may be another connection from now on, and its first byte decides there. */
static void note_reconnected(struct conn *conn)
{
    conn_refuse(conn, REASON_RECONNECTED);
    atomic_store_explicit(&conn->spoke, true, memory_order_relaxed);
}

/* connect() on a socket that is connected or connecting: asking for the outcome is usual,
 * another peer is the end of pooling. */
static struct again connect_again(struct conn *conn, const struct sockaddr *addr, socklen_t len)
{
    struct again again = {.lent = conn_word(conn) == CONN_WORD_KERNEL ? NULL : conn};
    struct address address;

    if (address_for(conn, &address, addr, len) &&
        address_equal(&address, &conn->endpoint->address))
        return again;
    note_reconnected(conn);
    again.dissolves = again.lent && len >= sizeof(addr->sa_family) &&
                      is_readable(addr, sizeof(addr->sa_family)) &&
                      addr->sa_family == AF_UNSPEC;
    return again;
}

static void note_birth(struct conn *conn, msec_t now)
{
    conn->connected_at = now;
    conn->expires_at = expiry(conn, now);
}

static bool enlist(struct conn *conn, const struct address *address, msec_t now)
{
    enum reason reason;

    if (!conn_hold(conn))
        return false;
    reason = pool_enlist(conn, address, now);
    conn_let_go(conn);
    if (reason != REASON_NONE)
        log_line(LOG_DEBUG, "not tracked: %s (%s)", reason_name(reason), reason_text(reason));
    return reason == REASON_NONE;
}

bool lending_enlist(struct conn *conn, const struct address *address, msec_t now)
{
    note_birth(conn, now);
    return enlist(conn, address, now);
}

static bool connect_claimed(struct conn *conn, int fd, const struct sockaddr *addr,
                            socklen_t len, const void *caller)
{
    struct address address;
    msec_t now;
    enum reason reason;

    if (!address_for(conn, &address, addr, len) ||
        !rules_match(settings->rules, settings->rule_count, &address))
        return false;
    now = clock_now();
    if (!enlist(conn, &address, now))
        return false;
    pool_publish(conn->endpoint);
    stats_count(&conn->endpoint->stats->connects);
    reason = proof_fresh(conn, fd);
    if (reason == REASON_NONE && check_out(conn, fd, now, caller)) {
        stats_write_if_due(now);
        return true;
    }
    if (reason != REASON_NONE)
        conn_refuse(conn, reason);
    note_birth(conn, now);
    stats_count(&conn->endpoint->stats->opened);
    conn->untimed = conn->flags & O_NONBLOCK;
    stats_write_if_due(now);
    return false;
}

/* The first connect() on a socket. True when it was answered from the pool. Of two threads that
 * connect or close it at once, one has it to himself, and the other makes the plain call. */
static bool connect_fresh(struct conn *conn, int fd, const struct sockaddr *addr, socklen_t len,
                          const void *caller)
{
    uint32_t slot = conn_slot(conn);
    bool lent, tracked;

    if (!fdmap_replace(fd, slot, slot | FDMAP_CLOSING)) {
        conn_refuse(conn, REASON_CONCURRENT);
        return false;
    }
    lent = conn_state(conn) == CONN_FRESH && connect_claimed(conn, fd, addr, len, caller);
    if (lent)
        return true;
    twin_drop(conn);
    tracked = conn_state(conn) == CONN_IN_USE;
    if (!fdmap_replace(fd, slot | FDMAP_CLOSING, tracked ? slot : FDMAP_NONE) || !tracked)
        conn_move(conn, CONN_CLOSED);
    return false;
}

static bool connect_goes_on(int error)
{
    return error == EINPROGRESS || error == EALREADY || error == EINTR || error == EISCONN;
}

/* The kernel has said RESULT to another connect() on CONN, before which errno was SAVED. */
static int say_again(struct conn *conn, const struct again *again, int result, int saved)
{
    if (result != 0 && errno != EISCONN)
        return result;
    if (again->dissolves) {
        conn_set_word(conn, CONN_WORD_KERNEL);
        return result;
    }
    if (conn_is_connected(conn)) {
        errno = saved;
        return 0;
    }
    errno = EISCONN;
    return -1;
}

/* The kernel has said RESULT of FD, which may be closed by now. */
static int note_outcome(int fd, const struct again *again, int result, int saved)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return result;
    if (result != 0 && !connect_goes_on(errno))
        note_reconnected(conn);
    if (conn == again->lent)
        result = say_again(conn, again, result, saved);
    conn_leave(conn, CONN_CALL_OTHER);
    return result;
}

int lending_connect(int fd, const struct sockaddr *addr, socklen_t len, const void *caller)
{
    struct again again = {NULL, false};
    struct conn *conn;
    struct endpoint *opens = NULL; /* to which this is the real connect, and may block */
    uint64_t began = 0;
    bool lent = false, waits = false;
    int saved = errno;
    int result;

    pthread_testcancel();
    conn = process_is_owner() ? conn_enter(fd, CONN_CALL_OTHER) : NULL;
    if (conn) {
        if (conn_state(conn) == CONN_FRESH) {
            lent = connect_fresh(conn, fd, addr, len, caller);
            waits = conn_word(conn) == CONN_WORD_CONNECTING;
            opens = lent || conn->untimed ? NULL : conn->endpoint;
        } else if (conn->endpoint)
            again = connect_again(conn, addr, len);
        conn_leave(conn, CONN_CALL_OTHER);
    }
    errno = lent && waits ? EINPROGRESS : saved;
    if (lent)
        return waits ? -1 : 0;
    if (opens)
        began = timing_now();
    result = real_connect(fd, addr, len);
    if (opens && result == 0)
        timing_count(opens, timing_now() - began);
    if (again.lent || (conn && result != 0 && !connect_goes_on(errno)))
        result = note_outcome(fd, &again, result, saved);
    return result;
}
