/*
 * A lock whose holder may vanish: a signal handler can jump out of any call with siglongjmp(),
 * also out of one that takes or gives back the lock. So that it can be told then who has it,
 * the holder stands in the word itself, which a mutex of libc does not do in one step.
 *
 * Not recursive. Nobody may be cancelled in these functions: none is a cancellation point.
 * errno is kept.
 */
#ifndef MCPOOL_LOCK_H
#define MCPOOL_LOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "cold.h"

/* Zero: nobody has it. */
struct lock {
    _Atomic uint32_t word; /* the holder, and whether somebody waits */
};

/* Set: somebody waits. The rest of the word is the number of the thread. */
#define LOCK_WAITED UINT32_C(0x80000000)

/* Ours, for as long as we live: threads of a process have different ones. 0 before the first
 * lock_take(). */
extern _Thread_local uint32_t lock_self
    __attribute__((tls_model("initial-exec"), visibility("hidden")));

COLD void lock_name_self(void);
COLD void lock_wait(struct lock *lock);
COLD void lock_wake(struct lock *lock, int most);

static inline void lock_take(struct lock *lock)
{
    uint32_t nobody = 0;

    if (lock_self == 0)
        lock_name_self();
    if (!atomic_compare_exchange_strong_explicit(&lock->word, &nobody, lock_self,
                                                 memory_order_acquire, memory_order_relaxed))
        lock_wait(lock);
}

static inline void lock_give(struct lock *lock)
{
    if (atomic_exchange_explicit(&lock->word, 0, memory_order_release) & LOCK_WAITED)
        lock_wake(lock, 1);
}

/* After a jump out of any of the functions above, or of what came between: gives it back if the
 * caller has it, and wakes all who may have been forgotten. */
COLD void lock_abandon(struct lock *lock);

#endif
