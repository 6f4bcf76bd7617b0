/*
 * The seats of the elected threads, with what each waits for and what of that was closed.
 */
#include "conn/waiter.h"

#include <errno.h>
#include <signal.h>
#include <stddef.h>
#include <unistd.h>

#include "conn/fdmap.h"
#include "conn/shadow.h"
#include "base/compiler.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/ownfile.h"
#include "base/rawsys.h"
#include "base/signals.h"

/* More than one, as work may become due before the elected thread comes back: then another one
 * is elected, and the first one, which still has its list, is so no more when it is back. */
#define SEATS 4

/* A thread that is so late has ended, or is stopped. */
#define GRACE ((msec_t)1000)

/* The owner of a seat, in one word so that the seat is taken and given back in one step: until
 * when its piece lasts, whether that is its last, and its number. 0: the seat is free. */
#define NUMBER_BITS 24
#define NUMBER_MASK ((UINT64_C(1) << NUMBER_BITS) - 1)
#define LAST        (UINT64_C(1) << NUMBER_BITS)
#define UNTIL_SHIFT (NUMBER_BITS + 1)

/* A closed fd: the number of the owner, fd + 1, copy + 1. 0: a free entry. An entry belongs to
 * the thread that puts it in or takes it out, by compare and swap. */
#define FD_BITS 17
#define FD_MASK ((UINT64_C(1) << FD_BITS) - 1)
_Static_assert(FDMAP_SIZE < FD_MASK, "an fd fits");
_Static_assert(NUMBER_BITS + 2 * FD_BITS <= 64, "an entry fits");

struct waiter_seat {
    _Atomic uint64_t owner;
    _Atomic int tid;            /* of the owner */
    _Atomic unsigned int count; /* of the fds */
    _Atomic int fds[WAITER_FDS_MOST];
    _Atomic uint64_t closed[WAITER_CLOSED_MOST];
};

static LARGE struct waiter_seat seats[SEATS];
static __thread int own_tid; /* asked for once */
static _Atomic uint64_t elections;

_Atomic unsigned int waiter_count;

#define EACH_SEAT(i) for (int i = 0; i < SEATS; i++)

static uint64_t owner_until(uint64_t number, msec_t until)
{
    return (uint64_t)until << UNTIL_SHIFT | number;
}

static uint64_t number_of(uint64_t owner)
{
    return owner & NUMBER_MASK;
}

static msec_t end_of(uint64_t owner)
{
    return (msec_t)(owner >> UNTIL_SHIFT);
}

/* Whether the seat of OWNER may be taken: it is free, its owner is late, or the kernel has
 * begun the last piece of its owner. */
static bool is_over(uint64_t owner)
{
    return owner == 0 || clock_now() > end_of(owner) + GRACE;
}

static bool holds(const struct waiter *waiter)
{
    return number_of(atomic_load(&waiter->seat->owner)) == waiter->number;
}

static uint64_t entry_of(uint64_t number, int fd, int copy)
{
    return number << (2 * FD_BITS) | (uint64_t)(fd + 1) << FD_BITS | (uint64_t)(copy + 1);
}

static bool is_entry_of(uint64_t entry, uint64_t number)
{
    return entry != 0 && entry >> (2 * FD_BITS) == number;
}

static struct waiter_closed closed_of(uint64_t entry)
{
    return (struct waiter_closed){(int)(entry >> FD_BITS & FD_MASK) - 1,
                                  (int)(entry & FD_MASK) - 1};
}

/* Only the thread whose swap removes the entry closes the copy. */
static void remove_entry(_Atomic uint64_t *at, uint64_t entry)
{
    if (atomic_compare_exchange_strong(at, &entry, 0))
        shadow_close_copy(closed_of(entry).copy);
}

/* Removes the entries whose number is NUMBER, or those whose number is not. */
static void remove_entries(struct waiter_seat *seat, uint64_t number, bool own)
{
    for (int i = 0; i < WAITER_CLOSED_MOST; i++) {
        uint64_t entry = atomic_load(&seat->closed[i]);

        if (entry != 0 && is_entry_of(entry, number) == own)
            remove_entry(&seat->closed[i], entry);
    }
}

static bool watches(const struct waiter_seat *seat, int fd)
{
    unsigned int count = atomic_load(&seat->count);

    for (unsigned int i = 0; i < count; i++) {
        if (atomic_load_explicit(&seat->fds[i], memory_order_relaxed) == fd)
            return true;
    }
    return false;
}

