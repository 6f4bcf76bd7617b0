/*
 * Waiting for the lock: futex(2).
 */
#include "lock.h"

#include <limits.h>
#include <linux/futex.h>
#include <stddef.h>

#include "raw.h"

_Thread_local uint32_t lock_self __attribute__((tls_model("initial-exec")));

static _Atomic uint32_t threads;

void lock_name_self(void)
{
    do {
        lock_self = (atomic_fetch_add(&threads, 1) + 1) & ~LOCK_WAITED;
    } while (lock_self == 0);
}

void lock_wake(struct lock *lock, int most)
{
    raw_syscall(SYS_futex, &lock->word, FUTEX_WAKE_PRIVATE, most);
}

/* Who has waited does not know whether others do, and says so. */
void lock_wait(struct lock *lock)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    while (true) {
        uint32_t wanted = word == 0 ? lock_self | LOCK_WAITED : word | LOCK_WAITED;

        if (wanted != word &&
            !atomic_compare_exchange_weak_explicit(&lock->word, &word, wanted,
                                                   memory_order_acquire, memory_order_relaxed))
            continue;
        if (word == 0)
            return;
        raw_syscall(SYS_futex, &lock->word, FUTEX_WAIT_PRIVATE, wanted, NULL);
        word = atomic_load_explicit(&lock->word, memory_order_relaxed);
    }
}

void lock_abandon(struct lock *lock)
{
    uint32_t word = atomic_load_explicit(&lock->word, memory_order_relaxed);

    if (lock_self != 0 && (word & ~LOCK_WAITED) == lock_self)
        atomic_store_explicit(&lock->word, 0, memory_order_release);
    lock_wake(lock, INT_MAX);
}
