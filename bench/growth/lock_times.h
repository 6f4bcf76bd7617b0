/*
 * Included before each file of a library for measuring: times the pool's lock. See
 * lock_times.c.
 */
#ifndef __ASSEMBLER__
#include "base/lock.h"

int64_t lock_times_now(void) __attribute__((visibility("hidden")));

/* Called when the lock was taken. SINCE is when the wait for it began, 0 for none. */
void lock_times_taken(int64_t since) __attribute__((visibility("hidden")));

/* Called when the lock was unlocked. */
void lock_times_given(void) __attribute__((visibility("hidden")));

static inline bool timed_acquire(struct lock *lock)
{
    /* relaxed: only tells whether a wait is likely; lock_acquire() below does the ordering */
    bool waits = atomic_load_explicit(&lock->word, memory_order_relaxed) != 0;
    int64_t since = waits ? lock_times_now() : 0;
    bool taken = lock_acquire(lock);

    if (taken)
        lock_times_taken(since);
    return taken;
}

static inline void timed_release(struct lock *lock)
{
    lock_release(lock);
    lock_times_given();
}

#define lock_acquire timed_acquire
#define lock_release timed_release

#endif
