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

/* In mode_word, with MODE_OFF: no socket was tracked yet (hooks/wake.h). */
#define MODE_ASLEEP 8U

/* An enum mode, and a flag above. It begins asleep; stats_start() sets the first mode. */
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
    /* acquire: pairs with stats_start(). What wake() has set up is seen by the thread that
     * tracks a socket, and through the fd map by those that use it. */
    return __builtin_expect(atomic_load_explicit(&mode_word, memory_order_acquire) & MODE_OFF,
                            0);
}

static inline bool mode_is_asleep(void)
{
    return (atomic_load(&mode_word) & MODE_ASLEEP) != 0;
}

#endif
