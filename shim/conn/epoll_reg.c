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
    return FDMAP_EPOLL | (atomic_load(&fork_epoch) & FDMAP_INDEX);
}

void epoll_reg_set_made(int epfd)
{
    fdmap_exchange(epfd, set_slot());
}

static struct epoll_reg *find_reg(struct epoll_regs *watches, int epfd)
{
    for (unsigned int i = 0; i < watches->count; i++) {
        if (watches->list[i].epfd == epfd)
            return &watches->list[i];
    }
    return NULL;
}

static void drop_reg(struct epoll_regs *watches, struct epoll_reg *watch)
{
    *watch = watches->list[--watches->count];
}

static void set_watch(struct conn *conn, int epfd, const struct epoll_event *event)
{
    struct epoll_regs *watches = &conn->epoll_regs;
    struct epoll_reg *watch = find_reg(watches, epfd);

    if (!watch) {
        if (watches->count == CONN_EPOLL_REGS) {
            conn_refuse(conn, REASON_EPOLL_SETS);
            return;
        }
        watch = &watches->list[watches->count++];
    }
    *watch = (struct epoll_reg){epfd, event->events, event->data.u64};
    /* Made again on another socket, a one-shot registration would be armed anew, and an
     * exclusive one cannot be changed. */
    if (conn_state(conn) == CONN_FRESH && event->events & (EPOLLONESHOT | EPOLLEXCLUSIVE))
        conn_refuse(conn, REASON_EPOLL_MODE);
}

static void note(struct conn *conn, int epfd, int op, const struct epoll_event *event)
{
    struct epoll_reg *watch;

    if (!conn_trylock(conn))
        return;
    if (op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD) {
        set_watch(conn, epfd, event);
    } else {
        watch = find_reg(&conn->epoll_regs, epfd);
        if (watch)
            drop_reg(&conn->epoll_regs, watch);
    }
    conn_unlock(conn);
}

static void lose(struct conn *conn, int epfd, bool lives_on)
{
    struct epoll_reg *watch;

    if (!conn_trylock(conn))
        return;
    watch = find_reg(&conn->epoll_regs, epfd);
    if (watch) {
        drop_reg(&conn->epoll_regs, watch);
        if (lives_on)
            conn_refuse(conn, REASON_EPOLL_UNKNOWN);
    }
    conn_unlock(conn);
}

/* A set whose beginning was not seen may be known to others. */
void epoll_reg_note(int epfd, int op, int fd, const struct epoll_event *event)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (owner_is_this_process()) {
        if ((unsigned int)epfd < FDMAP_SIZE)
            fdmap_replace(epfd, FDMAP_NONE, EPOLL_REG_SHARED);
        note(conn, epfd, op, event);
        shadow_drop(conn);
        if (conn_is_shared(conn))
            conn_refuse(conn, REASON_DUPLICATED);
    }
    conn_put(conn, CONN_CALL_OTHER);
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
    bool whole = slot == set_slot() && !stale && owner_has_one_thread();

    conn_for_each_open(whole ? set_gone : shared_set_gone, epfd);
    if (oneshot_any())
        oneshot_forget(epfd);
}

/* Once more when memory is short for a moment: often a registration was taken off just before,
 * and the program waits for this one. */
static bool add_reg(int fd, const struct epoll_reg *watch)
{
    struct epoll_event event = {.events = watch->events, .data = {.u64 = watch->data}};

    for (int tries = 0; tries < 2; tries++)
        if (raw_syscall(SYS_epoll_ctl, watch->epfd, EPOLL_CTL_ADD, fd, &event) == 0)
            return true;
    return false;
}

bool epoll_reg_replay(int fd, const struct epoll_regs *watches)
{
    bool all = true;

    for (unsigned int i = 0; i < watches->count; i++)
        all &= add_reg(fd, &watches->list[i]);
    return all;
}

static enum reason unregister_all(struct conn *conn, int fd)
{
    struct epoll_regs all = conn->epoll_regs;
    struct epoll_event ignored = {0};

    while (conn->epoll_regs.count > 0) {
        const struct epoll_reg *watch = &conn->epoll_regs.list[conn->epoll_regs.count - 1];

        if (raw_syscall(SYS_epoll_ctl, watch->epfd, EPOLL_CTL_DEL, fd, &ignored) != 0) {
            epoll_reg_replay(fd, &all);
            return REASON_EPOLL_UNKNOWN;
        }
        conn->epoll_regs.count--;
    }
    return REASON_NONE;
}

enum reason epoll_reg_unregister_all(struct conn *conn, int fd)
{
    return conn->epoll_regs.count > 0 ? unregister_all(conn, fd) : REASON_NONE;
}
