/*
 * The sequence of check-out.
 *
 * One thread has the fresh socket: the one whose swap puts CLOSING into the fd's word (see
 * concurrency.md, 1). It keeps CLOSING until the pooled connection is in the map, or the plain
 * connect() is to be made.
 */
#include "pool/checkout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>

#include "base/hash.h"
#include "base/owner.h"
#include "base/usermem.h"
#include "conn/fdmap.h"
#include "conn/shadow.h"
#include "pool/callers.h"
#include "pool/connect_time.h"
#include "pool/custody.h"
#include "pool/discard.h"
#include "pool/drain.h"
#include "pool/due.h"
#include "pool/guess.h"
#include "pool/full.h"
#include "pool/install.h"
#include "pool/life.h"
#include "pool/pool.h"
#include "pool/proof.h"
#include "pool/sharing.h"
#include "pool/spare.h"
#include "pool/verify.h"
#include "config/rules.h"
#include "stats/log.h"

/* Idle connections without proof of life that one connect() asks. */
#define ASKS_AT_ONCE 8

/* Draining connections that one connect() reads from. */
#define DRAINS_AT_ONCE 4

static const struct config *settings;

void check_out_start(const struct config *config)
{
    settings = config;
}

/* When CONN expires. Up to a tenth of the lifetime is taken off, a different part for each
 * connection, so that those opened together do not all expire together. */
static msec_t expiry(const struct conn *conn, msec_t now)
{
    uint64_t mixed = hash_mix(conn->cookie + (uint64_t)now);
    msec_t tenth = settings->max_lifetime / 10;

    return now + settings->max_lifetime - (msec_t)((mixed >> 32) * (uint64_t)tenth >> 32);
}

/* CONN is at FD in the kernel; here the map and the record follow. EPOCH is the fork_epoch from
 * before the dup3(). The record is complete before the map names it. */
static void hand_to_program(struct conn *conn, int fd, struct conn *fresh, uint32_t epoch)
{
    int shadow_fd = conn->fd;

    conn->fd = fd;
    conn_set_flags(conn, conn_flags(fresh), conn_fd_flags(fresh));
    conn->fork_epoch = epoch;
    sockopts_equalize(&conn->options, &fresh->options);
    conn->epoll_regs.count = 0;
    if (fresh->epoll_regs.count > 0)
        conn->epoll_regs = fresh->epoll_regs;
    conn->socket_kind = fresh->socket_kind;
    conn->received_before = conn->received;
    conn->sends_before = conn->sends;
    conn_set_answer(conn, conn_answer(fresh));
    /* relaxed: released by the word in the map */
    atomic_store_explicit(&conn->has_sent, false, memory_order_relaxed);
    conn_move(conn, CONN_IN_USE);
    shadow_adopt(conn, shadow_fd);
    /* If the word has changed, another thread has closed FD and got it for a new socket. */
    if (!fdmap_replace(fd, conn_id(fresh) | FDMAP_CLOSING, conn_id(conn))) {
        shadow_drop(conn);
        conn_move(conn, CONN_CLOSED);
    }
    spare_keep(fresh);
}

static void pretend_to_reuse(struct conn *conn, msec_t now)
{
    stats_count(&conn->endpoint->stats->reused);
    connect_time_saved(conn, now);
    log_line(LOG_DEBUG, "%s: would be reused", conn->endpoint->text);
    conn_move(conn, CONN_CLOSED);
}

/* Asks CONN, CHECKING_OUT, whether it is alive; its answer is read by a later check-out. */
COLD static void ask(struct conn *conn, msec_t now)
{
    struct endpoint *endpoint = conn->endpoint;
    enum reason reason = drain_ask(conn, now);

    if (reason == REASON_NONE && !pool_return(conn))
        reason = REASON_LOCKED;
    if (reason != REASON_NONE) {
        discard(conn, reason);
        return;
    }
    stats_count(&endpoint->stats->asked);
    log_line(LOG_DEBUG, "%s: asked for a sign of life", endpoint->text);
}

/* CONN, CHECKING_OUT, is clean, but PROOF is none of life. */
COLD static void handle_unproven(struct conn *conn, enum proof proof, msec_t now,
                                 unsigned int *asks)
{
    if (proof == PROOF_OF_DEATH) {
        life_is_over(conn);
        return;
    }
    ask(conn, now);
    --*asks;
}

