/*
 * Notes epoll registrations, ends them, and makes them again.
 */
#include "conn/epoll_reg.h"

#include "base/owner.h"
#include "base/rawsys.h"
#include "conn/oneshot.h"
#include "conn/shadow.h"

/* The word of a set that is made now. It holds fork_epoch: a set is shared with every child
 * that is made while it is open. If fork_epoch has changed, there may be such a child. */
static uint32_t current_set_word(void)
{
    return FDMAP_EPOLL | (atomic_load(&fork_epoch) & FDMAP_INDEX);
}

void epoll_reg_set_made(int epfd)
{
    fdmap_exchange(epfd, current_set_word());
}

static struct epoll_reg *find_reg(struct epoll_regs *regs, int epfd)
{
    for (unsigned int i = 0; i < regs->count; i++) {
        if (regs->list[i].epfd == epfd)
            return &regs->list[i];
    }
    return NULL;
}

static void drop_reg(struct epoll_regs *regs, struct epoll_reg *reg)
{
    *reg = regs->list[--regs->count];
}

static void set_reg(struct conn *conn, int epfd, const struct epoll_event *event)
{
    struct epoll_regs *regs = &conn->epoll_regs;
    struct epoll_reg *reg = find_reg(regs, epfd);

    if (!reg) {
        if (regs->count == CONN_EPOLL_REGS) {
            conn_refuse(conn, REASON_EPOLL_SETS);
            return;
        }
        reg = &regs->list[regs->count++];
    }
    *reg = (struct epoll_reg){epfd, event->events, event->data.u64};
    /* On a fresh socket these cannot be made again at check-out: a one-shot registration that
     * has fired would be armed again, and an exclusive one cannot be changed. */
    if (conn_state(conn) == CONN_FRESH && event->events & (EPOLLONESHOT | EPOLLEXCLUSIVE))
        conn_refuse(conn, REASON_EPOLL_MODE);
}

static void note_reg(struct conn *conn, int epfd, int op, const struct epoll_event *event)
{
    struct epoll_reg *reg;

    if (!conn_trylock(conn))
        return;
    if (op == EPOLL_CTL_ADD || op == EPOLL_CTL_MOD) {
        set_reg(conn, epfd, event);
    } else {
        reg = find_reg(&conn->epoll_regs, epfd);
        if (reg)
            drop_reg(&conn->epoll_regs, reg);
    }
    conn_unlock(conn);
}

/* The set EPFD has lost its fd. LIVES_ON: another process or thread may still have the set. */
static void lose_set(struct conn *conn, int epfd, bool lives_on)
{
    struct epoll_reg *reg;

    if (!conn_trylock(conn))
        return;
    reg = find_reg(&conn->epoll_regs, epfd);
    if (reg) {
        drop_reg(&conn->epoll_regs, reg);
        if (lives_on)
            conn_refuse(conn, REASON_EPOLL_UNKNOWN);
    }
    conn_unlock(conn);
}

/* A set without a word was made by a call we did not see: another process may have it too. */
static void note_unknown_set(int epfd)
{
    if (!fdmap_replace(epfd, FDMAP_NONE, EPOLL_REG_SHARED))
        fdmap_replace(epfd, FDMAP_WAITED, EPOLL_REG_SHARED);
}

/* A connection that is duplicated and registered is refused: here, if the duplicate was made
 * first, else by hooks/track.c. The conn_trylock() in note_reg() orders the two; see
 * shim/concurrency.md, 4. */
void epoll_reg_note(int epfd, int op, int fd, const struct epoll_event *event)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (owner_is_this_process()) {
        if ((unsigned int)epfd < FDMAP_SIZE)
            note_unknown_set(epfd);
        note_reg(conn, epfd, op, event);
        shadow_drop(conn);
        if (conn_is_shared(conn))
            conn_refuse(conn, REASON_DUPLICATED);
    }
    conn_put(conn, CONN_CALL_OTHER);
}

static void set_gone(struct conn *conn, int epfd)
{
    lose_set(conn, epfd, false);
}

static void shared_set_gone(struct conn *conn, int epfd)
{
    lose_set(conn, epfd, true);
}

void epoll_reg_set_gone(int epfd, uint32_t word, bool stale)
{
    bool exclusive = word == current_set_word() && !stale && owner_has_one_thread();

    conn_for_each_open(exclusive ? set_gone : shared_set_gone, epfd);
    if (oneshot_any())
        oneshot_forget(epfd);
}

/* Tries twice, as the kernel may be short of memory for a moment. Often a registration was
 * ended just before, and the program depends on its being made again. */
static bool add_reg(int fd, const struct epoll_reg *reg)
{
    struct epoll_event event = {.events = reg->events, .data = {.u64 = reg->data}};

    for (int tries = 0; tries < 2; tries++)
        if (raw_syscall(SYS_epoll_ctl, reg->epfd, EPOLL_CTL_ADD, fd, &event) == 0)
            return true;
    return false;
}

bool epoll_reg_replay(int fd, const struct epoll_regs *regs)
{
    bool all = true;

    for (unsigned int i = 0; i < regs->count; i++)
        all &= add_reg(fd, &regs->list[i]);
    return all;
}

COLD static enum reason unregister_all(struct conn *conn, int fd)
{
    struct epoll_regs all = conn->epoll_regs;
    struct epoll_event ignored = {0};

    while (conn->epoll_regs.count > 0) {
        const struct epoll_reg *reg = &conn->epoll_regs.list[conn->epoll_regs.count - 1];

        if (raw_syscall(SYS_epoll_ctl, reg->epfd, EPOLL_CTL_DEL, fd, &ignored) != 0) {
            epoll_reg_replay(fd, &all);
            return REASON_EPOLL_UNKNOWN;
        }
        conn->epoll_regs.count--;
    }
    return REASON_NONE;
}

INLINED enum reason epoll_reg_unregister_all(struct conn *conn, int fd)
{
    return conn->epoll_regs.count > 0 ? unregister_all(conn, fd) : REASON_NONE;
}
