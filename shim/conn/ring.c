/*
 * Maps rings, reads their submission entries, and compares with the kernel's counts.
 */
#include "conn/ring.h"

#include "base/compiler.h"

#include <linux/io_uring.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>

#include "conn/fdmap.h"
#include "base/owner.h"
#include "base/rawsys.h"
#include "base/usermem.h"
#include "conn/epoll_reg.h"
#include "conn/shadow.h"

/* Since Linux 6.6; older headers lack it. */
#ifndef IORING_SETUP_NO_SQARRAY
#define IORING_SETUP_NO_SQARRAY (1U << 16)
#endif

/* Since Linux 5.18. */
#ifndef IORING_SETUP_SUBMIT_ALL
#define IORING_SETUP_SUBMIT_ALL (1U << 7)
#endif

/* The flags of io_uring_setup() that we understand. A ring with another is not read: for
 * example, its entries may have another size, or a kernel thread may take them (SQPOLL). */
#define UNDERSTOOD_SETUP                                                                       \
    (IORING_SETUP_CQSIZE | IORING_SETUP_CLAMP | IORING_SETUP_SUBMIT_ALL |                      \
     IORING_SETUP_NO_SQARRAY)

/* The flags of io_uring_enter() that we understand. Not among them: the fd is an index
 * (IORING_ENTER_REGISTERED_RING). */
#define UNDERSTOOD_ENTER                                                                       \
    (IORING_ENTER_GETEVENTS | IORING_ENTER_SQ_WAKEUP | IORING_ENTER_EXT_ARG)

/* Rings at the same time; libuv has one for each event loop. One more ends pooling. */
#define RINGS 64

/* The bit of `users` that tells that the ring's fd is open. The other bits count references:
 * one of the open fd, one of each thread that reads the ring. 0: the record is free. */
#define OPEN 0x80000000u

/* How often all_seen() begins anew when a count changes meanwhile. */
#define TRIES 100

struct ring {
    _Atomic uint32_t users;
    /* Bounds of the kernel's count of entries taken: it is `taken` while no io_uring_enter() is
     * in progress, and up to `taking` more while one is. */
    _Atomic uint32_t taken;
    _Atomic uint32_t taking;
    atomic_flag entered;           /* an io_uring_enter() is in progress */
    uint32_t entries, completions; /* sizes of the two queues, powers of two */
    const char *queues;
    size_t queues_size;
    const struct io_uring_sqe *sqes;
    size_t sqes_size;
    /* Written by the kernel or the program, read by load(). */
    const uint32_t *head, *tail; /* of the submission queue */
    const uint32_t *array;       /* the order of the entries; NULL: as they lie */
    const uint32_t *completed;   /* tail of the completion queue */
    const struct io_uring_cqe *cqes;
};

static LARGE struct ring rings[RINGS];

/* One more than the highest index ever in use; 0 in most processes. */
static _Atomic uint32_t ring_end;

static AT_START const struct ring_above *above;

void ring_start(const struct ring_above *functions)
{
    above = functions;
}

static void refuse_all(void)
{
    if (owner_is_this_process())
        above->unseen_everywhere(REASON_IO_URING);
}

/* Acquire: pairs with the store release by which the kernel moves the head or the tail. */
static uint32_t load(const uint32_t *at)
{
    return __atomic_load_n(at, __ATOMIC_ACQUIRE);
}

static void unmap(struct ring *ring)
{
    raw_syscall(SYS_munmap, ring->queues, ring->queues_size);
    raw_syscall(SYS_munmap, ring->sqes, ring->sqes_size);
}

/* Takes a reference, so that the ring stays mapped until ring_put(). False when its fd is
 * closed. */
static bool ring_get(struct ring *ring)
{
    uint32_t users = atomic_load(&ring->users);

    while (users & OPEN)
        if (atomic_compare_exchange_weak(&ring->users, &users, users + 1))
            return true;
    return false;
}

/* The thread with the last reference unmaps the ring and then frees the record. The store and
 * the CAS of the others are seq_cst: they order all reading before the unmapping. */
static void ring_put(struct ring *ring)
{
    uint32_t users = atomic_load(&ring->users);

    do {
        if (users == 1) {
            unmap(ring);
            atomic_store(&ring->users, 0);
            return;
        }
    } while (!atomic_compare_exchange_weak(&ring->users, &users, users - 1));
}

