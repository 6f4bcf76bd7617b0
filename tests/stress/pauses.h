/*
 * Included before everything else when the library is built for tests/stress. Before every
 * atomic operation and every system call of the library may be a pause. So threads meet at
 * moments at which they would otherwise meet once a year.
 */
#ifndef SHAKE_H
#define SHAKE_H
#ifndef __ASSEMBLER__

#include <stdatomic.h>

/* Called before an operation on the variable at AT. */
void pause_somewhere(const char *at) __attribute__((visibility("hidden")));

#define PAUSED(at, operation) (pause_somewhere(#at), operation)

#undef atomic_load
#undef atomic_load_explicit
#undef atomic_store
#undef atomic_store_explicit
#undef atomic_exchange
#undef atomic_exchange_explicit
#undef atomic_fetch_add
#undef atomic_fetch_sub
#undef atomic_compare_exchange_strong
#undef atomic_compare_exchange_weak
#define atomic_load_explicit(at, order)         PAUSED(at, __atomic_load_n(at, order))
#define atomic_load(at)                         atomic_load_explicit(at, __ATOMIC_SEQ_CST)
#define atomic_store_explicit(at, value, order) PAUSED(at, __atomic_store_n(at, value, order))
#define atomic_store(at, value)                 atomic_store_explicit(at, value, __ATOMIC_SEQ_CST)
#define atomic_exchange_explicit(at, value, order)                                             \
    PAUSED(at, __atomic_exchange_n(at, value, order))
#define atomic_exchange(at, value)  atomic_exchange_explicit(at, value, __ATOMIC_SEQ_CST)
#define atomic_fetch_add(at, value) PAUSED(at, __atomic_fetch_add(at, value, __ATOMIC_SEQ_CST))
#define atomic_fetch_sub(at, value) PAUSED(at, __atomic_fetch_sub(at, value, __ATOMIC_SEQ_CST))
#define atomic_compare_exchange_strong(at, expected, value)                                    \
    PAUSED(at, __atomic_compare_exchange_n(at, expected, value, 0, __ATOMIC_SEQ_CST,           \
                                           __ATOMIC_SEQ_CST))
#define atomic_compare_exchange_weak(at, expected, value)                                      \
    PAUSED(at, __atomic_compare_exchange_n(at, expected, value, 1, __ATOMIC_SEQ_CST,           \
                                           __ATOMIC_SEQ_CST))

#define raw_syscall6 raw_syscall6_unpaused
#include "base/rawsys.h"
#undef raw_syscall6
#define raw_syscall6(...) PAUSED(kernel, raw_syscall6_unpaused(__VA_ARGS__))

#endif
#endif
