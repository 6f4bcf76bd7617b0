/*
 * The sequences of check-out and check-in.
 */
#include "lending.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <string.h>
#include <unistd.h>

#include "disguise.h"
#include "fdmap.h"
#include "libc.h"
#include "log.h"
#include "pool.h"
#include "process.h"
#include "proof.h"
#include "raw.h"

static const struct config *settings;

void lending_start(const struct config *config)
{
    settings = config;
}

static void note_refused(struct conn *conn, enum reason reason)
{
    struct endpoint *endpoint = conn->endpoint;

    stats_count(&endpoint->stats.refused[reason]);
    log_line(LOG_DEBUG, "%s: not kept: %s (%s)", endpoint->text, reason_name(reason),
             reason_text(reason));
}

/* Closes a connection that nobody uses. */
static void discard(struct conn *conn, enum reason reason)
{
    struct endpoint *endpoint = conn->endpoint;

    stats_count(&endpoint->stats.discarded[reason]);
    log_line(LOG_DEBUG, "%s: discarded: %s (%s)", endpoint->text, reason_name(reason),
             reason_text(reason));
    if (conn->fd >= 0 && fdmap_replace(conn->fd, conn_slot(conn) | FDMAP_PRIVATE, FDMAP_NONE))
        libc_close_quietly(conn->fd);
    conn_move(conn, CONN_CLOSED);
}

static void discard_all(struct victims *victims)
{
    for (size_t i = 0; i < victims->count; i++)
        discard(victims->conn[i], victims->reason[i]);
    victims->count = 0;
}

/* Up to a tenth of the lifetime less, different for each connection, so that connections opened
 * together do not all end together. */
static msec_t expiry(const struct conn *conn, msec_t now)
{
    uint64_t mixed = (conn->cookie + (uint64_t)now) * UINT64_C(0x9e3779b97f4a7c15);
    msec_t tenth = settings->max_lifetime / 10;

    return now + settings->max_lifetime - (msec_t)((mixed >> 32) * (uint64_t)tenth >> 32);
}

/* The pooled connection takes the number and the place of the fresh socket. */
static void hand_over(struct conn *conn, int fd, struct conn *fresh, uint32_t children)
{
    int private_fd = conn->fd;

    conn->fd = fd;
    conn->children = children;
    conn->options = fresh->options;
    conn->watch_count = fresh->watch_count;
    for (unsigned int i = 0; i < fresh->watch_count; i++)
        conn->watches[i] = fresh->watches[i];
    conn_move(conn, CONN_IN_USE);
    if (fdmap_replace(private_fd, conn_slot(conn) | FDMAP_PRIVATE, FDMAP_NONE))
        libc_close_quietly(private_fd);
    /* Another thread may have closed the number meanwhile, and it names something new. */
    if (!fdmap_replace(fd, conn_slot(fresh) | FDMAP_CLOSING, conn_slot(conn)))
        conn_move(conn, CONN_CLOSED);
    conn_move(fresh, CONN_CLOSED);
}

static void pretend_to_lend(struct conn *conn)
{
    stats_count(&conn->endpoint->stats.reused);
    log_line(LOG_DEBUG, "%s: would be reused", conn->endpoint->text);
    conn_move(conn, CONN_CLOSED);
}

/* Stale connections are passed over; one that cannot take on the looks of FRESH ends the
 * search, as the next could not either. */
static bool check_out(struct conn *fresh, int fd, msec_t now)
{
    struct victims victims = {.count = 0};
    enum reason reason = REASON_NONE;
    struct conn *conn;
    uint32_t children;

    do {
        conn = pool_take(fresh, now, &victims);
        discard_all(&victims);
        if (!conn)
            return false;
        if (settings->dry_run) {
            pretend_to_lend(conn);
            return false;
        }
        /* Read before the connection gets its number: a child made from now on may have it. */
        children = atomic_load(&process_children);
        reason = proof_check_out(conn, fresh);
        if (reason != REASON_NONE)
            discard(conn, reason);
    } while (reason != REASON_NONE);
    reason = disguise_put_on(conn, fd, fresh);
    if (reason != REASON_NONE) {
        discard(conn, reason);
        return false;
    }
    /* Counted first: once handed over, another thread may close it, and it is not ours. */
    stats_count(&conn->endpoint->stats.reused);
    log_line(LOG_DEBUG, "%s: reused as %d", conn->endpoint->text, fd);
    hand_over(conn, fd, fresh, children);
    return true;
}