static const void *map(int fd, size_t size, uint64_t offset)
{
    long at = raw_syscall(SYS_mmap, NULL, size, PROT_READ, MAP_SHARED, fd, offset);

    if (at < 0 && at > -4096)
        return NULL;
    /* A child of a fork has no use for the rings of its parent. */
    raw_syscall(SYS_madvise, at, size, MADV_DONTFORK);
    return (const void *)at;
}

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static bool map_ring(struct ring *ring, int fd, const struct io_uring_params *params)
{
    ring->queues_size =
        larger(params->sq_off.array + params->sq_entries * sizeof(uint32_t),
               params->cq_off.cqes + params->cq_entries * sizeof(struct io_uring_cqe));
    ring->sqes_size = params->sq_entries * sizeof(struct io_uring_sqe);
    ring->sqes = map(fd, ring->sqes_size, IORING_OFF_SQES);
    if (!ring->sqes)
        return false;
    ring->queues = map(fd, ring->queues_size, IORING_OFF_SQ_RING);
    if (!ring->queues)
        raw_syscall(SYS_munmap, ring->sqes, ring->sqes_size);
    return ring->queues;
}

static void set_pointers(struct ring *ring, const struct io_uring_params *params)
{
    const char *queues = ring->queues;

    ring->entries = params->sq_entries;
    ring->completions = params->cq_entries;
    ring->head = (const uint32_t *)(queues + params->sq_off.head);
    ring->tail = (const uint32_t *)(queues + params->sq_off.tail);
    ring->array = params->flags & IORING_SETUP_NO_SQARRAY
                      ? NULL
                      : (const uint32_t *)(queues + params->sq_off.array);
    ring->completed = (const uint32_t *)(queues + params->cq_off.tail);
    ring->cqes = (const struct io_uring_cqe *)(queues + params->cq_off.cqes);
    atomic_store(&ring->taken, 0);
    atomic_store(&ring->taking, 0);
    atomic_flag_clear(&ring->entered);
}

/* A free record and its index; the caller has its only reference. NULL when all are taken. */
static struct ring *claim_record(uint32_t *index)
{
    for (*index = 0; *index < RINGS; ++*index) {
        uint32_t none = 0;

        if (atomic_compare_exchange_strong(&rings[*index].users, &none, 1))
            return &rings[*index];
    }
    return NULL;
}

static void note_end(uint32_t end)
{
    uint32_t seen = atomic_load(&ring_end);

    while (end > seen && !atomic_compare_exchange_weak(&ring_end, &seen, end))
        ;
}

static bool is_understood(int fd, const struct io_uring_params *params)
{
    return fd < FDMAP_SIZE && (params->flags & ~UNDERSTOOD_SETUP) == 0 &&
           params->features & IORING_FEAT_SINGLE_MMAP && params->features & IORING_FEAT_NODROP;
}

void ring_opened(int fd, const struct io_uring_params *params)
{
    struct ring *ring;
    uint32_t index;

    if (!fdmap_is_plain(fd))
        above->new_fd(fd);
    ring = is_understood(fd, params) ? claim_record(&index) : NULL;
    if (!ring) {
        refuse_all();
        return;
    }
    if (!map_ring(ring, fd, params)) {
        atomic_store(&ring->users, 0);
        refuse_all();
        return;
    }
    set_pointers(ring, params);
    note_end(index + 1);
    atomic_store(&ring->users, OPEN | 1);
    fdmap_exchange(fd, FDMAP_EPOLL | FDMAP_RING | (index + 1));
}

static struct ring *ring_of_word(uint32_t word)
{
    return word & FDMAP_RING ? &rings[(word & FDMAP_INDEX) - 1] : NULL;
}

/* Whether every entry that the kernel took from RING was read here. `taken` and `taking` are
 * seq_cst and pair with begin() and ring_enter_end(); see shim/concurrency.md, 4. */
