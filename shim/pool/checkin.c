/*
 * The sequence of check-in, and the stand-in that takes the fd at a quit or a swap.
 *
 * During the check-in the word in the map has CLOSING, so no other thread ends the connection
 * (see concurrency.md, 1). Another thread may still begin a call on the same fd. Such calls are
 * counted: if one was begun, the connection is not kept.
 */
#include "pool/checkin.h"

#include <errno.h>
#include <fcntl.h>

#include "conn/oneshot.h"
#include "conn/epoll_reg.h"
#include "conn/fdmap.h"
#include "conn/limits.h"
#include "pool/discard.h"
#include "pool/full.h"
#include "pool/life.h"
#include "stats/log.h"
#include "stats/mode.h"
#include "pool/due.h"
#include "pool/pool.h"
#include "pool/sharing.h"
#include "base/owner.h"
#include "pool/verify.h"
#include "base/compiler.h"
#include "base/rawsys.h"
#include "pool/drain.h"
#include "conn/shadow.h"

/* A connection that was reused has a shadow fd already. */
COLD static enum reason make_shadow(struct check_in *check_in)
{
    shadow_make(check_in->conn, check_in->fd);
    check_in->shadow_fd = shadow_claim(check_in->conn);
    return check_in->shadow_fd < 0 ? REASON_FD_PRESSURE : REASON_NONE;
}

static void close_shadow(struct check_in *check_in)
{
    int fd = check_in->shadow_fd;

    check_in->shadow_fd = -1;
    if (fd >= 0)
        shadow_close(check_in->conn, fd);
}

/* Not kept for REASON, or in a dry run. It has a shadow fd if the dry run began meanwhile.
 * Without it the pool knows that this was only counted, should the dry run end before
 * check_in_end(). */
COLD static enum reason prepare_to_count(struct check_in *check_in, enum reason reason)
{
    close_shadow(check_in);
    return reason == REASON_NONE ? wire_refusal(&check_in->conn->wire) : reason;
}

/* Does all that must be done while the program's fd is still open. REASON_NONE, or why the
 * connection is not kept. How many calls were begun is read before verification looks for calls
 * in flight. So check_in_end() finds each call that was begun later. */
ALWAYS_INLINE enum reason prepare_to_keep(struct check_in *check_in, struct conn *conn)
{
    msec_t now = clock_now();
    enum reason reason;

    limits_note(now);
    check_in->now = now;
    check_in->calls = conn_calls_begun(conn);
    check_in->shadow_fd = shadow_claim(conn);
    reason = verify_for_idle(conn, check_in->fd, check_in->shadow_fd, now, &check_in->clean);
    if (!mode_is_plain() && pool_is_dry_run())
        return prepare_to_count(check_in, reason);
    if (reason == REASON_NONE && __builtin_expect(check_in->shadow_fd < 0, 0))
        reason = make_shadow(check_in);
    if (reason != REASON_NONE)
        return reason;
    check_in->unregistered = conn->epoll_regs.count;
    return epoll_reg_unregister_all(conn, check_in->fd);
}

/* One of several fds is gone. The last one is not counted here, unless the last two are closed
 * at the same time: then neither thread finds its fd to be the last at check_in_begin(). Such a
 * connection is not kept, and its record goes here. */
static void drop_duplicate(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;

    fdmap_replace(check_in->fd, check_in->word | FDMAP_CLOSING, FDMAP_NONE);
    if (!conn_unshare(conn))
        return;
    discard_note_refused(conn, REASON_DUPLICATED);
    conn_move(conn, CONN_CLOSED);
}

/* The real call on a duplicate did not return: we do not know whether its fd is closed. */
static void abandoned_duplicate(void *argument)
{
    struct check_in *check_in = argument;

    conn_refuse(check_in->conn, REASON_ABANDONED);
    drop_duplicate(check_in);
}

/* The real call did not return: the record and the shadow fd are given up. Whether the
 * program's fd is closed is unknown, but that is the program's affair. There is no cancellation
 * state to restore: the sequence does not change it, as a jump would skip the restoring. If the
 * call has returned, a signal handler has jumped out of check_in_end(). */