/* Whether CONN, CHECKING_OUT, is clean and proven alive. If not, it is discarded, or asked, and
 * *ASKS one less: it is not the caller's any more. */
static bool may_be_reused(struct conn *conn, msec_t now, unsigned int *asks)
{
    struct tcp_info info;
    enum reason reason = verify_for_reuse(conn, &info);
    enum proof proof;

    if (__builtin_expect(reason != REASON_NONE, 0)) {
        if (reason == REASON_NOT_ESTABLISHED)
            custody_note_end(conn, &info, now);
        discard(conn, reason);
        return false;
    }
    proof = proof_of(conn, &info);
    if (proof == PROOF_OF_LIFE)
        return true;
    handle_unproven(conn, proof, now, asks);
    return false;
}

/* The latest idle connection that may be reused. When a few had to be asked, there is none now.
 */
static struct conn *find_clean(const struct conn *fresh, enum wire_protocol protocol,
                               msec_t now)
{
    struct evicted evicted;
    struct conn *conn;
    unsigned int asks = ASKS_AT_ONCE;

    evicted.count = 0;
    if (pool_is_dry_run())
        custody_do_due(now);
    while (asks > 0) {
        conn = pool_check_out(fresh, protocol, now, &evicted);
        discard_evicted(&evicted);
        if (!conn || conn->fd < 0 || may_be_reused(conn, now, &asks))
            return conn;
    }
    return NULL;
}

/* A draining connection on which everything has come by now. The one that has waited longest is
 * tried first. Only a few are tried: a server that has not answered those has hardly answered
 * the others. */
static struct conn *find_drained(const struct conn *fresh, enum wire_protocol protocol,
                                 msec_t now)
{
    struct evicted evicted;
    unsigned int reads = DRAIN_READS, asks = DRAINS_AT_ONCE;

    evicted.count = 0;
    for (int i = 0; i < DRAINS_AT_ONCE && reads > 0; i++) {
        struct conn *conn = pool_check_out_draining(fresh, protocol, now, &evicted);
        enum reason reason;

        discard_evicted(&evicted);
        if (!conn)
            return NULL;
        reason = drain(conn, now, &reads);
        if (drain_goes_on(reason) && pool_return(conn))
            continue;
        if (reason != REASON_NONE)
            discard(conn, reason);
        else if (may_be_reused(conn, now, &asks)) {
            stats_count(&conn->endpoint->stats->drained);
            conn->given_up_by = 0;
            return conn;
        }
    }
    return NULL;
}

/* A connection of another process of the family. */
static struct conn *find_shared(const struct conn *fresh, enum wire_protocol protocol,
                                msec_t now)
{
    unsigned int asks = DRAINS_AT_ONCE;

    while (asks > 0) {
        struct conn *conn = sharing_take(fresh, protocol, now);

        if (!conn)
            return NULL;
        if (may_be_reused(conn, now, &asks)) {
            stats_count(&conn->endpoint->stats->taken);
            return conn;
        }
    }
    return NULL;
}

struct conn *check_out_find(const struct conn *fresh, enum wire_protocol protocol, msec_t now)
{
    struct conn *conn = find_clean(fresh, protocol, now);

    /* Kept in a dry run. An operator may end that at any moment, so the record decides. */
    if (conn && conn->fd < 0) {
        pretend_to_reuse(conn, now);
        return NULL;
    }
    if (conn || pool_is_dry_run())
        return conn;
    conn = find_drained(fresh, protocol, now);
    return conn ? conn : find_shared(fresh, protocol, now);
}

/* What connect() answers on a reused connection in place of FRESH. */
static enum conn_answer answer_for(const struct conn *fresh, const void *caller)
{
    bool nonblocking = conn_flags(fresh) & O_NONBLOCK;

    return nonblocking && !callers_accept_zero(caller) ? CONN_ANSWER_CONNECTING
                                                       : CONN_ANSWER_CONNECTED;
}

/* Puts a pooled connection over FD, where FRESH is; false if there is none. If the options of
 * FRESH cannot be set on one connection, no other is tried, as they would fail there too. */