static bool is_watched(int fd)
{
    EACH_SEAT(i)
    {
        if (watches(&seats[i], fd))
            return true;
    }
    return false;
}

/* Empties the list of SEAT. A thread that begins to watch an fd lists it, then marks it in the
 * map; here the mark is taken away before the other lists are looked at. So an fd that is
 * watched has its mark. */
static void unwatch_all(struct waiter_seat *seat)
{
    unsigned int count = atomic_exchange(&seat->count, 0);

    for (unsigned int i = 0; i < count; i++) {
        int fd = atomic_load(&seat->fds[i]);

        if (fdmap_replace(fd, FDMAP_WAITED, FDMAP_NONE) && is_watched(fd))
            fdmap_replace(fd, FDMAP_NONE, FDMAP_WAITED);
    }
}

/* A last piece ends at an unknown time: its owner does not come back for the work. */
static bool comes_back_by(uint64_t owner, msec_t until)
{
    return !is_over(owner) && !(owner & LAST) && end_of(owner) <= until;
}

static bool another_comes_back(const struct waiter_seat *own, msec_t until)
{
    EACH_SEAT(i)
    {
        if (&seats[i] != own && comes_back_by(atomic_load(&seats[i].owner), until))
            return true;
    }
    return false;
}

bool waiter_is_wanted(msec_t until)
{
    return !another_comes_back(NULL, until);
}

/* A seat that may be taken, with OWNER; NULL if there is none. */
static struct waiter_seat *find_seat(uint64_t *owner)
{
    EACH_SEAT(i)
    {
        *owner = atomic_load(&seats[i].owner);
        if (is_over(*owner))
            return &seats[i];
    }
    return NULL;
}

/* Threads that are here at the same time find the same seat, look at the others, and try to
 * take it. One gets it. The others look again, and find that they are not wanted. */
bool waiter_elect(struct waiter *waiter, msec_t until)
{
    uint64_t number = atomic_fetch_add(&elections, 1) % NUMBER_MASK + 1, former;
    struct waiter_seat *seat;

    do {
        seat = find_seat(&former);
        if (!seat || another_comes_back(NULL, until))
            return false;
    } while (
        !atomic_compare_exchange_strong(&seat->owner, &former, owner_until(number, until)));
    if (former == 0)
        atomic_fetch_add(&waiter_count, 1);
    if (own_tid == 0)
        own_tid = (int)raw_syscall(SYS_gettid);
    atomic_store(&seat->tid, own_tid);
    unwatch_all(seat);
    remove_entries(seat, number, false);
    *waiter = (struct waiter){seat, number};
    return true;
}

bool waiter_watch(const struct waiter *waiter, int fd)
{
    struct waiter_seat *seat = waiter->seat;
    unsigned int count = atomic_load(&seat->count);

    if (fd < 0)
        return true;
    if (fd >= FDMAP_SIZE || count >= WAITER_FDS_MOST)
        return false;
    atomic_store(&seat->fds[count], fd);
    atomic_store(&seat->count, count + 1);
    fdmap_replace(fd, FDMAP_NONE, FDMAP_WAITED);
    return true;
}

bool waiter_go_on(const struct waiter *waiter, msec_t until)
{
    uint64_t owner = atomic_load(&waiter->seat->owner), next;

    if (until == 0 || another_comes_back(waiter->seat, until)) {
        next = owner_until(waiter->number, clock_now()) | LAST;
        until = 0;
    } else {
        next = owner_until(waiter->number, until);
    }
    return number_of(owner) == waiter->number &&
           atomic_compare_exchange_strong(&waiter->seat->owner, &owner, next) && until != 0;
}

unsigned int waiter_closed(const struct waiter *waiter,
                           struct waiter_closed closed[WAITER_CLOSED_MOST])
{
    unsigned int count = 0;

    for (int i = 0; i < WAITER_CLOSED_MOST; i++) {
        uint64_t entry = atomic_load(&waiter->seat->closed[i]);

        if (is_entry_of(entry, waiter->number))
            closed[count++] = closed_of(entry);
    }
    return holds(waiter) ? count : 0;
}

/* The entries are removed after the seat is free: a thread that enters one later sees that, and
 * removes it itself. While the list is emptied no other thread may take the seat. */
