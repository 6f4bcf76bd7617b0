/*
 * What a process does with its connections. MCPOOL_DRY_RUN sets it at first, and an operator
 * changes it at any moment (pool/switch.h). A child of a fork has the mode of its parent.
 */
#ifndef MCPOOL_MODE_H
#define MCPOOL_MODE_H

#include <stdatomic.h>
#include <stdbool.h>

enum mode {
    MODE_ON,
    MODE_DRY, /* reuse is only counted */
    MODE_OFF, /* no new socket is tracked */
};

/* An enum mode; stats_start() sets the first one. */
extern _Atomic unsigned int mode_word __attribute__((visibility("hidden")));

/* Seq_cst, as the check-in needs it; see may_be_idle() in pool/pool.c. */
static inline enum mode mode_now(void)
{
    return (enum mode)atomic_load(&mode_word);
}

static inline bool mode_is_off(void)
{
    /* relaxed: it only saves work */
    return __builtin_expect(atomic_load_explicit(&mode_word, memory_order_relaxed) == MODE_OFF,
                            0);
}

#endif
