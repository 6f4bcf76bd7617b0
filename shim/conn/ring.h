/*
 * Rings of io_uring through which a program registers with epoll, and does nothing else to a
 * connection: libuv does that since 1.50.
 *
 * A ring made by syscall() is mapped a second time. Every submission entry is read before
 * io_uring_enter() is called; a completed EPOLL_CTL goes to the same account as epoll_ctl().
 * Any other operation on a connection refuses that connection. Any kind of ring or operation
 * that cannot be read ends pooling in this process, with the reason IO_URING.
 *
 * The proof that nothing else went through a ring is the kernel's own count of the entries it
 * took: it must be the count of those that were read here (ring_all_seen()).
 *
 * Nothing here blocks or takes a lock; errno is kept. The layout of a ring is that of
 * io_uring_setup(2).
 */
#ifndef MCPOOL_RING_H
#define MCPOOL_RING_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/epoll.h>

#include "base/compiler.h"
#include "base/reasons.h"

struct conn;
struct io_uring_params;

/* EPOLL_CTL operations on connections that one io_uring_enter() can have; what is more refuses
 * the connections it concerns. */
#define RING_EPOLL_CTLS 64

/* An EPOLL_CTL that is about to be submitted for the connection at FD. */
struct ring_epoll_ctl {
    struct conn *conn; /* with a call under way; NULL when it is none */
    uint64_t user_data;
    int epfd, op, fd;
    struct epoll_event event;
};

/* One io_uring_enter() under way. */
struct ring_enter {
    struct ring *ring; /* NULL: nothing is to be done after the call */
    uint32_t head;     /* of the submission queue before the call */
    uint32_t count;    /* entries the kernel may take */
    uint32_t completed;
    uint32_t ctl_count;
    struct ring_epoll_ctl ctls[RING_EPOLL_CTLS];
};

/* What is told to the layer above; all are called in the owning process only. */
struct ring_above {
    void (*new_fd)(int fd); /* the kernel gave out FD, of which something else was known */
    bool (*unseen)(int fd, enum reason reason);    /* bytes are about to move unseen on FD */
    void (*unseen_everywhere)(enum reason reason); /* or may on all there are and will be */
};

/* ABOVE stays the caller's and must not change. Once, before the process has an owner. */
void ring_start(const struct ring_above *above);

/* io_uring_setup() made FD and filled in PARAMS, which the caller owns. */
COLD void ring_opened(int fd, const struct io_uring_params *params);

/* Before and after io_uring_enter(FD, TO_SUBMIT, ..., FLAGS). The second gets a struct
 * ring_enter; in the form of a cleanup handler. */
void ring_enter_begin(struct ring_enter *enter, int fd, uint32_t to_submit, uint32_t flags);
void ring_enter_end(void *enter);

/* io_uring_register() with OPCODE succeeded. */
COLD void ring_registered(uint32_t opcode);

/* The fd whose slot in the fd map was SLOT, with FDMAP_RING, is closed or about to be: unmaps
 * the ring. Pooling ends when it had entries that were not read here, which may be pending. */
COLD void ring_closed(uint32_t slot);

/* Whether every entry that the kernel took from any ring was read here. If not, pooling ends.
 */
bool ring_all_seen(void);

/* In the child of a fork: its parent's rings are not mapped there. */
COLD void ring_after_fork_in_child(void);

#endif
