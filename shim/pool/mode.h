/*
 * Whether the process pools, only counts, or does nothing (enum mode). An operator changes that
 * at any moment (pool/switch.h); the lists in pool/pool.c obey it.
 */
#ifndef MCPOOL_MODE_H
#define MCPOOL_MODE_H

#include <stdatomic.h>
#include <stdbool.h>

#include "stats/switch_file.h"

/* An enum mode; pool_start() sets the first one. Relaxed where it only saves work; see
 * may_be_idle() in pool/pool.c for the order that counts. */
extern _Atomic unsigned int pool_mode __attribute__((visibility("hidden")));

/* Seq_cst, as the check-in needs it. */
static inline enum mode mode_now(void)
{
    return (enum mode)atomic_load(&pool_mode);
}

static inline bool mode_is_off(void)
{
    return __builtin_expect(atomic_load_explicit(&pool_mode, memory_order_relaxed) == MODE_OFF,
                            0);
}

#endif