void waiter_leave(const struct waiter *waiter)
{
    const msec_t never = INT64_MAX >> UNTIL_SHIFT;
    uint64_t owner = atomic_load(&waiter->seat->owner);

    if (number_of(owner) != waiter->number ||
        !atomic_compare_exchange_strong(&waiter->seat->owner, &owner,
                                        owner_until(waiter->number, never - GRACE) | LAST))
        return;
    unwatch_all(waiter->seat);
    atomic_store(&waiter->seat->owner, 0);
    remove_entries(waiter->seat, waiter->number, true);
    atomic_fetch_sub(&waiter_count, 1);
}

static bool is_entered(const struct waiter *waiter, int fd)
{
    for (int i = 0; i < WAITER_CLOSED_MOST; i++) {
        uint64_t entry = atomic_load(&waiter->seat->closed[i]);

        if (is_entry_of(entry, waiter->number) && closed_of(entry).fd == fd)
            return true;
    }
    return false;
}

/* Enters the closed FD for WAITER, which then has COPY. */
static void enter(const struct waiter *waiter, int fd, int copy)
{
    uint64_t entry = entry_of(waiter->number, fd, copy);

    for (int i = 0; i < WAITER_CLOSED_MOST; i++) {
        uint64_t unused = 0;

        if (!atomic_compare_exchange_strong(&waiter->seat->closed[i], &unused, entry))
            continue;
        if (!holds(waiter))
            remove_entry(&waiter->seat->closed[i], entry);
        return;
    }
    shadow_close_copy(copy);
}

/* Whether SEAT has an owner that watches FD and does not know yet that it is closed. */
static bool needs_to_know(struct waiter_seat *seat, int fd, struct waiter *waiter)
{
    uint64_t owner = atomic_load(&seat->owner);

    *waiter = (struct waiter){seat, number_of(owner)};
    return !is_over(owner) && watches(seat, fd) && !is_entered(waiter, fd);
}

/* Signals are blocked, as a handler that jumps out would leave a copy behind. A copy of a ring
 * would keep alive what is pending on it. */
void waiter_closing_slow(int fd, uint32_t word)
{
    struct waiter waiter;
    struct ownfile own;

    if (word & (FDMAP_SHADOW | FDMAP_CLOSING) || !owner_is_this_process())
        return;
    EACH_SEAT(i)
    {
        if (!needs_to_know(&seats[i], fd, &waiter) || !ownfile_begin(&own))
            continue;
        enter(&waiter, fd, word & FDMAP_RING ? -1 : shadow_copy(fd));
        ownfile_end(&own, 0, 0);
    }
}

void waiter_closed_unseen(int fd)
{
    struct waiter waiter;

    EACH_SEAT(i)
    {
        if (needs_to_know(&seats[i], fd, &waiter))
            enter(&waiter, fd, -1);
    }
}

/* libc's own signal for setuid() among threads. Its handler is there once there are threads,
 * and ignores a signal that was sent in another way than libc does. The end of a handler ends
 * the waits that are cut. */
#define NUDGE (__SIGRTMIN + 1)

static bool has_handler(int signal)
{
    uintptr_t handler;

    return signals_handler(signal, &handler) && handler != (uintptr_t)SIG_DFL &&
           handler != (uintptr_t)SIG_IGN;
}

/* Nudges the owner of SEAT. False when there is none: the seat is free, or its thread ended. */
static bool nudge(struct waiter_seat *seat)
{
    siginfo_t info = {.si_code = SI_QUEUE};

    return atomic_load(&seat->owner) != 0 &&
           raw_syscall(SYS_rt_tgsigqueueinfo, getpid(), atomic_load(&seat->tid), NUDGE,
                       &info) != -ESRCH;
}

/* Nudges again and again: the thread may not have begun its piece yet. */
void waiter_recall_all(void)
{
    enum { LOOKS = 1000, LOOK_EVERY = 1000000 };
    bool any = atomic_load(&waiter_count) > 0 && has_handler(NUDGE);

    for (int looked = 0; any && looked < LOOKS; looked++) {
        any = false;
        EACH_SEAT(i)
        {
            any |= nudge(&seats[i]);
        }
        if (any)
            lock_pause(LOOK_EVERY);
    }
}

void waiter_after_fork_in_child(void)
{
    own_tid = 0;
    if (atomic_load(&elections) == 0)
        return;
    EACH_SEAT(i)
    {
        unwatch_all(&seats[i]);
        atomic_store(&seats[i].owner, 0);
        remove_entries(&seats[i], 0, false);
    }
    atomic_store(&waiter_count, 0);
}
