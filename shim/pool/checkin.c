/*
 * The sequence of check-in.
 */
#include "pool/checkin.h"

#include <errno.h>
#include <fcntl.h>

#include "conn/oneshot.h"
#include "conn/epoll_reg.h"
#include "conn/fdmap.h"
#include "conn/limits.h"
#include "pool/discard.h"
#include "stats/log.h"
#include "pool/pool.h"
#include "base/owner.h"
#include "pool/verify.h"
#include "base/rawsys.h"
#include "pool/drain.h"
#include "conn/shadow.h"

/* A connection that was reused has one already. */
static enum reason make_shadow(struct check_in *check_in)
{
    if (check_in->shadow_fd < 0) {
        shadow_make(check_in->conn, check_in->fd);
        check_in->shadow_fd = shadow_claim(check_in->conn);
    }
    return check_in->shadow_fd < 0 ? REASON_FD_PRESSURE : REASON_NONE;
}

static void give_up_shadow(struct check_in *check_in)
{
    int fd = check_in->shadow_fd;

    check_in->shadow_fd = -1;
    if (fd >= 0)
        shadow_close(check_in->conn, fd);
}

static enum reason prepare_to_keep(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    msec_t now = clock_now();
    enum reason reason;

    limits_note(now, false);
    check_in->now = now;
    check_in->calls = conn_calls_begun(conn);
    check_in->shadow_fd = shadow_claim(conn);
    reason = verify_for_idle(conn, check_in->fd, check_in->shadow_fd, now);
    if (pool_is_dry_run())
        return reason == REASON_NONE ? wire_refusal(&conn->wire) : reason;
    if (reason == REASON_NONE)
        reason = make_shadow(check_in);
    if (reason != REASON_NONE)
        return reason;
    check_in->watched = conn->epoll_regs.count;
    return epoll_reg_unregister_all(conn, check_in->fd);
}

/* One of several fds is gone. Two that are closed at once each find the other there, and the
 * connection has ended for good. */
static void drop_duplicate(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;

    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    if (!conn_unshare(conn))
        return;
    discard_note_refused(conn, REASON_DUPLICATED);
    conn_move(conn, CONN_CLOSED);
}

/* Whether the fd is closed by now is not known. */
static void abandoned_duplicate(void *argument)
{
    struct check_in *check_in = argument;

    conn_refuse(check_in->conn, REASON_ABANDONED);
    drop_duplicate(check_in);
}

/* The record and its private number go; the application's number, whether it is closed by now
 * or not, is the application's. Nothing was changed that others would wait for: the state of
 * cancellation is the thread's own, as a jump would not bring it back. */
static void abandoned(void *argument)
{
    struct check_in *check_in = argument;
    struct conn *conn = check_in->conn;

    give_up_shadow(check_in);
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    discard_note_refused(conn, REASON_ABANDONED);
    conn_move(conn, CONN_CLOSED);
}

bool check_in_begin(struct check_in *check_in, int fd, uint32_t slot)
{
    struct conn *conn = conn_of_word(slot);
    enum reason reason;
    int saved = errno;

    *check_in = (struct check_in){
        .conn = conn, .fd = fd, .shadow_fd = -1, .slot = slot, .refusal = REASON_IN_FLIGHT};
    if (!conn || slot & (FDMAP_CLOSING | FDMAP_SHADOW) || !owner_is_this_process() ||
        !fdmap_replace(fd, slot, slot | FDMAP_CLOSING))
        return false;
    if (conn_state(conn) == CONN_IN_USE && !conn_claim_last(conn)) {
        check_in->duplicated = true;
        _pthread_cleanup_push(&check_in->left, abandoned_duplicate, check_in);
        errno = saved;
        return true;
    }
    if (conn_state(conn) == CONN_IN_USE) {
        _pthread_cleanup_push(&check_in->left, abandoned, check_in);
        conn_move(conn, CONN_CHECKING_IN);
        reason = prepare_to_keep(check_in);
        errno = saved;
        if (reason == REASON_NONE)
            return true;
        _pthread_cleanup_pop(&check_in->left, 0);
        discard_note_refused(conn, reason);
        if (!conn_calls_in_flight(conn))
            check_in->refusal = reason;
        give_up_shadow(check_in);
        stats_write_if_due(check_in->now);
    }
    shadow_drop(conn);
    check_in->forgotten = fdmap_replace(fd, slot | FDMAP_CLOSING, FDMAP_NONE);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
    return false;
}