static void abandoned(void *argument)
{
    struct check_in *check_in = argument;
    struct conn *conn = check_in->conn;

    if (check_in->covered)
        pool_abandon();
    if (check_in->returned)
        return;
    close_shadow(check_in);
    fdmap_replace(check_in->fd, check_in->word | FDMAP_CLOSING, FDMAP_NONE);
    discard_note_refused(conn, REASON_ABANDONED);
    conn_move(conn, CONN_CLOSED);
}

/* CONN, which the program closes at FD, is not kept for REASON. */
COLD static void note_refused(struct conn *conn, int fd, enum reason reason, msec_t now)
{
    full_note_refused(conn, now);
    life_note_left(conn, fd, now);
    discard_note_refused(conn, reason);
}

/* The connection of CHECK_IN has other fds as well. */
COLD static bool begin_duplicate(struct check_in *check_in)
{
    check_in->duplicated = true;
    _pthread_cleanup_push(&check_in->cleanup, abandoned_duplicate, check_in);
    return true;
}

/* CHECK_IN ends here: FD, whose word has CLOSING, has no connection, or one that is not kept
 * for REASON. */
COLD static bool give_up(struct check_in *check_in, enum reason reason)
{
    struct conn *conn = check_in->conn;
    int saved = errno;

    check_in->refusal = REASON_IN_FLIGHT;
    if (reason != REASON_NONE) {
        _pthread_cleanup_pop(&check_in->cleanup, 0);
        note_refused(conn, check_in->fd, reason, check_in->now);
        if (!conn_calls_in_flight(conn))
            check_in->refusal = reason;
        close_shadow(check_in);
        due_each_second(check_in->now);
    }
    shadow_drop(conn);
    check_in->forgotten =
        fdmap_replace(check_in->fd, check_in->word | FDMAP_CLOSING, FDMAP_NONE);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
    return false;
}

INLINED bool check_in_begin(struct check_in *check_in, int fd, uint32_t word)
{
    struct conn *conn;
    enum reason reason;

    check_in->duplicated = check_in->returned = check_in->covered = false;
    if (!conn_is_plain(word) || !owner_is_this_process() ||
        !fdmap_replace(fd, word, word | FDMAP_CLOSING)) {
        check_in->forgotten = false;
        check_in->refusal = REASON_IN_FLIGHT;
        return false;
    }
    conn = conn_of_word(word);
    check_in->conn = conn;
    check_in->fd = fd;
    check_in->shadow_fd = -1;
    check_in->word = word;
    if (__builtin_expect(conn_state(conn) != CONN_IN_USE, 0))
        return give_up(check_in, REASON_NONE);
    if (__builtin_expect(!conn_claim_last(conn), 0))
        return begin_duplicate(check_in);
    _pthread_cleanup_push(&check_in->cleanup, abandoned, check_in);
    conn_move_from(conn, CONN_IN_USE, CONN_CHECKING_IN);
    reason = prepare_to_keep(check_in, conn);
    return __builtin_expect(reason == REASON_NONE, 1) ? true : give_up(check_in, reason);
}

/* After how many idle seconds the kernel asks the peer of a connection to ENDPOINT; 0: never.
 * That is before the path ends it, where it was learned when that is (conn/path_limit.h). */
static unsigned int keep_idle_of(const struct endpoint *endpoint)
{
    unsigned int most = pool_keepalive();
    uint64_t limit = stats_read(&endpoint->stats->idle_limit_ms), half = limit / 2000;

    if (limit == 0 || half >= most)
        return most;
    return half > 0 ? (unsigned int)half : 1;
}

/* Does to the options of CONN what must be done once after the program or connect() made them.
 * It may be closed later in another thread's call, by exec() or in a child: that close must not
 * wait for what this user left unsent. And the kernel is to watch over it. False if its options
 * are not known any more. */
