/*
 * Before and after the call that enters a sandbox.
 */
#include "pool/sandbox.h"

#include <linux/futex.h>
#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "conn/conn.h"
#include "conn/fdmap.h"
#include "pool/discard.h"
#include "stats/log.h"
#include "base/owner.h"
#include "conn/sockid.h"
#include "pool/swap.h"
#include "base/rawsys.h"
#include "conn/ring.h"
#include "stats/stats.h"

/* How often, and after how many nanoseconds, it is looked whether other threads are done. */
#define LOOKS    10
#define LOOK_FOR 1000000

/* Threads between sandbox_begin() and sandbox_end(), and the process that owned the pool
 * before.
 */
static _Atomic uint32_t at_the_door;
static _Atomic pid_t owner;

/* Takes off an option that we have set (TCP_NODELAY): when all hooks are plain calls, none
 * hides it from the program any more. */
static void undress(struct conn *conn, int unused)
{
    (void)unused;
    if (conn_state(conn) != CONN_IN_USE || !conn->options.forced_nodelay || !conn_trylock(conn))
        return;
    if (sockid_is_at(conn, conn->fd))
        sockopts_restore(conn->fd, &conn->options);
    conn_unlock(conn);
}

/* A call under way on a connection finds that it was refused; a later call finds an fd that is
 * not tracked. What has one of the bits KNOWN in its slot stays known, but for rings: our
 * mapping of a ring would keep it alive, with all that is pending on it, when the program
 * closes it. */
static void forget_all_but(uint32_t known)
{
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t slot = fdmap_get(fd);
        struct conn *conn = slot & FDMAP_SHADOW ? NULL : conn_of_word(slot);

        if (slot == FDMAP_NONE || slot & FDMAP_CLOSING ||
            (slot & known && !(slot & FDMAP_RING)) || !fdmap_replace(fd, slot, FDMAP_NONE))
            continue;
        if (slot & FDMAP_RING)
            ring_closed(slot);
        if (!conn)
            continue;
        conn_refuse(conn, REASON_SANDBOX);
        conn_move(conn, CONN_CLOSED);
    }
    /* poll() and select() need not look whether they wait for a connection of ours. */
    atomic_store(&conn_ever_used, false);
}

/* By the system call that the pool's lock uses too: an earlier filter must allow it anyway. */
static void wait_a_moment(void)
{
    const struct timespec look = {.tv_nsec = LOOK_FOR};
    uint32_t word = 0;

    raw_syscall(SYS_futex, &word, FUTEX_WAIT_PRIVATE, 0, &look);
}

/* Whether another thread may still be in a hook that it entered before. Where it moves a
 * connection or writes counters, that is seen; any other hook, as socket(), needs microseconds,
 * and the thread has had LOOKED milliseconds. */
static bool others_may_be_inside(int looked)
{
    return looked == 0 ? !owner_has_one_thread()
                       : conn_others_in_transit(NULL) || stats_is_busy();
}

bool sandbox_begin(void)
{
    pid_t had;

    if (atomic_load(&at_the_door) == 0 && !owner_is_this_process())
        return false;
    atomic_fetch_add(&at_the_door, 1);
    swap_all_for_new();
    discard_idle(REASON_SANDBOX);
    stats_write(clock_now());
    had = owner_disown();
    if (had != 0)
        atomic_store(&owner, had);
    log_line(LOG_INFO, "the program tries to enter a sandbox: all connections are given up");
    discard_idle(REASON_SANDBOX);
    for (int i = 0; i < LOOKS && others_may_be_inside(i); i++) {
        wait_a_moment();
        discard_idle(REASON_SANDBOX);
    }
    stats_pause();
    conn_for_each_open(undress, 0);
    forget_all_but(FDMAP_SHADOW | FDMAP_EPOLL);
    return true;
}

/* Of two threads that try at the same time, the one that entered the sandbox decides. Private
 * fds that another thread was to close, and did not yet, then stay open. What another thread
 * was lent since sandbox_begin() was not watched, so it is not kept. */
void sandbox_end(bool entered)
{
    if (entered) {
        owner_refuse(REASON_SANDBOX);
        owner_disown();
        stats_pause();
        forget_all_but(0);
    } else if (atomic_load(&at_the_door) == 1 && owner_refusal() != REASON_SANDBOX) {
        discard_idle(REASON_SANDBOX);
        forget_all_but(FDMAP_SHADOW | FDMAP_EPOLL);
        owner_restore(atomic_load(&owner));
        stats_resume();
        if (owner_refusal() == REASON_SANDBOX) {
            owner_disown();
            stats_pause();
        }
    }
    atomic_fetch_sub(&at_the_door, 1);
}