static bool matches(struct address *address, const struct sockaddr *addr, socklen_t len)
{
    return address_from(address, addr, len) &&
           rules_match(settings->rules, settings->rule_count, address);
}

/* connect() on a socket that is connected or connecting: asking for the outcome is usual,
 * another peer is the end of pooling. */
static void connect_again(struct conn *conn, const struct sockaddr *addr, socklen_t len)
{
    struct address address;

    if (!address_from(&address, addr, len) ||
        !address_equal(&address, &conn->endpoint->address))
        conn_refuse(conn, REASON_RECONNECTED);
}

static bool enlist(struct conn *conn, const struct address *address, msec_t now)
{
    enum reason reason;

    if (!conn_hold(conn))
        return false;
    conn->euid = geteuid();
    conn->connected_at = now;
    conn->expires_at = expiry(conn, now);
    reason = pool_enlist(conn, address, now);
    conn_let_go(conn);
    if (reason != REASON_NONE)
        log_line(LOG_DEBUG, "not tracked: %s (%s)", reason_name(reason), reason_text(reason));
    return reason == REASON_NONE;
}

static bool connect_claimed(struct conn *conn, int fd, const struct sockaddr *addr,
                            socklen_t len)
{
    struct address address;
    msec_t now;
    enum reason reason;

    if (!matches(&address, addr, len))
        return false;
    now = clock_now();
    pool_note_limits(now, false);
    if (!enlist(conn, &address, now))
        return false;
    stats_count(&conn->endpoint->stats.connects);
    reason = proof_fresh(conn, fd);
    if (reason == REASON_NONE && check_out(conn, fd, now))
        return true;
    if (reason != REASON_NONE)
        conn_refuse(conn, reason);
    stats_count(&conn->endpoint->stats.opened);
    return false;
}

/* The first connect() on a socket. True when it was answered from the pool. Of two threads that
 * connect or close it at once, one has it to himself, and the other makes the plain call. */
static bool connect_fresh(struct conn *conn, int fd, const struct sockaddr *addr, socklen_t len)
{
    uint32_t slot = conn_slot(conn);
    bool lent, tracked;

    if (!fdmap_replace(fd, slot, slot | FDMAP_CLOSING)) {
        conn_refuse(conn, REASON_CONCURRENT);
        return false;
    }
    lent = conn_state(conn) == CONN_FRESH && connect_claimed(conn, fd, addr, len);
    if (lent)
        return true;
    tracked = conn_state(conn) == CONN_IN_USE;
    if (!fdmap_replace(fd, slot | FDMAP_CLOSING, tracked ? slot : FDMAP_NONE) || !tracked)
        conn_move(conn, CONN_CLOSED);
    return false;
}

static bool connect_goes_on(int error)
{
    return error == EINPROGRESS || error == EALREADY || error == EINTR || error == EISCONN;
}

int lending_connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct conn *conn;
    bool lent = false;
    int saved = errno;
    int result;

    pthread_testcancel();
    conn = process_is_owner() ? conn_enter(fd, CONN_CALL_OTHER) : NULL;
    if (conn) {
        if (conn_state(conn) == CONN_FRESH)
            lent = connect_fresh(conn, fd, addr, len);
        else if (conn->endpoint)
            connect_again(conn, addr, len);
        conn_leave(conn, CONN_CALL_OTHER);
    }
    errno = saved;
    if (lent)
        return 0;
    result = real_connect(fd, addr, len);
    if (result != 0 && conn && !connect_goes_on(errno)) {
        saved = errno;
        conn = conn_enter(fd, CONN_CALL_OTHER);
        if (conn) {
            conn_refuse(conn, REASON_RECONNECTED);
            conn_leave(conn, CONN_CALL_OTHER);
        }
        errno = saved;
    }
    return result;
}

static enum reason take_private_number(struct check_in *check_in)
{
    long fd = raw_syscall(SYS_fcntl, check_in->fd, F_DUPFD_CLOEXEC, pool_private_base());

