/*
 * Reads the rings of io_uring that the program makes, to see its epoll registrations: libuv
 * makes them through a ring since 1.50.
 *
 * We map each ring a second time and read every submission entry before io_uring_enter(2). An
 * EPOLL_CTL that has completed is noted as epoll_ctl() is. Any other operation on a connection
 * refuses the connection. A ring or an operation that we cannot read ends pooling in this
 * process, with the reason IO_URING.
 *
 * The kernel counts the entries it has taken from a ring. Check-in compares that count with
 * what was read here (ring_all_seen()): if they differ, the kernel took entries we have not
 * seen.
 *
 * The layout of a ring is that of io_uring_setup(2). No function here blocks or waits for a
 * lock. errno is kept.
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

/* EPOLL_CTL operations on connections that are noted of one io_uring_enter(). A further one
 * refuses its connection. */
#define RING_EPOLL_CTLS 64

/* An EPOLL_CTL that is about to be submitted for the connection at FD. */
struct ring_epoll_ctl {
    struct conn *conn; /* with a call in flight; NULL when FD is no connection by now */
    uint64_t user_data;
    int epfd, op, fd;
    struct epoll_event event;
};

/* One io_uring_enter() in progress. */
struct ring_enter {
    struct ring *ring;  /* NULL: ring_enter_end() has nothing to do */
    uint32_t head;      /* of the submission queue before the call */
    uint32_t count;     /* entries that the kernel may take in this call */
    uint32_t completed; /* tail of the completion queue before the call */
    uint32_t ctl_count;
    struct ring_epoll_ctl ctls[RING_EPOLL_CTLS];
};

/* Functions of the layer above, called in the owning process only. */
struct ring_above {
    void (*new_fd)(int fd); /* the kernel gave FD to a new ring: forget its former word */
    bool (*unseen)(int fd, enum reason reason);    /* bytes may move on FD without our seeing */
    void (*unseen_everywhere)(enum reason reason); /* the same on every fd, now and later */
};

/* ABOVE stays the caller's and must not change. Once, before the process has an owner. */
void ring_start(const struct ring_above *above);

/* io_uring_setup() has made the ring FD and filled in PARAMS, which stays the caller's. */
COLD void ring_opened(int fd, const struct io_uring_params *params);

/* Before and after io_uring_enter(FD, TO_SUBMIT, ..., FLAGS). ring_enter_end() is a cleanup
 * handler: its argument is the struct ring_enter. */
void ring_enter_begin(struct ring_enter *enter, int fd, uint32_t to_submit, uint32_t flags);
void ring_enter_end(void *enter);

/* io_uring_register() with OPCODE has succeeded: all but a probe ends pooling. */
COLD void ring_registered(uint32_t opcode);

/* The fd of a ring is closed or about to be; the fd map had WORD for it, with FDMAP_RING.
 * Unmaps the ring once no thread reads it. Ends pooling if the kernel took entries that were
 * not read here, as these may still be pending. */
COLD void ring_closed(uint32_t word);

/* Whether every entry that the kernel took, from any ring, was read here. If not, it ends
 * pooling. */
bool ring_all_seen(void);

/* In the child of a fork: forgets the parent's rings, which are not mapped there. */
COLD void ring_after_fork_in_child(void);

#endif