/* From here on the connection has no user, and its bytes are ours to read. */
static enum reason keep(struct conn *conn, msec_t now, struct evicted *evicted)
{
    bool clean = wire_verdict(&conn->wire) == WIRE_CLEAN;
    enum reason reason;

    /* It may be closed in another thread's call, by exec() or in a child, which must not wait
     * for what its last user left unsent. */
    if (conn->fd >= 0 && !sockopts_stop_lingering(conn->fd, &conn->options))
        return REASON_OPTION_FAILED;
    reason = clean ? REASON_NONE : drain_begin(conn, now);
    if (reason != REASON_NONE)
        return reason;
    if (wire_shows_no_auth(&conn->wire))
        atomic_store_explicit(&conn->endpoint->no_auth_at, now, memory_order_relaxed);
    stats_count(&conn->endpoint->stats->kept);
    log_line(LOG_DEBUG, "%s: kept%s", conn->endpoint->text, clean ? "" : ", draining");
    return pool_check_in(conn, clean ? CONN_IDLE : CONN_DRAINING, now, evicted);
}

void check_in_end(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    struct evicted evicted;
    enum reason reason = REASON_IN_FLIGHT;
    int saved = errno;

    evicted.count = 0;
    _pthread_cleanup_pop(&check_in->left, 0);
    if (check_in->duplicated) {
        drop_duplicate(check_in);
        errno = saved;
        return;
    }
    /* Up to here a call of another thread on the number could still reach this connection. */
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    conn->fd = check_in->shadow_fd;
    if (conn_calls_begun(conn) == check_in->calls)
        reason = keep(conn, check_in->now, &evicted);
    if (reason != REASON_NONE)
        discard(conn, reason);
    discard_evicted(&evicted);
    stats_write_if_due(check_in->now);
    errno = saved;
}

void check_in_call_off(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    int saved = errno;

    _pthread_cleanup_pop(&check_in->left, 0);
    if (check_in->duplicated) {
        conn_refuse(conn, REASON_DUPLICATED);
        fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, check_in->slot);
        errno = saved;
        return;
    }
    conn->epoll_regs.count = check_in->watched;
    epoll_reg_replay(check_in->fd, &conn->epoll_regs);
    give_up_shadow(check_in);
    fdmap_replace(check_in->fd, check_in->slot | FDMAP_CLOSING, FDMAP_NONE);
    discard_note_refused(conn, REASON_OTHER_SOCKET);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
}

static bool take_place(int fd, int stand_in)
{
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFD);

    return flags >= 0 &&
           raw_syscall(SYS_dup3, stand_in, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) == fd;
}

/* Registrations that are to be made again for another file at their fd, and those that have
 * fired. */
struct moving {
    struct epoll_regs again;
    struct epoll_regs fired;
    uint64_t calls; /* begun on the connection when they were looked at */
};

static bool sort_reg(struct moving *moving, int fd, const struct epoll_reg *watch)
{
    enum oneshot fired = ONESHOT_ARMED;

    if (watch->events & EPOLLEXCLUSIVE)
        return false;
    if (watch->events & EPOLLONESHOT && owner_refusal() != REASON_NONE)
        return false;
    if (watch->events & EPOLLONESHOT)
        fired = oneshot_ask(watch->epfd, fd);
    if (fired == ONESHOT_FIRED)
        moving->fired.list[moving->fired.count++] = *watch;
    else
        moving->again.list[moving->again.count++] = *watch;
    return fired != ONESHOT_UNKNOWN;
}

/* A one-shot registration that has fired cannot be made: a new one is armed. Where it is not
 * enough to remember it (conn/oneshot.h) IS_GOODBYE is false. */
static bool can_be_moved(struct moving *moving, int fd, const struct epoll_regs *watches,
                         bool is_goodbye)
{
    for (unsigned int i = 0; i < watches->count; i++) {
        if (!is_goodbye && watches->list[i].events & EPOLLONESHOT)
            return false;
        if (!sort_reg(moving, fd, &watches->list[i]))
            return false;
    }
    return true;
}

/* Another thread may have armed one after it was looked at and before it was taken off: then
 * the record has it. A thread that has not got there yet finds it noted here. */