static bool check_out(struct conn *fresh, int fd, msec_t now, const void *caller)
{
    struct conn *conn = check_out_find(fresh, guess_protocol(fresh), now);
    enum reason reason;
    uint32_t epoch;

    if (!conn)
        return false;
    /* Read before the connection gets the program's fd: a child that is forked from now on may
     * have that fd, and the epoch then differs. */
    epoch = atomic_load(&fork_epoch);
    spare_save(fresh, fd);
    reason = install_over_fd(conn, fd, fresh);
    if (reason != REASON_NONE) {
        discard(conn, reason);
        return false;
    }
    conn_set_answer(fresh, answer_for(fresh, caller));
    /* Counted before: as soon as the map has the connection, another thread may close it, and
     * we must not read the record. */
    stats_count(&conn->endpoint->stats->reused);
    connect_time_saved(conn, now);
    log_line(LOG_DEBUG, "%s: reused as %d", conn->endpoint->text, fd);
    hand_to_program(conn, fd, fresh, epoch);
    return true;
}

/* False if ADDR is no address of a connection that we track. What the kernel would refuse is
 * left for it to refuse. */
static bool address_for(const struct conn *conn, struct address *address,
                        const struct sockaddr *addr, socklen_t len)
{
    return len >= sizeof(addr->sa_family) && len <= sizeof(struct sockaddr_storage) &&
           usermem_readable(addr, len) && addr->sa_family == conn->domain &&
           address_from(address, addr, len);
}

/* CONN may lead somewhere else from now on. It is not pooled, and no swap must take its place
 * at the first byte. */
static void note_reconnected(struct conn *conn)
{
    conn_refuse(conn, REASON_RECONNECTED);
    /* relaxed: an old value costs a swap */
    atomic_store_explicit(&conn->has_sent, true, memory_order_relaxed);
}

/* connect() on a socket that is connected or connecting. With the same address it asks for the
 * outcome, as is usual. With another one the connection is not pooled any more. */
static void connect_again(struct check_out *check_out, struct conn *conn,
                          const struct sockaddr *addr, socklen_t len)
{
    bool reused = conn_answer(conn) != CONN_ANSWER_KERNEL;
    struct address address;

    check_out->reused = reused ? conn : NULL;
    if (address_for(conn, &address, addr, len) &&
        address_equal(&address, &conn->endpoint->address))
        return;
    note_reconnected(conn);
    check_out->dissolves = reused && len >= sizeof(addr->sa_family) &&
                           usermem_readable(addr, sizeof(addr->sa_family)) &&
                           addr->sa_family == AF_UNSPEC;
}

static void note_opened(struct conn *conn, msec_t now)
{
    conn->connected_at = now;
    conn->expires_at = expiry(conn, now);
}

/* False, and CONN is as it was, if another thread has the lock of CONN, or if it cannot be
 * tracked. */
static bool bind_endpoint(struct conn *conn, const struct address *address, msec_t now)
{
    enum reason reason;

    if (!conn_trylock(conn))
        return false;
    reason = pool_bind_endpoint(conn, address, now);
    conn_unlock(conn);
    if (reason != REASON_NONE)
        log_line(LOG_DEBUG, "not tracked: %s (%s)", reason_name(reason), reason_text(reason));
    return reason == REASON_NONE;
}

bool check_out_bind(struct conn *conn, const struct address *address, msec_t now)
{
    note_opened(conn, now);
    return bind_endpoint(conn, address, now);
}

/* The caller has put CLOSING into the word of FD. True: a pooled connection is at FD, and CONN
 * is a spare or CLOSED. False: CONN is IN_USE and to be connected, or still FRESH and not to be
 * tracked. */
static bool try_reuse(struct conn *conn, int fd, const struct sockaddr *addr, socklen_t len,
                      const void *caller)
{
    struct address address;
    msec_t now;
    enum reason reason;

    if (!address_for(conn, &address, addr, len) ||
        !rules_match(settings->rules, settings->rule_count, &address))
        return false;
    now = clock_now();
    if (!bind_endpoint(conn, &address, now))
        return false;
    endpoint_publish(conn->endpoint);
    stats_count(&conn->endpoint->stats->connects);
    reason = verify_fresh(conn, fd);
    if (reason == REASON_NONE && check_out(conn, fd, now, caller)) {
        due_each_second(now);
        return true;
    }
    if (reason != REASON_NONE)
        conn_refuse(conn, reason);
    note_opened(conn, now);
    stats_count(&conn->endpoint->stats->opened);
    conn->rtt_pending = conn->flags & O_NONBLOCK;
    due_each_second(now);
    return false;
}