static bool all_seen(const struct ring *ring)
{
    for (int i = 0; i < TRIES; i++) {
        uint32_t taken = atomic_load(&ring->taken), taking = atomic_load(&ring->taking);
        uint32_t head = load(ring->head);

        if (head - taken <= taking)
            return true;
        /* If one has changed, another thread has begun or ended an io_uring_enter() meanwhile.
         * The end writes `taken` first, so `taken` is looked at last. */
        if (taking != atomic_load(&ring->taking) || taken != atomic_load(&ring->taken))
            continue;
        return false;
    }
    return false;
}

void ring_closed(uint32_t word)
{
    struct ring *ring = ring_of_word(word);

    if (!all_seen(ring))
        refuse_all();
    atomic_fetch_and(&ring->users, ~OPEN);
    ring_put(ring);
}

void ring_registered(uint32_t opcode)
{
    if (owner_is_this_process() && opcode != IORING_REGISTER_PROBE)
        refuse_all();
}

/* Whether OPCODE uses no existing fd but that of its entry. */
static bool touches_one_fd(uint8_t opcode)
{
    switch (opcode) {
    case IORING_OP_NOP:
    case IORING_OP_READV:
    case IORING_OP_WRITEV:
    case IORING_OP_FSYNC:
    case IORING_OP_POLL_ADD:
    case IORING_OP_TIMEOUT:
    case IORING_OP_FALLOCATE:
    case IORING_OP_OPENAT:
    case IORING_OP_STATX:
    case IORING_OP_READ:
    case IORING_OP_WRITE:
        return true;
    default:
        return false;
    }
}

/* Notes the EPOLL_CTL in SQE of the connection at FD, for note_completed(). If its event cannot
 * be read it is not noted, as the kernel will refuse it.
 *
 * The connection has a call in flight until the EPOLL_CTL has completed. io_uring_enter() may
 * wait long, and another thread may close the connection meanwhile: it must not be pooled with
 * a registration that we do not know of yet. */
static void note_ctl(struct ring_enter *enter, const struct io_uring_sqe *sqe, int fd)
{
    const struct epoll_event *event = (const struct epoll_event *)(uintptr_t)sqe->addr;
    struct ring_epoll_ctl *ctl = &enter->ctls[enter->ctl_count];

    if (enter->ctl_count == RING_EPOLL_CTLS) {
        shadow_refuse(fd, REASON_IO_URING);
        return;
    }
    *ctl = (struct ring_epoll_ctl){
        .user_data = sqe->user_data, .epfd = sqe->fd, .op = (int)sqe->len, .fd = fd};
    if (ctl->op != EPOLL_CTL_DEL) {
        if (!usermem_readable(event, sizeof(*event)))
            return;
        ctl->event = *event;
    }
    ctl->conn = conn_get(fd, CONN_CALL_OTHER);
    enter->ctl_count++;
}

/* Reads one submission entry. False when we cannot tell what it does. With a flag set its fd
 * may be an index, or the kernel may look it up later, when it names another file. */
static bool read_entry(struct ring_enter *enter, const struct io_uring_sqe *entry)
{
    struct io_uring_sqe sqe = *entry;
    int fd = (int)sqe.off;

    if (sqe.flags != 0)
        return false;
    if (sqe.opcode == IORING_OP_EPOLL_CTL) {
        if (!fdmap_is_plain(fd))
            note_ctl(enter, &sqe, fd);
        return true;
    }
    if (!touches_one_fd(sqe.opcode))
        return false;
    if (!fdmap_is_plain(sqe.fd))
        above->unseen(sqe.fd, REASON_IO_URING);
    return true;
}

static bool read_entries(struct ring_enter *enter)
{
    const struct ring *ring = enter->ring;
    uint32_t mask = ring->entries - 1;

    for (uint32_t i = 0; i < enter->count; i++) {
        uint32_t at = (enter->head + i) & mask;

        if (ring->array)
            at = load(&ring->array[at]);
        if (at >= ring->entries || !read_entry(enter, &ring->sqes[at]))
            return false;
    }
    return true;
}

/* False when we cannot tell what the call will submit, also when two threads submit to one ring
 * at the same time. test_and_set acquires, the clear in ring_enter_end() releases. */
