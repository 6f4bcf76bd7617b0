/*
 * Before and after a fork.
 */
#include "pool/fork.h"

#include <stdatomic.h>
#include <stdint.h>

#include "base/owner.h"
#include "base/ownfile.h"
#include "conn/conn.h"
#include "conn/fdmap.h"
#include "conn/fdtable.h"
#include "conn/ring.h"
#include "conn/shadow.h"
#include "pool/pool.h"
#include "pool/spare.h"
#include "pool/swap.h"
#include "stats/log.h"
#include "stats/stats.h"

/* The forks under way in this thread: more than one when a signal handler forks inside of
 * fork(). LOCKED is which of them has the pool's lock, from 1; 0 for none. */
static _Thread_local struct {
    unsigned int depth;
    unsigned int locked;
    bool is_owner;
} forks __attribute__((tls_model("initial-exec")));

void fork_before(void)
{
    enum reason reason;

    swap_all_for_new();
    forks.depth++;
    forks.is_owner = owner_is_this_process();
    reason = forks.is_owner ? pool_before_fork() : REASON_FORKED;
    if (reason == REASON_NONE)
        forks.locked = forks.depth;
    else if (forks.is_owner)
        log_line(LOG_INFO, "a child that does not pool: %s (%s)", reason_name(reason),
                 reason_text(reason));
    if (forks.depth == 1)
        ownfile_before_fork();
    atomic_fetch_add(&fork_epoch, 1);
}

/* Whether the fork that ends now has the lock. */
static bool end_fork(void)
{
    bool locked = forks.locked == forks.depth;

    if (locked)
        forks.locked = 0;
    forks.depth--;
    return locked;
}

void fork_after_in_parent(void)
{
    /* Another thread may have opened a socket after the first count and before the child. */
    atomic_fetch_add(&fork_epoch, 1);
    if (forks.depth == 1)
        ownfile_after_fork_in_parent();
    if (end_fork())
        pool_after_fork_in_parent();
}

/* In a child, also one made while another thread was changing the pool: the map has an fd as
 * private for as long as a connection of the parent may be idle there. What the program has at
 * that fd by now is not closed. */
static void close_shadow_fds(void)
{
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t slot = fdmap_get(fd);

        if (!(slot & FDMAP_SHADOW) || slot & FDMAP_EPOLL)
            continue;
        shadow_close(conn_of_word(slot), fd);
    }
}

void fork_after_in_child(void)
{
    bool is_whole = end_fork();

    ownfile_after_fork_in_child();
    if (forks.is_owner)
        close_shadow_fds();
    if (!is_whole)
        return;
    ring_after_fork_in_child();
    bulk_close_after_fork_in_child();
    fdtable_after_fork_in_child();
    spare_flush();
    shadow_drop_all();
    conn_forget_other_threads();
    pool_after_fork_in_child();
    log_after_fork_in_child();
    if (stats_after_fork_in_child())
        owner_adopt();
}
