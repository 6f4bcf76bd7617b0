/*
 * Noting epoll registrations, ending them, and making them again.
 */
#include "conn/epoll_reg.h"

#include "base/owner.h"
#include "base/rawsys.h"
#include "conn/oneshot.h"
#include "conn/shadow.h"

/* Each set has the count of children under which it was made: it is shared with every child
 * made while it lives. */
static uint32_t set_slot(void)
{
    return FDMAP_EPOLL | (atomic_load(&process_children) & FDMAP_INDEX);
}

void epoll_reg_set_made(int epfd)
{
    fdmap_exchange(epfd, set_slot());
}

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

static void note(struct conn *conn, int epfd, int op, const struct epoll_event *event)
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

static void lose(struct conn *conn, int epfd, bool lives_on)
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

/* A set whose beginning was not seen may be known to others. */
void epoll_reg_note(int epfd, int op, int fd, const struct epoll_event *event)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (process_is_owner()) {
        if ((unsigned int)epfd < FDMAP_SIZE)
            fdmap_replace(epfd, FDMAP_NONE, EPOLL_REG_SHARED);
        note(conn, epfd, op, event);
        twin_drop(conn);
        if (conn_is_shared(conn))
            conn_refuse(conn, REASON_DUPLICATED);
    }
    conn_leave(conn, CONN_CALL_OTHER);
}

static void set_gone(struct conn *conn, int epfd)
{
    lose(conn, epfd, false);
}

static void shared_set_gone(struct conn *conn, int epfd)
{
    lose(conn, epfd, true);
}

void epoll_reg_set_gone(int epfd, uint32_t slot, bool stale)
{
    bool whole = slot == set_slot() && !stale && process_is_alone();

    conn_for_each_in_use(whole ? set_gone : shared_set_gone, epfd);
    if (disarmed_any())
        disarmed_forget(epfd);
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

bool epoll_reg_replay(int fd, const struct watches *watches)
{
    bool all = true;

    for (unsigned int i = 0; i < watches->count; i++)
        all &= add_watch(fd, &watches->list[i]);
    return all;
}

static enum reason unregister_all(struct conn *conn, int fd)
{
    struct watches all = conn->watches;
    struct epoll_event ignored = {0};

    while (conn->watches.count > 0) {
        const struct watch *watch = &conn->watches.list[conn->watches.count - 1];

        if (raw_syscall(SYS_epoll_ctl, watch->epfd, EPOLL_CTL_DEL, fd, &ignored) != 0) {
            epoll_reg_replay(fd, &all);
            return REASON_EPOLL_UNKNOWN;
        }
        conn->watches.count--;
    }
    return REASON_NONE;
}

enum reason epoll_reg_unregister_all(struct conn *conn, int fd)
{
    return conn->watches.count > 0 ? unregister_all(conn, fd) : REASON_NONE;
}
