/*
 * Which thread of a process with several threads has its wait cut into pieces
 * (hooks/pieces.h), and what it waits for.
 *
 * Due work needs one thread; else each waiting thread would wake up for it. So a thread is
 * elected only if no elected one comes back in time. It ceases to be elected when its wait
 * ends, also by cancellation or a jump, when its last piece begins, and when it is late because
 * its thread has ended or is stopped. Then the next thread that begins to wait is elected.
 *
 * Another thread may close an fd that an elected one waits for. A wait in the kernel goes on
 * for the old file (epoll(7), select(2)). A further piece would find a closed fd, or another
 * file. So what is waited for is listed, and has a word in the fd map, FDMAP_WAITED if it has
 * no other. The close of an fd with a word looks into the lists, and duplicates the file
 * before: further pieces wait for the copy. An fd closed past our hooks is not waited for any
 * more.
 *
 * No function here takes a lock or blocks. errno is kept.
 */
#ifndef MCPOOL_WAITER_H
#define MCPOOL_WAITER_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/compiler.h"

/* A wait for more fds is not cut. */
#define WAITER_FDS_MOST 256

/* How many closed fds a wait remembers. Further ones it finds closed. */
#define WAITER_CLOSED_MOST 16

/* An elected thread, and which of its elections it was. */
struct waiter {
    struct waiter_seat *seat;
    uint64_t number;
};

/* An fd that was closed during the wait, and the copy of its file; -1 if there is none. */
struct waiter_closed {
    int fd;
    int copy;
};

/* Whether no elected thread comes back by UNTIL. */
COLD bool waiter_is_wanted(msec_t until);

/* Elects the calling thread, whose first piece ends at UNTIL on clock_now(). False if it is not
 * wanted any more. The caller has blocked all signals and calls waiter_leave() at the end. */
COLD bool waiter_elect(struct waiter *waiter, msec_t until);

/* WAITER waits for FD; a negative one is ignored. False when there are too many, or the fd map
 * has no place for FD. Then the wait must not be cut. */
COLD bool waiter_watch(const struct waiter *waiter, int fd);

/* The next piece of WAITER ends at UNTIL, or is its last one for UNTIL = 0. False if it must be
 * the last one: another comes back by then, or WAITER was late and is not elected any more. */
COLD bool waiter_go_on(const struct waiter *waiter, msec_t until);

/* Fills CLOSED with the fds that WAITER watches and that were closed since its election.
 * Returns how many. */
COLD unsigned int waiter_closed(const struct waiter *waiter,
                                struct waiter_closed closed[WAITER_CLOSED_MOST]);

/* The wait has ended. Closes the copies. */
COLD void waiter_leave(const struct waiter *waiter);

/* How many are elected. */
extern _Atomic unsigned int waiter_count __attribute__((visibility("hidden")));
COLD void waiter_closing_slow(int fd, uint32_t word);

/* The caller is about to close the program's FD, for which the map has WORD. */
static inline void waiter_closing(int fd, uint32_t word)
{
    /* relaxed: a thread that begins to wait only now waits for what is at FD after the close */
    if (__builtin_expect(atomic_load_explicit(&waiter_count, memory_order_relaxed) != 0, 0))
        waiter_closing_slow(fd, word);
}

/* FD was closed past our hooks: it is another file by now. */
COLD void waiter_closed_unseen(int fd);

/* The process may not cut waits any more, and this is not the owner by now (base/owner.h): ends
 * the pieces of all elected threads with EINTR, and gives them a second to make the program's
 * own call for the rest. */
COLD void waiter_recall_all(void);

/* In the child of a fork, which has one thread. */
COLD void waiter_after_fork_in_child(void);

#endif
