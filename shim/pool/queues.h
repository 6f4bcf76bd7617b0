/*
 * One connection into a queue of the family, or out of it, and the counts on the board.
 *
 * All but the counts is done in a turn (pool/family.h). No function blocks; errno is kept.
 */
#ifndef MCPOOL_QUEUES_H
#define MCPOOL_QUEUES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"
#include "pool/account.h"
#include "pool/family.h"

/* What was taken out of a queue. */
struct taken {
    struct account account;
    int fd;
    uint32_t bulk;  /* bulk_close_count() before */
    uint32_t forks; /* fork_epoch before */
};

enum got {
    GOT,
    GOT_NOTHING, /* the queue is empty, or cannot be used */
    GOT_OTHER,   /* what came is no connection of ours, and was closed */
};

/* Takes out what is first in queue I. The fd of TAKEN is the caller's, and does not linger. */
COLD enum got queues_take(size_t i, struct taken *taken);

/* Closes the fd of TAKEN, unless a bulk close of another thread has done so and it may be
 * another file by now. What is no TCP connection stays open, and this process shares nothing
 * any more: only a hostile member sends that. If a child was made meanwhile, which has a copy
 * and does not know it, the connection is ended. */
COLD void queues_close(const struct taken *taken);

/* Puts TAKEN back, behind the others, unless a child was made meanwhile. */
COLD void queues_give_back(size_t i, const struct taken *taken);

enum room {
    ROOM,
    ROOM_USED_UP, /* by all queues together */
    ROOM_FOR_ONE, /* which is there already */
};

/* Counts one more in queue I before it is put there: not beyond MOST in all queues, and with
 * ONE_ONLY not beyond one in this queue. Nothing is counted unless there is ROOM. */
COLD enum room queues_reserve(struct family_board *board, size_t i, unsigned int most,
                              bool one_only);

/* Puts FD with ACCOUNT into queue I, for which there is a reservation. Returns 0; or -errno as
 * fdqueue_give() does, and the reservation is given up. FD stays the caller's. */
COLD long queues_put(size_t i, int fd, const struct account *account);
COLD void queues_unreserve(struct family_board *board, size_t i);

/* Sets what is in QUEUE, number I, to what the kernel says: a member may have been killed
 * before it could count. Returns it. */
COLD unsigned int queues_recount(size_t i, const struct fdqueue *queue);

#endif