COLD static bool settle_options(struct conn *conn)
{
    unsigned int idle = keep_idle_of(conn->endpoint);

    if (!sockopts_stop_lingering(conn->fd, &conn->options))
        return false;
    if (!sockopts_can_keep_alive(&conn->options, idle))
        return true;
    stats_count(&conn->endpoint->stats->watched);
    return sockopts_keep_alive(conn->fd, &conn->options, idle);
}

/* The server has answered the user of CONN, without a login. When is not known: the connection
 * may be idle, or dead, since long ago. But the answer came after the use began, as nothing was
 * owed before. relaxed: an old value costs one refusal. */
ALWAYS_INLINE void note_no_auth(const struct conn *conn)
{
    _Atomic msec_t *at = &conn->endpoint->no_auth_at;
    msec_t began =
        conn->idle_since > conn->connected_at ? conn->idle_since : conn->connected_at;

    if (began > atomic_load_explicit(at, memory_order_relaxed))
        atomic_store_explicit(at, began, memory_order_relaxed);
}

ALWAYS_INLINE void note_kept(struct conn *conn, const char *how)
{
    if (wire_shows_no_auth(&conn->wire) && conn->received != conn->received_before)
        note_no_auth(conn);
    stats_add_quietly(&endpoint_stats(conn->endpoint)->kept, 1);
    log_line(LOG_DEBUG, "%s: kept%s", conn->endpoint->text, how);
}

/* The rest of keep() for CONN, on which not all replies have come. */
COLD static enum reason keep_draining(struct check_in *check_in, struct evicted *evicted)
{
    struct conn *conn = check_in->conn;
    msec_t now = check_in->now;
    enum reason reason;

    life_note_left(conn, conn->fd, now);
    reason = drain_begin(conn, now);
    if (reason != REASON_NONE)
        return reason;
    note_kept(conn, ", draining");
    return pool_check_in(conn, CONN_DRAINING, now, evicted, &check_in->covered);
}

/* From here on the connection has no user, and its bytes are ours to read. REASON_NONE, or why
 * it is not kept. */
ALWAYS_INLINE enum reason keep(struct check_in *check_in, struct evicted *evicted)
{
    struct conn *conn = check_in->conn;
    msec_t now = check_in->now;

    if (!sockopts_are_settled(&conn->options, pool_keepalive()) && conn->fd >= 0 &&
        !settle_options(conn))
        return REASON_OPTION_FAILED;
    if (__builtin_expect(!check_in->clean, 0))
        return keep_draining(check_in, evicted);
    note_kept(conn, "");
    return pool_check_in(conn, CONN_IDLE, now, evicted, &check_in->covered);
}

/* All that is called here keeps errno. */
INLINED void check_in_end(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    struct evicted evicted;
    enum reason reason = REASON_IN_FLIGHT;

    evicted.count = 0;
    check_in->returned = true;
    if (__builtin_expect(check_in->duplicated, 0)) {
        _pthread_cleanup_pop(&check_in->cleanup, 0);
        drop_duplicate(check_in);
        return;
    }
    /* The word leaves the map before the calls are counted: up to then a call of another thread
     * on the fd can reach this connection. If one was begun, its bytes would be on the next
     * user's connection, so this one is not kept. See concurrency.md, 2. */
    fdmap_replace(check_in->fd, check_in->word | FDMAP_CLOSING, FDMAP_NONE);
    conn->fd = check_in->shadow_fd;
    if (conn_calls_begun(conn) == check_in->calls)
        reason = keep(check_in, &evicted);
    if (__builtin_expect(reason != REASON_NONE, 0))
        discard(conn, reason);
    _pthread_cleanup_pop(&check_in->cleanup, 0);
    if (__builtin_expect(evicted.count > 0, 0))
        sharing_release(&evicted);
    sharing_after_check_in(check_in->now);
    stats_changed();
    due_each_second(check_in->now);
}

