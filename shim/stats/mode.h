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

/* In mode_word: an operator has changed the mode or called for a flush since the start. Without
 * it and in MODE_ON the word is 0, and a check-in has nothing else to look at. */
#define MODE_CHANGED 4U

/* An enum mode, and MODE_CHANGED; stats_start() sets the first one. */
extern _Atomic unsigned int mode_word __attribute__((visibility("hidden")));

static inline enum mode mode_now(void)
{
    return (enum mode)(atomic_load(&mode_word) & ~MODE_CHANGED);
}

/* Whether it is MODE_ON and was never changed. Then nothing else need be looked at. */
static inline bool mode_is_plain(void)
{
    return __builtin_expect(atomic_load(&mode_word) == MODE_ON, 1);
}

static inline bool mode_is_off(void)
{
    /* relaxed: it only saves work */
    return __builtin_expect(atomic_load_explicit(&mode_word, memory_order_relaxed) & MODE_OFF,
                            0);
}

#endif
