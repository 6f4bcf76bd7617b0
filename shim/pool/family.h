/*
 * The family: processes that were forked from one ancestor and share idle connections. They
 * have queues of fds in common (conn/fdqueue.h), which are made at the first fork, and a page
 * of memory, the board. What goes through the queues is in pool/sharing.h.
 *
 * A queue belongs to one identity, as a process that has it can take and put anything. So a
 * process leaves the family when it changes its user, groups, root, capabilities or namespaces,
 * and makes another family when it forks after that.
 *
 * What stands on the board is a hint: any member may be killed in the middle of a change. It
 * decides how much is shared, never what may be reused.
 *
 * A turn holds the lock. Its thread has no signals, so no handler can leave it locked,
 * and a fork waits for it: else a child would inherit an fd that is under way, and not know it.
 * Order of locks: the pool's, that of base/ownfile.h, this one. Nothing here blocks; errno is
 * kept.
 */
#ifndef MCPOOL_FAMILY_H
#define MCPOOL_FAMILY_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "config/config.h"
#include "conn/endpoint.h"
#include "conn/fdqueue.h"
#include "pool/members.h"
#include "stats/share.h"

/* Endpoints that have a queue of their own. Further ones share them. */
#define FAMILY_QUEUES 8

/* With a lower limit of fds a process shares nothing. */
#define FAMILY_FEWEST_FDS 256

/* The longest message in a queue, in bytes. A longer one would take more of the kernel's
 * memory, and fewer would fit. */
#define FAMILY_MESSAGE_MOST 192

/* One queue, as all members see it. */
struct family_queue {
    _Atomic uint64_t endpoint; /* a hash of the endpoint that it is for; 0: of none yet */
    _Atomic uint32_t queued;   /* connections in it */
    _Atomic uint32_t lowest;   /* the fewest since LOWEST_SINCE */
    _Atomic msec_t lowest_since;
};

struct family_board {
    _Atomic uint32_t total; /* connections in all queues */
    _Atomic uint32_t most;  /* how many there may be, until MOST_UNTIL */
    _Atomic msec_t most_until;
    _Atomic msec_t tended_until; /* a member has promised to look by then */
    _Atomic msec_t waits_until;  /* the end of a short wait of a member */
    _Atomic msec_t tend_at;      /* when there is something to look for */
    struct family_queue queues[FAMILY_QUEUES];
    struct members members;
};

/* NULL while this process shares nothing. Relaxed loads: it is set before other threads are
 * told of the child, and a board is never unmapped. */
extern _Atomic(struct family_board *) family_board __attribute__((visibility("hidden")));

static inline struct family_board *family_get(void)
{
    return atomic_load_explicit(&family_board, memory_order_relaxed);
}

/* Whether the family has connections to look after. */
static inline bool family_has_queued(void)
{
    const struct family_board *board = family_get();

    return __builtin_expect(board != NULL, 0) &&
           atomic_load_explicit(&board->total, memory_order_relaxed) > 0;
}

/* Once, at start-up. CONFIG stays the caller's and must not change. */
void family_start(const struct config *config);

/* The handlers around a fork. CAN_MAKE: this process pools, and its child will. */
COLD void family_before_fork(bool can_make);
COLD void family_after_fork_in_parent(void);
COLD void family_after_fork_in_child(void);

/* This process shares nothing any more, for the reason WHY. True when it had a queue to close.
 */
COLD bool family_leave(enum share why);

/* The same for a child that no handler of fork() has prepared, and whose memory may be that of
 * its parent: only its fds are closed. */
COLD void family_close_copies(void);

/* The same for a child that has memory of its own: it makes no more calls for them later, when
 * a sandbox may forbid these. */
COLD void family_forget_copies(void);

/* The program needs the place of the queues in the table of fds: moves them. */
COLD void family_move_queues(void);

/* The program is about to put another file at FD, which is that of a queue: moves the queue.
 * True when FD is still open and the caller's. */
COLD bool family_yield(int fd);

/* The program is about to close the fds from FIRST to LAST: if a queue is there, this process
 * shares nothing any more. */
COLD void family_leave_range(unsigned int first, unsigned int last);

/* Whether FD is that of a queue of this process. */
COLD bool family_has_fd(int fd);

struct family_turn {
    uint64_t mask; /* the signals blocked before */
};

/* Begins a turn; false, and nothing is to be ended, when the lock was refused. */
COLD bool family_begin(struct family_turn *turn);

/* Whether a child may have been made since FORKS, the fork_epoch of an earlier moment of this
 * turn: then it has copies of what was under way. */
COLD bool family_forked_since(uint32_t forks);

COLD void family_end(const struct family_turn *turn);

/* The number of the queue for ENDPOINT. */
COLD size_t family_queue_for(const struct endpoint *endpoint);

/* Queue number I, in a turn; NULL when this process has none. A queue that is not at its fd any
 * more ends the sharing. */
COLD const struct fdqueue *family_open(size_t i);

/* fdqueue_size() of one connection. Not 0 in a process that has a family. */
unsigned int family_size_of_one(void);

#endif