    if (fd < 0)
        return REASON_FD_PRESSURE;
    if (fd >= FDMAP_SIZE) {
        libc_close_quietly((int)fd);
        return REASON_FD_PRESSURE;
    }
    check_in->private_fd = (int)fd;
    fdmap_exchange((int)fd, conn_slot(check_in->conn) | FDMAP_PRIVATE);
    return REASON_NONE;
}

static enum reason prepare_to_keep(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    msec_t now = clock_now();
    enum reason reason;

    pool_note_limits(now, false);
    check_in->calls = conn_calls_begun(conn);
    reason = proof_check_in(conn, check_in->fd, now);
    if (reason != REASON_NONE || settings->dry_run)
        return reason;
    reason = disguise_take_off(conn, check_in->fd);
    if (reason != REASON_NONE)
        return reason;
    return take_private_number(check_in);
}

bool lending_check_in_begin(struct check_in *check_in, int fd)
{
    uint32_t slot = fdmap_get(fd);
    struct conn *conn = conn_of_slot(slot);
    enum reason reason;
    int saved = errno;

    if (!conn || slot & (FDMAP_CLOSING | FDMAP_PRIVATE) || !process_is_owner() ||
        !fdmap_replace(fd, slot, slot | FDMAP_CLOSING))
        return false;
    *check_in = (struct check_in){.conn = conn, .fd = fd, .private_fd = -1, .slot = slot};
    if (conn_state(conn) == CONN_IN_USE) {
        conn_move(conn, CONN_LEAVING);
        reason = prepare_to_keep(check_in);
        errno = saved;
        if (reason == REASON_NONE) {
            pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &check_in->cancel_state);
            return true;
        }
        note_refused(conn, reason);
    }
    fdmap_replace(fd, slot | FDMAP_CLOSING, FDMAP_NONE);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
    return false;
}

void lending_check_in_end(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    struct victims victims = {.count = 0};
    enum reason reason = REASON_IN_FLIGHT;
    msec_t now = clock_now();
    int saved = errno;

    /* Up to here a call of another thread on the number could still reach this connection. */
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    conn->fd = check_in->private_fd;
    if (conn_calls_begun(conn) == check_in->calls) {
        if (wire_shows_no_auth(&conn->wire))
            atomic_store(&conn->endpoint->no_auth_at, now);
        stats_count(&conn->endpoint->stats.checked_in);
        log_line(LOG_DEBUG, "%s: kept", conn->endpoint->text);
        reason = pool_put(conn, now, &victims);
    }
    if (reason != REASON_NONE)
        discard(conn, reason);
    discard_all(&victims);
    pthread_setcancelstate(check_in->cancel_state, NULL);
    errno = saved;
}

void lending_lose_private(struct conn *conn, int fd)
{
    conn = pool_take_private(conn, fd);
    if (!conn)
        return;
    conn->fd = -1;
    discard(conn, REASON_SWEPT);
}

void lending_drop(struct conn *conn, enum reason reason)
{
    if (conn->endpoint)
        note_refused(conn, reason);
    conn_move(conn, CONN_CLOSED);
}

bool lending_flush(enum reason reason)
{
    struct victims victims;
    bool any = false;
    int saved = errno;

    do {
        victims.count = 0;
        pool_flush(reason, &victims);
        any |= victims.count > 0;
        if (victims.count < POOL_VICTIMS) {
            discard_all(&victims);
            break;
        }
        discard_all(&victims);
    } while (true);
    errno = saved;
    return any;
}

/* Whether the tables will be whole in the child of the fork under way. Written and read by the
 * forking thread, under the pool's lock. */
static bool tables_are_whole;

void lending_before_fork(void)
{
    bool locked = process_is_owner() && pool_before_fork();

    if (locked)
        tables_are_whole = true;
    atomic_fetch_add(&process_children, 1);
}

void lending_after_fork_in_parent(void)
{
    if (tables_are_whole) {
        tables_are_whole = false;
        pool_after_fork_in_parent();
    }
}

void lending_after_fork_in_child(void)
{
    if (!tables_are_whole)
        return;
    tables_are_whole = false;
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t slot = fdmap_get(fd);

        if (slot & FDMAP_PRIVATE && !(slot & FDMAP_EPOLL)) {
            fdmap_exchange(fd, FDMAP_NONE);
            libc_close_quietly(fd);
        }
    }
    conn_forget_other_threads();
    pool_after_fork_in_child();
    process_adopt();
}