void check_in_call_off(struct check_in *check_in)
{
    struct conn *conn = check_in->conn;
    int saved = errno;

    _pthread_cleanup_pop(&check_in->cleanup, 0);
    if (check_in->duplicated) {
        conn_refuse(conn, REASON_DUPLICATED);
        fdmap_replace(check_in->fd, check_in->word | FDMAP_CLOSING, check_in->word);
        errno = saved;
        return;
    }
    conn->epoll_regs.count = check_in->unregistered;
    epoll_reg_replay(check_in->fd, &conn->epoll_regs);
    close_shadow(check_in);
    fdmap_replace(check_in->fd, check_in->word | FDMAP_CLOSING, FDMAP_NONE);
    discard_note_refused(conn, REASON_OTHER_SOCKET);
    conn_move(conn, CONN_CLOSED);
    errno = saved;
}

/* Puts STAND_IN over FD, with the close-on-exec flag that FD had. False if that failed. */
static bool put_over(int fd, int stand_in)
{
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFD);

    return flags >= 0 &&
           raw_syscall(SYS_dup3, stand_in, fd, flags & FD_CLOEXEC ? O_CLOEXEC : 0) == fd;
}

/* The epoll registrations of a connection whose fd gets a stand-in: those to be made again for
 * the stand-in, and one-shot ones that have fired. */
struct moved_regs {
    struct epoll_regs again;
    struct epoll_regs fired;
    uint64_t calls; /* begun on the connection when its registrations were read */
};

/* False if REG, of FD, cannot be made again: EPOLLEXCLUSIVE, or a one-shot one of which we
 * cannot know whether it has fired. */
static bool sort_reg(struct moved_regs *regs, int fd, const struct epoll_reg *reg)
{
    enum oneshot fired = ONESHOT_ARMED;

    if (reg->events & EPOLLEXCLUSIVE)
        return false;
    if (reg->events & EPOLLONESHOT && owner_refusal() != REASON_NONE)
        return false;
    if (reg->events & EPOLLONESHOT)
        fired = oneshot_ask(reg->epfd, fd);
    if (fired == ONESHOT_FIRED)
        regs->fired.list[regs->fired.count++] = *reg;
    else
        regs->again.list[regs->again.count++] = *reg;
    return fired != ONESHOT_UNKNOWN;
}

/* Sorts all registrations of FD into REGS; false if one cannot be moved. A one-shot
 * registration that has fired cannot be made again, as a new one is armed, so it is remembered
 * (conn/oneshot.h). That is enough for a stand-in at a quit, but not for a connection the
 * program goes on with: if IS_QUIT is false, no one-shot registration can be moved. */
static bool can_be_moved(struct moved_regs *regs, int fd, const struct epoll_regs *current,
                         bool is_quit)
{
    for (unsigned int i = 0; i < current->count; i++) {
        if (!is_quit && current->list[i].events & EPOLLONESHOT)
            return false;
        if (!sort_reg(regs, fd, &current->list[i]))
            return false;
    }
    return true;
}

/* Called when the stand-in is at FD. Another thread may have armed a one-shot registration
 * after copy_epoll_regs() and before epoll_reg_unregister_all(): then the record has it, and it
 * is made again. A thread that arms one later finds it noted here. */
static void remember_fired(struct conn *conn, int fd, const struct moved_regs *regs)
{
    for (unsigned int i = 0; i < regs->fired.count; i++)
        oneshot_note(regs->fired.list[i].epfd, fd);
    if (regs->fired.count > 0 && conn_calls_begun(conn) != regs->calls && conn_trylock(conn)) {
        epoll_reg_replay(fd, &conn->epoll_regs);
        conn_unlock(conn);
    }
}

/* Copies the registrations of the connection at FD to REGS. False if they cannot be made again
 * for another socket, or if other fds name this one. */
static bool copy_epoll_regs(int fd, uint32_t word, struct moved_regs *regs, bool is_quit)
{
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    bool copied = false;

    if (!conn)
        return false;
    if (!conn_is_shared(conn) && conn_trylock(conn)) {
        regs->again.count = regs->fired.count = 0;
        regs->calls = conn_calls_begun(conn);
        copied = can_be_moved(regs, fd, &conn->epoll_regs, is_quit);
        conn_unlock(conn);
        if (!copied)
            conn_refuse(conn, REASON_EPOLL_MODE);
    }
    conn_put(conn, CONN_CALL_OTHER);
    return copied;
}

