/*
 * The slow path of the lock: waiting for it with futex(2), and giving it up after a jump out of
 * a signal handler.
 */
#include "base/lock.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>
#include <time.h>

#include "base/rawsys.h"

_Thread_local uint32_t lock_self __attribute__((tls_model("initial-exec")));

static _Atomic uint32_t threads; /* that were given an id so far */

/* Ids are counted, not tids: no system call, and the id stays valid in the child of a fork. */
void lock_name_self(void)
{
    do {
        lock_self = (atomic_fetch_add(&threads, 1) + 1) & LOCK_HOLDER;
    } while (lock_self == 0);
}

void lock_wake(struct lock *lock, int most)
{
    raw_syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, most);
}

void lock_pause(long nanoseconds)
{
    const struct timespec pause = {.tv_nsec = nanoseconds};
    uint32_t unchanged = 0;

    raw_syscall(SYS_futex, &unchanged, FUTEX_WAIT_PRIVATE, 0, &pause);
}

/* The time on the clock that FUTEX_WAIT_BITSET uses. */
static struct timespec time_now(void)
{
    struct timespec now = {0, 0};

    raw_syscall(SYS_clock_gettime, CLOCK_MONOTONIC, &now);
    return now;
}

static struct timespec deadline_from_now(void)
{
    struct timespec end = time_now();

    end.tv_nsec += LOCK_PATIENCE_MS * 1000000L;
    if (end.tv_nsec >= 1000000000L) {
        end.tv_nsec -= 1000000000L;
        end.tv_sec++;
    }
    return end;
}

static bool is_over(const struct timespec *end)
{
    struct timespec now = time_now();

    return now.tv_sec > end->tv_sec ||
           (now.tv_sec == end->tv_sec && now.tv_nsec >= end->tv_nsec);
}

/* A thread that has slept cannot know whether others still sleep. So it takes the lock with
 * LOCK_WAITED set, which costs one spurious wake at most. It leaves the flag set also when it
 * gives up: lock_release() may have chosen this thread to be woken, and another one must then
 * be woken by the next holder. The steps are sc; see concurrency.md, 5. */
bool lock_wait(struct lock *lock)
{
    struct timespec end = {0, 0};
    uint32_t word = atomic_load(&lock->word);
    bool over = false;

    if (word & LOCK_STUCK)
        return false;
    end = deadline_from_now();
    while (true) {
        uint32_t wanted =
            (word == 0 ? lock_self : word) | LOCK_WAITED | (over && word != 0 ? LOCK_STUCK : 0);

        if (wanted != word && !atomic_compare_exchange_strong(&lock->word, &word, wanted))
            continue;
        if (word == 0)
            return true;
        if (over)
            return false;
        /* The deadline is absolute, so a signal does not prolong the wait. */
        raw_syscall(SYS_futex, &lock->word, FUTEX_WAIT_BITSET_PRIVATE, wanted, &end, NULL,
                    FUTEX_BITSET_MATCH_ANY);
        over = is_over(&end);
        word = atomic_load(&lock->word);
    }
}

bool lock_is_mine(struct lock *lock)
{
    /* Relaxed: only this thread writes its own id to the word. */
    return lock_self != 0 &&
           (atomic_load_explicit(&lock->word, memory_order_relaxed) & LOCK_HOLDER) == lock_self;
}

void lock_abandon(struct lock *lock)
{
    if (lock_is_mine(lock))
        atomic_store(&lock->word, 0);
    lock_wake(lock, INT_MAX);
}
