/*
 * Taking off and putting on what the application can see of a socket.
 */
#include "pool/install.h"

#include <fcntl.h>

#include "conn/fdmap.h"
#include "conn/sockid.h"
#include "base/rawsys.h"
#include "conn/shadow.h"

static struct watch *find_watch(struct watches *watches, int epfd)
{
    for (unsigned int i = 0; i < watches->count; i++) {
        if (watches->list[i].epfd == epfd)
            return &watches->list[i];
    }
    return NULL;
}

static void drop_watch(struct watches *watches, struct watch *watch)
{
    *watch = watches->list[--watches->count];
}

static void set_watch(struct conn *conn, int epfd, const struct epoll_event *event)
{
    struct watches *watches = &conn->watches;
    struct watch *watch = find_watch(watches, epfd);

    if (!watch) {
        if (watches->count == CONN_WATCHES) {
            conn_refuse(conn, REASON_EPOLL_SETS);
            return;
        }
        watch = &watches->list[watches->count++];
    }
    *watch = (struct watch){epfd, event->events, event->data.u64};
    /* Made again on another socket, a one-shot registration would be armed anew, and an
     * exclusive one cannot be changed. */
    if (conn_state(conn) == CONN_FRESH && event->events & (EPOLLONESHOT | EPOLLEXCLUSIVE))
        conn_refuse(conn, REASON_EPOLL_MODE);
}

void disguise_note_watch(struct conn *conn, int epfd, int op, const struct epoll_event *event)
{
    struct watch *watch;

    if (!conn_hold(conn))
        return;
    if (op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD) {
        set_watch(conn, epfd, event);
    } else {
        watch = find_watch(&conn->watches, epfd);
        if (watch)
            drop_watch(&conn->watches, watch);
    }
    conn_let_go(conn);
}

void disguise_lose_watch(struct conn *conn, int epfd, bool lives_on)
{
    struct watch *watch;

    if (!conn_hold(conn))
        return;
    watch = find_watch(&conn->watches, epfd);
    if (watch) {
        drop_watch(&conn->watches, watch);
        if (lives_on)
            conn_refuse(conn, REASON_EPOLL_UNKNOWN);
    }
    conn_let_go(conn);
}

/* Once more when memory is short for a moment: often a registration was taken off just before,
 * and the program waits for this one. */
static bool add_watch(int fd, const struct watch *watch)
{
    struct epoll_event event = {.events = watch->events, .data = {.u64 = watch->data}};

    for (int tries = 0; tries < 2; tries++)
        if (raw_syscall(SYS_epoll_ctl, watch->epfd, EPOLL_CTL_ADD, fd, &event) == 0)
            return true;
    return false;
}

bool disguise_replay_watches(int fd, const struct watches *watches)
{
    bool all = true;

    for (unsigned int i = 0; i < watches->count; i++)
        all &= add_watch(fd, &watches->list[i]);
    return all;
}

static enum reason take_off_watches(struct conn *conn, int fd)
{
    struct watches all = conn->watches;
    struct epoll_event ignored = {0};

    while (conn->watches.count > 0) {
        const struct watch *watch = &conn->watches.list[conn->watches.count - 1];

        if (raw_syscall(SYS_epoll_ctl, watch->epfd, EPOLL_CTL_DEL, fd, &ignored) != 0) {
            disguise_replay_watches(fd, &all);
            return REASON_EPOLL_UNKNOWN;
        }
        conn->watches.count--;
    }
    return REASON_NONE;
}

enum reason disguise_take_off(struct conn *conn, int fd)
{
    return conn->watches.count > 0 ? take_off_watches(conn, fd) : REASON_NONE;
}

static bool move_over(int from, int to, int fd_flags)
{
    int flags = fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0;

    return raw_syscall(SYS_dup3, from, to, flags) == to;
}

/* Over FD came not CONN but what had got its private number meanwhile: FRESH is put back, or
 * its like. */
static void put_back(int fd, const struct conn *fresh, int fd_flags)
{
    int type =
        SOCK_STREAM | SOCK_CLOEXEC | (conn_flags(fresh) & O_NONBLOCK ? SOCK_NONBLOCK : 0);
    long like;

    if (fresh->twin >= 0 && move_over(fresh->twin, fd, fd_flags) && sockid_is_at(fresh, fd))
        return;
    like = raw_syscall(SYS_socket, fresh->domain, type, 0);
    if (like < 0 || !options_give((int)like, &fresh->options) ||
        !move_over((int)like, fd, fd_flags))
        raw_close(fd);
    if (like >= 0)
        raw_close((int)like);
}

/* Other threads may sweep our private numbers at any moment, and give them out again: what has
 * arrived is CONN if its number was not swept before. */
static enum reason replace(const struct conn *conn, int fd, const struct conn *fresh,
                           int fd_flags)
{
    if (!move_over(conn->fd, fd, fd_flags))
        return REASON_OTHER_SOCKET;
    if (fdmap_holds(conn->fd, conn_slot(conn) | FDMAP_PRIVATE))
        return REASON_NONE;
    put_back(fd, fresh, fd_flags);
    return REASON_OTHER_SOCKET;
}

/* The registrations of the fresh socket last as long as a duplicate of it does, so they need
 * not be made again if this fails. */
static enum reason replace_watched(struct conn *conn, int fd, const struct conn *fresh,
                                   int fd_flags)
{
    long spare = twin_duplicate(fd);
    enum reason reason;

    if (spare < 0)
        return REASON_FD_PRESSURE;
    reason = replace(conn, fd, fresh, fd_flags);
    if (reason == REASON_NONE && !disguise_replay_watches(fd, &fresh->watches))
        reason = REASON_EPOLL_UNKNOWN;
    if (reason != REASON_NONE)
        move_over((int)spare, fd, fd_flags);
    raw_syscall(SYS_close, spare);
    return reason;
}

enum reason disguise_dress(const struct conn *conn, int fd, const struct conn *fresh, int flags)
{
    if (((flags ^ conn_flags(conn)) & O_NONBLOCK) &&
        raw_syscall(SYS_fcntl, conn->fd, F_SETFL, flags) != 0)
        return REASON_ODD_FLAGS;
    if (!options_apply(conn->fd, &conn->options, fd, &fresh->options))
        return REASON_OPTION_FAILED;
    return REASON_NONE;
}

enum reason disguise_put_on(struct conn *conn, int fd, struct conn *fresh)
{
    int fd_flags = conn_fd_flags(fresh);
    enum reason reason;

    if (fd_flags == CONN_UNKNOWN)
        fd_flags = (int)raw_syscall(SYS_fcntl, fd, F_GETFD);
    if (fd_flags < 0)
        return REASON_OTHER_SOCKET;
    conn_set_flags(fresh, conn_flags(fresh), fd_flags);
    reason = disguise_dress(conn, fd, fresh, conn_flags(fresh));
    if (reason != REASON_NONE)
        return reason;
    return fresh->watches.count > 0 ? replace_watched(conn, fd, fresh, fd_flags)
                                    : replace(conn, fd, fresh, fd_flags);
}