static void remember_fired(struct conn *conn, int fd, const struct moving *moving)
{
    for (unsigned int i = 0; i < moving->fired.count; i++)
        oneshot_note(moving->fired.list[i].epfd, fd);
    if (moving->fired.count > 0 && conn_calls_begun(conn) != moving->calls &&
        conn_trylock(conn)) {
        epoll_reg_replay(fd, &conn->epoll_regs);
        conn_unlock(conn);
    }
}

/* False when they cannot be registered again for another socket, or other fds name this one. */
static bool copy_epoll_regs(int fd, uint32_t word, struct moving *moving, bool is_goodbye)
{
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    bool copied = false;

    if (!conn)
        return false;
    if (!conn_is_shared(conn) && conn_trylock(conn)) {
        moving->again.count = moving->fired.count = 0;
        moving->calls = conn_calls_begun(conn);
        copied = can_be_moved(moving, fd, &conn->epoll_regs, is_goodbye);
        conn_unlock(conn);
        if (!copied)
            conn_refuse(conn, REASON_EPOLL_MODE);
    }
    conn_put(conn, CONN_CALL_OTHER);
    return copied;
}

/* A copy of the old socket in another process would go on reporting events. */
static void end_epoll_regs(int fd, const struct epoll_regs *watches)
{
    struct epoll_event ignored = {0};

    for (unsigned int i = 0; i < watches->count; i++)
        raw_syscall(SYS_epoll_ctl, watches->list[i].epfd, EPOLL_CTL_DEL, fd, &ignored);
}

static bool put_instead(int fd, int stand_in, const struct epoll_regs *watches)
{
    end_epoll_regs(fd, watches);
    if (take_place(fd, stand_in)) {
        epoll_reg_replay(fd, watches);
        return true;
    }
    epoll_reg_replay(fd, watches);
    return false;
}

/* ANYWAY: also where the connection is not kept. REASON_NONE when STAND_IN is at FD. */
static enum reason put_behind(int fd, uint32_t word, int stand_in, bool anyway)
{
    struct check_in check_in;
    struct moving moving;

    if (!copy_epoll_regs(fd, word, &moving, !anyway))
        return REASON_EPOLL_MODE;
    if (!check_in_begin(&check_in, fd, word)) {
        if (anyway && check_in.refusal != REASON_IN_FLIGHT &&
            put_instead(fd, stand_in, &moving.again))
            return REASON_NONE;
        return check_in.refusal;
    }
    if (check_in.duplicated) {
        check_in_call_off(&check_in);
        return REASON_DUPLICATED;
    }
    if (check_in.shadow_fd < 0) {
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
    epoll_reg_replay(fd, &moving.again);
    remember_fired(check_in.conn, fd, &moving);
    check_in_end(&check_in);
    return REASON_NONE;
}

bool check_in_behind(int fd, uint32_t word, int stand_in)
{
    return put_behind(fd, word, stand_in, false) == REASON_NONE;
}

static bool find_duplicates(int fd, uint32_t word, struct check_in_moved *found)
{
    for (int other = 0; other < fdmap_end(); other++) {
        if (other == fd || fdmap_get(other) != word)
            continue;
        if (found->count == CHECK_IN_MOVED_MOST)
            return false;
        found->fds[found->count++] = other;
    }
    return true;
}

static bool replace_duplicate(int fd, uint32_t word, int stand_in)
{
    struct check_in check_in;
    bool replaced;

    if (!check_in_begin(&check_in, fd, word))
        return false;
    replaced = check_in.duplicated && take_place(fd, stand_in);
    if (replaced)
        check_in_end(&check_in);
    else
        check_in_call_off(&check_in);
    return replaced;
}

bool check_in_duplicates(int fd, uint32_t word, int stand_in, struct check_in_moved *moved)
{
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    struct check_in_moved found = {.count = 0};
    bool all;

    if (!conn)
        return false;
    all = !conn_is_shared(conn) || find_duplicates(fd, word, &found);
    conn_put(conn, CONN_CALL_OTHER);
    for (unsigned int i = 0; all && i < found.count; i++) {
        all = replace_duplicate(found.fds[i], word, stand_in);
        if (all)
            moved->fds[moved->count++] = found.fds[i];
    }
    return all;
}

enum reason check_in_swap(int fd, uint32_t word, int stand_in)
{
    return put_behind(fd, word, stand_in, true);
}