static bool begin(struct ring_enter *enter, uint32_t to_submit)
{
    struct ring *ring = enter->ring;
    uint32_t ready;

    if (atomic_flag_test_and_set(&ring->entered))
        return false;
    enter->head = load(ring->head);
    if (enter->head != atomic_load(&ring->taken))
        return false;
    ready = load(ring->tail) - enter->head;
    enter->count = to_submit < ready ? to_submit : ready;
    enter->completed = load(ring->completed);
    if (enter->count > ring->entries || !read_entries(enter))
        return false;
    atomic_store(&ring->taking, enter->count);
    return true;
}

static void put_connections(const struct ring_enter *enter)
{
    for (uint32_t i = 0; i < enter->ctl_count; i++)
        if (enter->ctls[i].conn)
            conn_put(enter->ctls[i].conn, CONN_CALL_OTHER);
}

void ring_enter_begin(struct ring_enter *enter, int fd, uint32_t to_submit, uint32_t flags)
{
    struct ring *ring = ring_of_word(fdmap_get(fd));

    enter->ring = NULL;
    if (!owner_is_this_process() || owner_refusal() != REASON_NONE)
        return;
    if (!ring || flags & ~UNDERSTOOD_ENTER) {
        refuse_all();
        return;
    }
    if (to_submit == 0 || !ring_get(ring))
        return;
    enter->ring = ring;
    enter->ctl_count = 0;
    if (begin(enter, to_submit))
        return;
    put_connections(enter);
    enter->ring = NULL;
    ring_put(ring);
    refuse_all();
}

/* The completion of CTL; NULL when there is none yet, or more than one. */
static const struct io_uring_cqe *completion(const struct ring_enter *enter,
                                             const struct ring_epoll_ctl *ctl)
{
    const struct ring *ring = enter->ring;
    uint32_t end = load(ring->completed);
    const struct io_uring_cqe *found = NULL;

    if (end - enter->completed > ring->completions)
        return NULL;
    for (uint32_t i = enter->completed; i != end; i++) {
        const struct io_uring_cqe *cqe = &ring->cqes[i & (ring->completions - 1)];

        if (cqe->user_data != ctl->user_data)
            continue;
        if (found)
            return NULL;
        found = cqe;
    }
    return found;
}

/* Notes the registration if CTL has succeeded. One that failed changed nothing. If we cannot
 * tell which, the connection is refused. */
static void note_completed(const struct ring_enter *enter, const struct ring_epoll_ctl *ctl)
{
    const struct io_uring_cqe *cqe = completion(enter, ctl);

    if (!cqe)
        shadow_refuse(ctl->fd, REASON_IO_URING);
    else if (cqe->res == 0)
        epoll_reg_note(ctl->epfd, ctl->op, ctl->fd, &ctl->event);
}

/* The record is free if this is the child of a fork() by a signal handler that interrupted the
 * call: the ring is not mapped there. */
void ring_enter_end(void *argument)
{
    struct ring_enter *enter = argument;
    struct ring *ring = enter->ring;
    uint32_t head;

    if (!ring || atomic_load(&ring->users) == 0)
        return;
    head = load(ring->head);
    for (uint32_t i = 0; i < enter->ctl_count; i++)
        note_completed(enter, &enter->ctls[i]);
    put_connections(enter);
    if (head - enter->head > enter->count)
        refuse_all();
    /* In this order: all_seen() looks at the two the other way round. */
    atomic_store(&ring->taken, head);
    atomic_store(&ring->taking, 0);
    atomic_flag_clear(&ring->entered);
    ring_put(ring);
}

/* ring_end is loaded relaxed: it only grows, and includes every ring that this thread made. */
bool ring_all_seen(void)
{
    uint32_t end = atomic_load_explicit(&ring_end, memory_order_relaxed);
    bool seen = true;

    for (uint32_t i = 0; i < end && seen; i++) {
        if (!ring_get(&rings[i]))
            continue;
        seen = all_seen(&rings[i]);
        ring_put(&rings[i]);
    }
    if (!seen)
        refuse_all();
    return seen;
}

void ring_after_fork_in_child(void)
{
    uint32_t end = atomic_exchange(&ring_end, 0);

    for (uint32_t i = 0; i < end; i++)
        atomic_store(&rings[i].users, 0);
    for (int fd = 0; end > 0 && fd < fdmap_end(); fd++)
        if (fdmap_get(fd) & FDMAP_RING)
            fdmap_exchange(fd, FDMAP_NONE);
}