/* The old socket may live on in another process: without this it would go on to report events
 * in the program's epoll sets. */
static void end_epoll_regs(int fd, const struct epoll_regs *regs)
{
    struct epoll_event ignored = {0};

    for (unsigned int i = 0; i < regs->count; i++)
        raw_syscall(SYS_epoll_ctl, regs->list[i].epfd, EPOLL_CTL_DEL, fd, &ignored);
}

/* Puts STAND_IN over FD, whose connection is not kept and not tracked any more. False if FD is
 * what it was. */
static bool put_instead(int fd, int stand_in, const struct epoll_regs *regs)
{
    end_epoll_regs(fd, regs);
    if (put_over(fd, stand_in)) {
        epoll_reg_replay(fd, regs);
        return true;
    }
    epoll_reg_replay(fd, regs);
    return false;
}

/* Puts STAND_IN at FD and checks the connection in. With ANYWAY, STAND_IN goes there even if
 * the connection is not kept. REASON_NONE if STAND_IN is at FD. The order is decisive: copy the
 * registrations; begin, which removes them and makes the shadow fd; dup3(); make the
 * registrations again; end. Up to the dup3() each failure leaves FD as it was. */
static enum reason put_behind(int fd, uint32_t word, int stand_in, bool anyway)
{
    struct check_in check_in;
    struct moved_regs regs;

    /* Before check_in_begin(), which removes the registrations of the connection. */
    if (!copy_epoll_regs(fd, word, &regs, !anyway))
        return REASON_EPOLL_MODE;
    if (!check_in_begin(&check_in, fd, word)) {
        /* Not kept. If another thread is in a call on it, FD stays as it is: that call would
         * continue on the old socket. */
        if (anyway && check_in.refusal != REASON_IN_FLIGHT &&
            put_instead(fd, stand_in, &regs.again))
            return REASON_NONE;
        return check_in.refusal;
    }
    /* Other fds still have the old socket, and only FD would get another one. */
    if (check_in.duplicated) {
        check_in_call_off(&check_in);
        return REASON_DUPLICATED;
    }
    /* A dry run, which only counts: there is no shadow fd, and the program's socket stays at
     * FD. */
    if (check_in.shadow_fd < 0) {
        check_in_end(&check_in);
        return REASON_FD_PRESSURE;
    }
    /* A swap is due only before the program has sent anything on the reused connection, which
     * was clean. If it is not clean any more, another thread has just sent, and the reply must
     * arrive here. */
    if (anyway && wire_verdict(&check_in.conn->wire) != WIRE_CLEAN) {
        check_in_call_off(&check_in);
        return REASON_IN_FLIGHT;
    }
    /* From here on FD has the stand-in, and the shadow fd alone names the old socket. */
    if (!put_over(fd, stand_in)) {
        check_in_call_off(&check_in);
        return REASON_OTHER_SOCKET;
    }
    /* Before check_in_end(), while the map still has the word: a thread that changes a
     * registration of FD now is counted as a call on the connection, and remember_fired() sees
     * that. */
    epoll_reg_replay(fd, &regs.again);
    remember_fired(check_in.conn, fd, &regs);
    check_in_end(&check_in);
    return REASON_NONE;
}

bool check_in_behind(int fd, uint32_t word, int stand_in)
{
    return put_behind(fd, word, stand_in, false) == REASON_NONE;
}

/* FOUND is set to the other fds for which the map has WORD; false if there are too many. */
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

/* Puts STAND_IN over FD, if that is not the last fd of its connection. */
static bool replace_duplicate(int fd, uint32_t word, int stand_in)
{
    struct check_in check_in;
    bool replaced;

    if (!check_in_begin(&check_in, fd, word))
        return false;
    replaced = check_in.duplicated && put_over(fd, stand_in);
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
