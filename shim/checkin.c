/*
 * The sequence of check-in.
 */
#include "checkin.h"

#include <errno.h>
#include <fcntl.h>

#include "disguise.h"
#include "fdmap.h"
#include "lending.h"
#include "libc.h"
#include "log.h"
#include "pool.h"
#include "process.h"
#include "proof.h"
#include "raw.h"
#include "settle.h"
#include "twin.h"

static enum reason take_private_number(struct check_in *check_in)
{
    twin_make(check_in->conn, check_in->fd);
    check_in->private_fd = twin_take(check_in->conn);
    return check_in->private_fd < 0 ? REASON_FD_PRESSURE : REASON_NONE;
}

static void give_up_private_number(struct check_in *check_in)
{
    int fd = check_in->private_fd;

    check_in->private_fd = -1;
    twin_close(check_in->conn, fd);
}

static enum reason prepare_to_keep(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    msec_t now = clock_now();
    enum reason reason;

    pool_note_limits(now, false);
    check_in->now = now;
    check_in->calls = conn_calls_begun(conn);
    reason = proof_check_in(conn, check_in->fd, now);
    if (lending_is_dry_run())
        return reason == REASON_NONE ? wire_refusal(&conn->wire) : reason;
    if (reason == REASON_NONE)
        reason = take_private_number(check_in);
    if (reason != REASON_NONE)
        return reason;
    check_in->watched = conn->watches.count;
    reason = disguise_take_off(conn, check_in->fd);
    if (reason != REASON_NONE)
        give_up_private_number(check_in);
    return reason;
}

/* The record and its private number go; the application's number, whether it is closed by now
 * or not, is the application's. Nothing was changed that others would wait for: the state of
 * cancellation is the thread's own, as a jump would not bring it back. */
static void abandoned(void *argument)
{
    struct check_in *check_in = argument;
    struct conn *conn = check_in->conn;

    if (check_in->private_fd >= 0)
        give_up_private_number(check_in);
    twin_drop(conn);
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    lending_note_refused(conn, REASON_ABANDONED);
    conn_move(conn, CONN_CLOSED);
}

bool check_in_begin(struct check_in *check_in, int fd)
{
    uint32_t slot = fdmap_get(fd);
    struct conn *conn = conn_of_slot(slot);
    enum reason reason;
    int saved = errno;

    *check_in = (struct check_in){
        .conn = conn, .fd = fd, .private_fd = -1, .slot = slot, .refusal = REASON_IN_FLIGHT};
    if (!conn || slot & (FDMAP_CLOSING | FDMAP_PRIVATE) || !process_is_owner() ||
        !fdmap_replace(fd, slot, slot | FDMAP_CLOSING))
        return false;
    if (conn_state(conn) == CONN_IN_USE) {
        _pthread_cleanup_push(&check_in->left, abandoned, check_in);
        conn_move(conn, CONN_LEAVING);
        reason = prepare_to_keep(check_in);
        errno = saved;
        if (reason == REASON_NONE)
            return true;
        _pthread_cleanup_pop(&check_in->left, 0);
        lending_note_refused(conn, reason);
        if (!conn_calls_under_way(conn))
            check_in->refusal = reason;
        stats_write_if_due(check_in->now);
    }
    twin_drop(conn);
    fdmap_replace(fd, slot | FDMAP_CLOSING, FDMAP_NONE);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
    return false;
}

/* From here on the connection has no user, and its bytes are ours to read. */
static enum reason keep(struct conn *conn, msec_t now, struct victims *victims)
{
    bool clean = wire_verdict(&conn->wire) == WIRE_CLEAN;
    enum reason reason;

    /* It may be closed in another's call, by exec() or in a child, which must not wait for what
     * its last user left unsent. */
    if (conn->fd >= 0 && !options_stop_lingering(conn->fd, &conn->options))
        return REASON_OPTION_FAILED;
    reason = clean ? REASON_NONE : settle_begin(conn, now);
    if (reason != REASON_NONE)
        return reason;
    if (wire_shows_no_auth(&conn->wire))
        atomic_store_explicit(&conn->endpoint->no_auth_at, now, memory_order_relaxed);
    stats_count(&conn->endpoint->stats->kept);
    log_line(LOG_DEBUG, "%s: kept%s", conn->endpoint->text, clean ? "" : ", owing");
    return pool_put(conn, clean ? CONN_IDLE : CONN_OWING, now, victims);
}

