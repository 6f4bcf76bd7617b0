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
#include "conn/waiter.h"
#include "pool/family.h"
#include "pool/members.h"
#include "pool/pool.h"
#include "pool/spare.h"
#include "pool/swap.h"
#include "pool/switch.h"
#include "pool/tending.h"
#include "stats/log.h"
#include "stats/stats.h"

/* The unfinished forks of this thread: more than one if a signal handler forks inside of
 * fork(). LOCKED is the number, from 1, of the one that has the pool's lock; 0 if none has. */
static _Thread_local struct {
    unsigned int depth;
    unsigned int locked;
    bool is_owner;
} forks __attribute__((tls_model("initial-exec")));

void fork_before(void)
{
    enum reason reason;

    /* Before the lock is held: a swap takes it. */
    swap_all_for_new();
    forks.depth++;
    forks.is_owner = owner_is_this_process();
    reason = forks.is_owner ? pool_before_fork() : REASON_FORKED;
    if (reason == REASON_NONE)
        forks.locked = forks.depth;
    else if (forks.is_owner)
        log_line(LOG_INFO, "a child that does not pool: %s (%s)", reason_name(reason),
                 reason_text(reason));
    if (forks.depth == 1) {
        ownfile_before_fork();
        family_before_fork(reason == REASON_NONE);
    }
    atomic_fetch_add(&fork_epoch, 1);
}

/* Ends the innermost fork; true if that one has the pool's lock. */
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
    /* Raised a second time: another thread may have opened a socket after the first time and
     * before the child was made, and the child has it as well. */
    atomic_fetch_add(&fork_epoch, 1);
    if (forks.depth == 1) {
        family_after_fork_in_parent();
        ownfile_after_fork_in_parent();
    }
    if (end_fork())
        pool_after_fork_in_parent();
}

/* Closes the child's copies of our fds. The child may have been made while another thread was
 * changing the lists, so this goes by the map: an fd is marked there as a shadow fd as long as
 * a connection of the parent may idle at it. If the program has something else at that fd by
 * now, it is not closed. */
static void close_shadow_fds(void)
{
    for (int fd = 0; fd < fdmap_end(); fd++) {
        uint32_t word = fdmap_get(fd);

        if (!(word & FDMAP_SHADOW) || word & FDMAP_EPOLL || word == FDMAP_QUEUE)
            continue;
        if (word == FDMAP_COPY)
            shadow_close_copy(fd);
        else
            shadow_close(conn_of_word(word), fd);
    }
}

void fork_after_in_child(void)
{
    bool is_whole = end_fork();

    ownfile_after_fork_in_child();
    members_after_fork_in_child();
    family_after_fork_in_child();
    tending_after_fork_in_child();
    if (forks.is_owner) {
        waiter_after_fork_in_child();
        close_shadow_fds();
    }
    if (!is_whole)
        return;
    ring_after_fork_in_child();
    bulk_close_after_fork_in_child();
    /* The child has the queues of its family. */
    if (!family_get())
        fdtable_after_fork_in_child();
    spare_flush();
    shadow_drop_all();
    pool_after_fork_in_child();
    log_after_fork_in_child();
    switch_after_fork_in_child();
    if (stats_after_fork_in_child())
        owner_adopt();
}
