/*
 * Who belongs to the family: joining at a fork, leaving, the lock, the queues and the board.
 */
#include "pool/family.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "base/hash.h"
#include "base/ids.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/ownfile.h"
#include "base/rawsys.h"
#include "base/signals.h"
#include "conn/conn.h"
#include "conn/limits.h"
#include "stats/mode.h"
#include "stats/stats.h"

/* How many families a process and the ancestors that it was forked from make: each has a board,
 * which stays mapped. A program that changes its user for each child would have a mapping more
 * each time, until the kernel refuses it memory. */
#define MADE_MOST 32

_Atomic(struct family_board *) family_board;

static const struct config *settings;
static struct lock turn_lock;
/* Without fds also before family_start(), when a child may close its copies already. */
static struct fdqueue queues[FAMILY_QUEUES] = {[0 ... FAMILY_QUEUES - 1] = {.fd = -1}};
static unsigned int size_of_one;
static unsigned int families_made;
static struct ids identity;                      /* of the family */
static _Atomic unsigned int state = SHARE_ALONE; /* enum share */

/* Forks that could not have the lock and have not ended. Between the two moments at which such
 * a fork raises fork_epoch, a turn may begin, see the child made, and end. */
static _Atomic unsigned int unguarded;

/* Why the family is to be left by the thread that has the lock; SHARE_ALONE: it is not. */
static _Atomic unsigned int leaving = SHARE_ALONE;

static void note_state(enum share share)
{
    struct family_board *board = family_get();

    atomic_store(&state, share);
    /* The first queue tells the family from all others. */
    if (board)
        stats_note_share(share, queues[0].cookie, &board->total);
    else
        stats_note_share(share, 0, NULL);
}

void family_start(const struct config *config)
{
    settings = config;
    note_state(config->share == CONFIG_SHARE_OFF ? SHARE_OFF : SHARE_ALONE);
}

/* Looks in /proc/self/status for a line that says that no seccomp filter is active. prctl(2)
 * would be killed by a filter that forbids it; files can be read under any filter that lets a
 * program start. */
static bool is_filtered(void)
{
    static const char wanted[] = "\nSeccomp:\t0\n";
    char bytes[256] = {0};
    size_t matched = 0;
    int fd = ownfile_open("/proc/self/status", O_RDONLY);
    long n = 0;

    if (fd < 0)
        return true;
    while (matched < sizeof(wanted) - 1 &&
           (n = raw_syscall(SYS_read, fd, bytes, sizeof(bytes))) > 0) {
        for (long i = 0; i < n && matched < sizeof(wanted) - 1; i++)
            matched = bytes[i] == wanted[matched] ? matched + 1 : bytes[i] == wanted[0];
    }
    ownfile_close(fd);
    return matched < sizeof(wanted) - 1;
}

static void close_queues(void)
{
    for (size_t i = 0; i < FAMILY_QUEUES; i++)
        fdqueue_close(&queues[i]);
}

/* Fills size_of_one by QUEUE, which is empty. */
static bool measure(const struct fdqueue *queue)
{
    char bytes[FAMILY_MESSAGE_MOST] = {0};
    int none;

    if (raw_syscall(SYS_sendto, queue->fd, bytes, sizeof(bytes), MSG_DONTWAIT | MSG_NOSIGNAL,
                    NULL, 0) < 0)
        return false;
    size_of_one = fdqueue_size(queue);
    fdqueue_take(queue, bytes, sizeof(bytes), &none);
    return size_of_one > 0;
}

static bool make_queues(void)
{
    bool made = true;

    for (size_t i = 0; i < FAMILY_QUEUES && made; i++)
        made = fdqueue_make(&queues[i]);
    if (made && measure(&queues[0]))
        return true;
    close_queues();
    return false;
}

