/*
 * A lock for which no thread waits long, and whose holder may vanish.
 *
 * The program can stop a thread anywhere: a collector of garbage stops all others by a signal
 * whose handler waits, and a thread in fork() waits for the locks that other libraries'
 * handlers take. If such a thread has this lock, the thread that waits for it may be the one
 * that must go on first. So a wait ends after LOCK_PATIENCE_MS, and the lock is marked as
 * stuck: until its holder gives it back, no thread waits for it at all.
 *
 * A signal handler can also jump out of any call with siglongjmp(), even out of one that takes
 * or gives back the lock. So the holder stands in the word itself, where it can be read after
 * a jump; a mutex of libc does not note its holder in one step.
 *
 * Not recursive. No function here is a cancellation point. errno is kept.
 */
#ifndef MCPOOL_LOCK_H
#define MCPOOL_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

/* How long one call waits for the lock at most, in all, whatever interrupts it. */
#define LOCK_PATIENCE_MS 10

/* Zero: no thread has it. */
struct lock {
    _Atomic uint32_t word; /* the number of the holding thread, and the flags below */
};

#define LOCK_WAITED UINT32_C(0x80000000) /* a thread waits for it */
#define LOCK_STUCK  UINT32_C(0x40000000) /* a thread has waited in vain */
#define LOCK_HOLDER (~(LOCK_WAITED | LOCK_STUCK))

/* The calling thread's number, different from those of the other threads of the process. 0
 * before its first lock_acquire(). */
extern _Thread_local uint32_t lock_self
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

COLD void lock_name_self(void);
COLD bool lock_wait(struct lock *lock);
COLD void lock_wake(struct lock *lock, int most);

/* Takes the lock if no thread has it. */
static inline bool lock_try(struct lock *lock)
{
    uint32_t nobody = 0;

    if (lock_self == 0)
        lock_name_self();
    return atomic_compare_exchange_strong(&lock->word, &nobody, lock_self);
}

/* The same, and waits for it a little. False when it is still another thread's. */
static inline bool lock_acquire(struct lock *lock)
{
    return lock_try(lock) || lock_wait(lock);
}

/* What another thread wrote before it was refused the lock is seen after this. */
static inline void lock_release(struct lock *lock)
{
    if (atomic_exchange(&lock->word, 0) & LOCK_WAITED)
        lock_wake(lock, 1);
}

/* Whether the calling thread has it. */
COLD bool lock_is_mine(struct lock *lock);

/* After a jump out of any of the functions above, or of what came between: gives it back if the
 * caller has it, and wakes every thread that may have been forgotten. */
COLD void lock_abandon(struct lock *lock);

#endif
