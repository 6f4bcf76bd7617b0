/*
 * Before and after the call that enters a sandbox.
 */
#include "pool/sandbox.h"

#include <stdatomic.h>
#include <stddef.h>
#include <time.h>

#include "conn/conn.h"
#include "conn/fdmap.h"
#include "pool/discard.h"
#include "pool/family.h"
#include "stats/log.h"
#include "base/lock.h"
#include "base/owner.h"
#include "conn/sockid.h"
#include "pool/swap.h"
#include "base/rawsys.h"
#include "conn/ring.h"
#include "conn/waiter.h"
#include "stats/stats.h"

/* How often we look whether other threads have left their hooks, and how many nanoseconds
 * apart. */
#define LOOKS      10
#define LOOK_EVERY 1000000

/* How many threads are between sandbox_begin() and sandbox_end(), and the process that owned
 * the pool before. */
static _Atomic uint32_t entering;
static _Atomic pid_t owner;

/* Removes the options that we have set: once all hooks are plain calls, none hides them from
 * the program. */
static void remove_forced_options(struct conn *conn, int unused)
{
    (void)unused;
    if (conn_state(conn) != CONN_IN_USE || !sockopts_are_forced(&conn->options) ||
        !conn_trylock(conn))
        return;
    if (sockid_is_at(conn, conn->fd))
        sockopts_restore(conn->fd, &conn->options);
    conn_unlock(conn);
}

/* Removes everything from the map but words that have a bit of KNOWN. A call in flight on a
 * connection finds it refused; a later call finds an fd that is not tracked. Rings go even if
 * KNOWN: our mapping of a ring would keep it alive, with all that is pending on it, when the
 * program closes it. */
static void forget_all_but(uint32_t known)
{
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t word = fdmap_get(fd);
        struct conn *conn = word & FDMAP_SHADOW ? NULL : conn_of_word(word);

        if (word == FDMAP_NONE || word & FDMAP_CLOSING ||
            (word & known && !(word & FDMAP_RING)) || !fdmap_replace(fd, word, FDMAP_NONE))
            continue;
        if (word & FDMAP_RING)
            ring_closed(word);
        if (!conn)
            continue;
        conn_refuse(conn, REASON_SANDBOX);
        conn_move(conn, CONN_CLOSED);
    }
    /* poll() and select() need not look whether they wait for a connection of ours. */
    atomic_store(&conn_ever_used, false);
}

/* Whether another thread may still be in a hook that it entered as the owner. While it moves a
 * connection or writes counters, that is seen. Any other hook, such as socket(), takes
 * microseconds, and the thread has had LOOKED milliseconds. */
static bool others_may_be_inside(int looked)
{
    return looked == 0 ? !owner_has_one_thread()
                       : conn_others_in_transit(NULL) || stats_is_busy();
}

bool sandbox_begin(void)
{
    pid_t owner_before;

    if (atomic_load(&entering) == 0 && !owner_is_this_process())
        return false;
    atomic_fetch_add(&entering, 1);
    /* What needs system calls comes before owner_disown(): after it, no hook makes one of ours.
     */
    swap_all_for_new();
    family_leave(SHARE_SANDBOX);
    discard_idle(REASON_SANDBOX);
    stats_write(clock_now());
    owner_before = owner_disown();
    if (owner_before != 0)
        atomic_store(&owner, owner_before);
    log_line(LOG_INFO, "the program tries to enter a sandbox: all connections are given up");
    waiter_recall_all();
    /* Again: a thread that was inside a hook may have checked in a connection meanwhile. */
    discard_idle(REASON_SANDBOX);
    for (int i = 0; i < LOOKS && others_may_be_inside(i); i++) {
        lock_pause(LOOK_EVERY);
        discard_idle(REASON_SANDBOX);
    }
    /* Again: another thread may have been in fork(). */
    family_leave(SHARE_SANDBOX);
    stats_pause();
    conn_for_each_open(remove_forced_options, 0);
    forget_all_but(FDMAP_SHADOW | FDMAP_EPOLL);
    return true;
}

/* If several threads try at the same time, one that has entered the sandbox decides. Shadow fds
 * that another thread was to close, and has not closed yet, then stay open. A connection that
 * another thread checked out since sandbox_begin() was not tracked, so it is not kept. */
void sandbox_end(bool entered)
{
    if (entered) {
        owner_refuse(REASON_SANDBOX);
        owner_disown();
        stats_pause();
        forget_all_but(0);
    } else if (atomic_load(&entering) == 1 && owner_refusal() != REASON_SANDBOX) {
        /* The last thread whose call failed: pooling begins anew. */
        discard_idle(REASON_SANDBOX);
        forget_all_but(FDMAP_SHADOW | FDMAP_EPOLL);
        owner_restore(atomic_load(&owner));
        stats_resume();
        /* Another thread has entered a sandbox meanwhile. */
        if (owner_refusal() == REASON_SANDBOX) {
            owner_disown();
            stats_pause();
        }
    }
    atomic_fetch_sub(&entering, 1);
}