/* Why this process cannot make a family; SHARE_SHARED when it may. */
static enum share obstacle(void)
{
    if (owner_refusal() != REASON_NONE)
        return SHARE_UNPOOLED;
    if (mode_now() != MODE_ON)
        return SHARE_DRY_RUN;
    limits_read(clock_now());
    if (limits_fds() < FAMILY_FEWEST_FDS)
        return SHARE_FEW_FDS;
    if (settings->share != CONFIG_SHARE_ALWAYS && is_filtered())
        return SHARE_FILTERED;
    return SHARE_SHARED;
}

/* The board is not touched before there is something to share: a page costs more than a queue.
 */
static enum share make(void)
{
    enum share share = obstacle();
    long page;

    if (share != SHARE_SHARED)
        return share;
    page = raw_syscall(SYS_mmap, NULL, sizeof(struct family_board), PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (page < 0 && page > -4096)
        return SHARE_NO_QUEUE;
    if (ids_ask(&identity) && make_queues()) {
        families_made++;
        atomic_store(&family_board, (struct family_board *)page);
        /* Waits have to look after the queues. */
        atomic_store(&conn_ever_used, true);
        return SHARE_SHARED;
    }
    raw_syscall(SYS_munmap, page, sizeof(struct family_board));
    return SHARE_NO_QUEUE;
}

/* Whether a fork is worth a try: some obstacles never go away. Why the last family was left
 * stays known when no other is made. */
static bool may_try(void)
{
    switch ((enum share)atomic_load(&state)) {
    case SHARE_ALONE:
    case SHARE_IDENTITY:
    case SHARE_CLOSED:
    case SHARE_FEW_FDS:
    case SHARE_DRY_RUN:
        return families_made < MADE_MOST;
    default:
        return false;
    }
}

void family_before_fork(bool can_make)
{
    struct ownfile own;

    if (!lock_acquire(&turn_lock)) {
        atomic_fetch_add(&unguarded, 1);
        return;
    }
    if (can_make && may_try() && ownfile_begin(&own)) {
        note_state(make());
        ownfile_end(&own, 0, 0);
    }
}

/* In a turn. */
static void leave(enum share why)
{
    struct family_board *board = family_get();

    if (board)
        members_leave(&board->members);
    atomic_store(&family_board, NULL);
    close_queues();
    note_state(why);
}

static void leave_if_noted(void)
{
    unsigned int why = atomic_exchange(&leaving, SHARE_ALONE);

    if (why != SHARE_ALONE)
        leave((enum share)why);
}

/* Gives the lock back. A thread that wanted to leave and could not have the lock has noted that
 * before. It may have done so after the look, so there is another one after the release. */
static void give_lock_back(void)
{
    do {
        leave_if_noted();
        lock_release(&turn_lock);
    } while (atomic_load(&leaving) != SHARE_ALONE && lock_try(&turn_lock));
}

/* A fork can take longer than a thread waits that wants to leave. In a sandbox no system call
 * of ours is made (pool/sandbox.h). */
void family_after_fork_in_parent(void)
{
    if (!lock_is_mine(&turn_lock))
        atomic_fetch_sub(&unguarded, 1);
    else if (owner_is_this_process())
        give_lock_back();
    else
        lock_release(&turn_lock);
}

/* A child must not have the queues of an identity that its parent has given up, or that another
 * thread of the parent was about to change for all threads. If that thread wants to enter a
 * sandbox, the child may be in it: as above. */
void family_after_fork_in_child(void)
{
    atomic_store(&turn_lock.word, 0);
    atomic_store(&unguarded, 0);
    if (atomic_load(&leaving) == SHARE_SANDBOX) {
        atomic_store(&leaving, SHARE_ALONE);
        return;
    }
    leave_if_noted();
    if (family_get() && !ids_are(&identity)) {
        atomic_fetch_add(&cred_epoch, 1);
        leave(SHARE_IDENTITY);
    }
}

bool family_leave(enum share why)
{
    struct family_turn turn;

    if (!family_get())
        return false;
    if (lock_is_mine(&turn_lock)) {
        leave(why);
        return true;
    }
    atomic_store(&leaving, why);
    if (family_begin(&turn)) {
        family_end(&turn);
    } else if (lock_acquire(&turn_lock)) {
        /* The signals could not be blocked. */
        give_lock_back();
    }
    return true;
}

/* A signal handler, or a handler of fork() that was registered before ours, may find that its
 * own thread has the lock. */
bool family_begin(struct family_turn *turn)
{
    if (lock_is_mine(&turn_lock) || !signals_block_all(&turn->mask))
        return false;
    if (lock_acquire(&turn_lock))
        return true;
    signals_restore(turn->mask);
    return false;
}

/* In this order: the parent raises the epoch once more before it ends the fork. */
bool family_forked_since(uint32_t forks)
{
    return atomic_load(&unguarded) > 0 || atomic_load(&fork_epoch) != forks;
}

void family_end(const struct family_turn *turn)
{
    give_lock_back();
    signals_restore(turn->mask);
}

void family_close_copies(void)
{
    for (size_t i = 0; i < FAMILY_QUEUES; i++) {
        if (fdqueue_is_there(&queues[i]))
            raw_close(queues[i].fd);
    }
}

void family_forget_copies(void)
{
    family_close_copies();
    for (size_t i = 0; i < FAMILY_QUEUES; i++)
        queues[i].fd = -1;
}

static void move_queues(void)
{
    for (size_t i = 0; i < FAMILY_QUEUES; i++) {
        if (!fdqueue_move(&queues[i], false)) {
            leave(SHARE_CLOSED);
            return;
        }
    }
}

void family_move_queues(void)
{
    struct family_turn turn;

    if (!family_get() || !family_begin(&turn))
        return;
    move_queues();
    family_end(&turn);
}

static struct fdqueue *queue_at(int fd)
{
    for (size_t i = 0; i < FAMILY_QUEUES; i++) {
        if (queues[i].fd == fd)
            return &queues[i];
    }
    return NULL;
}

bool family_yield(int fd)
{
    struct family_turn turn;
    struct fdqueue *queue;
    bool open = false;

    if (!family_begin(&turn))
        return false;
    queue = queue_at(fd);
    if (queue) {
        open = fdqueue_is_there(queue);
        if (!fdqueue_move(queue, true))
            leave(SHARE_CLOSED);
    }
    family_end(&turn);
    return open;
}

void family_leave_range(unsigned int first, unsigned int last)
{
    for (size_t i = 0; i < FAMILY_QUEUES; i++) {
        int fd = queues[i].fd;

        if (fd >= 0 && (unsigned int)fd >= first && (unsigned int)fd <= last)
            family_leave(SHARE_CLOSED);
    }
}

bool family_has_fd(int fd)
{
    const struct fdqueue *queue = queue_at(fd);

    return queue && fdqueue_is_there(queue);
}

/* Claims a queue that is for no endpoint, or whose endpoint has none in it. */
static size_t claim_queue(struct family_board *board, uint64_t endpoint)
{
    for (size_t i = 0; i < FAMILY_QUEUES; i++) {
        struct family_queue *queue = &board->queues[i];
        uint64_t former = atomic_load(&queue->endpoint);

        if ((former == 0 || atomic_load(&queue->queued) == 0) &&
            atomic_compare_exchange_strong(&queue->endpoint, &former, endpoint))
            return i;
    }
    return endpoint % FAMILY_QUEUES;
}

size_t family_queue_for(const struct endpoint *endpoint)
{
    struct family_board *board = family_get();
    uint64_t hash = hash_of(&endpoint->address, sizeof(endpoint->address)) | UINT64_C(1) << 32;

    for (size_t i = 0; board && i < FAMILY_QUEUES; i++) {
        if (atomic_load(&board->queues[i].endpoint) == hash)
            return i;
    }
    return board ? claim_queue(board, hash) : 0;
}

const struct fdqueue *family_open(size_t i)
{
    if (!family_get())
        return NULL;
    if (fdqueue_is_there(&queues[i]))
        return &queues[i];
    leave(SHARE_CLOSED);
    return NULL;
}

unsigned int family_size_of_one(void)
{
    return size_of_one;
}
