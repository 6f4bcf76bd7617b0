/*
 * A lock that waits 10 ms at most, and that knows its holder.
 *
 * Waiting without a limit could be a deadlock, as the program can stop the holder anywhere. A
 * garbage collector stops all other threads by a signal whose handler waits. A thread in fork()
 * waits for the locks that atfork handlers of other libraries take. The thread that waits for
 * our lock may be the one that the holder waits for. So a wait ends after LOCK_PATIENCE_MS, and
 * the lock is marked as stuck: no thread waits for it until its holder has released it.
 *
 * A signal handler can leave any call by siglongjmp(), also one that acquires or releases the
 * lock. After the jump we must know whether the thread holds the lock, so one atomic step
 * writes both the lock and its holder. A mutex of libc notes its holder in a step of its own.
 *
 * Not recursive. No function here is a cancellation point. errno is kept. The orders of memory
 * are in concurrency.md, 5.
 */
#ifndef MCPOOL_LOCK_H
#define MCPOOL_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

/* How long one call waits at most, interruptions by signals included. */
#define LOCK_PATIENCE_MS 10

/* All zero is an unlocked lock. */
struct lock {
    _Atomic uint32_t word; /* the id of the holding thread, or 0, and the flags below */
};

#define LOCK_WAITED UINT32_C(0x80000000) /* a thread may be waiting */
#define LOCK_STUCK  UINT32_C(0x40000000) /* a wait has timed out; until the next release */
#define LOCK_HOLDER (~(LOCK_WAITED | LOCK_STUCK))

/* The id of the calling thread, unique in the process. 0 before its first lock_try(). */
extern _Thread_local uint32_t lock_self
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

/* Parts of the functions below: gives the thread its id, waits for the lock, wakes up to MOST
 * waiting threads. */
COLD void lock_name_self(void);
COLD bool lock_wait(struct lock *lock);
COLD void lock_wake(struct lock *lock, int most);

/* Sleeps for NANOSECONDS, below a second, for one that looks again and again. By futex(2), as a
 * lock waits: a seccomp filter that is in force must allow it anyway. Takes no lock. */
COLD void lock_pause(long nanoseconds);

/* Acquires the lock if it is free. */
static inline bool lock_try(struct lock *lock)
{
    uint32_t unlocked = 0;

    if (lock_self == 0)
        lock_name_self();
    return atomic_compare_exchange_strong(&lock->word, &unlocked, lock_self);
}

/* Acquires the lock, and waits for it up to LOCK_PATIENCE_MS. False when another thread still
 * has it, or it is stuck. */
static inline bool lock_acquire(struct lock *lock)
{
    return lock_try(lock) || lock_wait(lock);
}

/* The exchange is sc: the caller sees afterwards what another thread wrote before its
 * lock_try() failed. See concurrency.md, 5. */
static inline void lock_release(struct lock *lock)
{
    if (atomic_exchange(&lock->word, 0) & LOCK_WAITED)
        lock_wake(lock, 1);
}

/* Whether the calling thread holds the lock. */
COLD bool lock_is_mine(struct lock *lock);

/* To be called after a signal handler has jumped out of one of the functions above, or of the
 * code between them. Releases the lock if the calling thread holds it. Wakes all waiting
 * threads, as the jump may have come before the wake of lock_release(). */
COLD void lock_abandon(struct lock *lock);

#endif