void check_in_end(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    struct victims victims;
    enum reason reason = REASON_IN_FLIGHT;
    int saved = errno;

    victims.count = 0;
    _pthread_cleanup_pop(&check_in->left, 0);
    /* Up to here a call of another thread on the number could still reach this connection. */
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    conn->fd = check_in->private_fd;
    if (conn_calls_begun(conn) == check_in->calls)
        reason = keep(conn, check_in->now, &victims);
    if (reason != REASON_NONE)
        lending_discard(conn, reason);
    lending_discard_all(&victims);
    stats_write_if_due(check_in->now);
    errno = saved;
}

void check_in_call_off(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    int saved = errno;

    _pthread_cleanup_pop(&check_in->left, 0);
    conn->watches.count = check_in->watched;
    disguise_replay_watches(check_in->fd, &conn->watches);
    give_up_private_number(check_in);
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    lending_note_refused(conn, REASON_OTHER_SOCKET);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
}

static bool take_place(int fd, int stand_in)
{
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFD);

    return flags >= 0 &&
           raw_syscall(SYS_dup3, stand_in, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) == fd;
}

/* A one-shot registration may be disarmed already, and a new one would be armed. */
static bool can_be_moved(const struct watches *watches)
{
    for (unsigned int i = 0; i < watches->count; i++) {
        if (watches->list[i].events & (EPOLLONESHOT | EPOLLEXCLUSIVE))
            return false;
    }
    return true;
}

/* False when they cannot be registered again for another socket. */
static bool copy_watches(int fd, struct watches *watches)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);
    bool copied = false;

    if (!conn)
        return false;
    if (conn_hold(conn)) {
        *watches = conn->watches;
        copied = can_be_moved(watches);
        conn_let_go(conn);
        if (!copied)
            conn_refuse(conn, REASON_EPOLL_MODE);
    }
    conn_leave(conn, CONN_CALL_OTHER);
    return copied;
}

/* A copy of the old socket in another process would go on reporting events. */
static void end_watches(int fd, const struct watches *watches)
{
    struct epoll_event ignored = {0};

    for (unsigned int i = 0; i < watches->count; i++)
        raw_syscall(SYS_epoll_ctl, watches->list[i].epfd, EPOLL_CTL_DEL, fd, &ignored);
}

static bool put_instead(int fd, int stand_in, const struct watches *watches)
{
    end_watches(fd, watches);
    if (take_place(fd, stand_in)) {
        disguise_replay_watches(fd, watches);
        return true;
    }
    disguise_replay_watches(fd, watches);
    return false;
}

/* ANYWAY: also where the connection is not kept. REASON_NONE when STAND_IN is at FD. */
static enum reason put_behind(int fd, int stand_in, bool anyway)
{
    struct check_in check_in;
    struct watches watches;

    if (!copy_watches(fd, &watches))
        return REASON_EPOLL_MODE;
    if (!check_in_begin(&check_in, fd)) {
        if (anyway && check_in.refusal != REASON_IN_FLIGHT &&
            put_instead(fd, stand_in, &watches))
            return REASON_NONE;
        return check_in.refusal;
    }
    if (check_in.private_fd < 0) {
        check_in_end(&check_in);
        return REASON_FD_PRESSURE;
    }
    /* What is exchanged was lent clean and not spoken on: another thread has just sent. */
    if (anyway && wire_verdict(&check_in.conn->wire) != WIRE_CLEAN) {
        check_in_call_off(&check_in);
        return REASON_IN_FLIGHT;
    }
    if (!take_place(fd, stand_in)) {
        check_in_call_off(&check_in);
        return REASON_OTHER_SOCKET;
    }
    disguise_replay_watches(fd, &watches);
    check_in_end(&check_in);
    return REASON_NONE;
}

bool check_in_behind(int fd, int stand_in)
{
    return put_behind(fd, stand_in, false) == REASON_NONE;
}

enum reason check_in_exchange(int fd, int stand_in)
{
    return put_behind(fd, stand_in, true);
}