/* The first connect() on a socket; true if it was answered from the pool. If several threads
 * connect or close the fd at the same time, one goes on here and the others make the plain
 * call. */
static bool connect_fresh(struct conn *conn, int fd, const struct sockaddr *addr, socklen_t len,
                          const void *caller)
{
    uint32_t word = conn_id(conn);
    bool tracked;

    if (!fdmap_replace(fd, word, word | FDMAP_CLOSING)) {
        conn_refuse(conn, REASON_CONCURRENT);
        return false;
    }
    if (conn_state(conn) == CONN_FRESH && try_reuse(conn, fd, addr, len, caller))
        return true;
    /* The shadow fd was that of a spare; a connection of the program's own needs none yet. */
    shadow_drop(conn);
    tracked = conn_state(conn) == CONN_IN_USE;
    if (!fdmap_replace(fd, word | FDMAP_CLOSING, tracked ? word : FDMAP_NONE) || !tracked)
        conn_move(conn, CONN_CLOSED);
    return false;
}

/* Whether ERROR, of a connect(), leaves the socket connecting or connected. */
static bool connect_goes_on(int error)
{
    return error == EINPROGRESS || error == EALREADY || error == EINTR || error == EISCONN;
}

/* Sets the result of a connect() that was answered from the pool. On Linux a non-blocking
 * socket gets EINPROGRESS first. */
static bool answer(struct check_out *check_out, bool connecting)
{
    errno = connecting ? EINPROGRESS : check_out->saved;
    check_out->result = connecting ? -1 : 0;
    return true;
}

bool check_out_begin(struct check_out *check_out, int fd, uint32_t word,
                     const struct sockaddr *addr, socklen_t len, const void *caller)
{
    struct conn *conn = owner_is_this_process() ? conn_get_at(fd, word, CONN_CALL_OTHER) : NULL;
    bool reused = false, connecting = false;

    *check_out = (struct check_out){.fd = fd, .saved = errno, .tracked = conn != NULL};
    if (conn) {
        if (conn_state(conn) == CONN_FRESH) {
            reused = connect_fresh(conn, fd, addr, len, caller);
            connecting = conn_answer(conn) == CONN_ANSWER_CONNECTING;
            check_out->timed = reused || conn->rtt_pending ? NULL : conn->endpoint;
        } else if (conn->endpoint)
            connect_again(check_out, conn, addr, len);
        conn_put(conn, CONN_CALL_OTHER);
    }
    if (reused)
        return answer(check_out, connecting);
    errno = check_out->saved;
    if (check_out->timed)
        check_out->began = connect_time_now();
    return false;
}

/* The answer to a further connect() on CONN, which was reused; the kernel has given RESULT. The
 * kernel's own answer would depend on what the former users did. */
static int answer_again(const struct check_out *check_out, struct conn *conn, int result)
{
    if (result != 0 && errno != EISCONN)
        return result;
    if (check_out->dissolves) {
        conn_set_answer(conn, CONN_ANSWER_KERNEL);
        return result;
    }
    if (conn_finish_connecting(conn)) {
        errno = check_out->saved;
        return 0;
    }
    errno = EISCONN;
    return -1;
}

/* Looks the fd up again, as another thread may have closed it meanwhile. */
static int note_outcome(const struct check_out *check_out, int result)
{
    struct conn *conn = conn_get(check_out->fd, CONN_CALL_OTHER);

    if (!conn)
        return result;
    if (result != 0 && !connect_goes_on(errno)) {
        connect_time_failed(conn);
        full_note_connect(conn, errno);
        note_reconnected(conn);
    }
    if (conn == check_out->reused)
        result = answer_again(check_out, conn, result);
    conn_put(conn, CONN_CALL_OTHER);
    return result;
}

int check_out_end(const struct check_out *check_out, int result)
{
    if (check_out->timed && result == 0)
        connect_time_count(check_out->timed, connect_time_now() - check_out->began);
    else if (check_out->timed && !connect_goes_on(errno))
        connect_time_failed_at(check_out->timed);
    if (check_out->reused || (check_out->tracked && result != 0 && !connect_goes_on(errno)))
        return note_outcome(check_out, result);
    return result;
}
