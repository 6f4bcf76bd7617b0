/*
 * What the program has set for a signal, and which ones a thread has blocked. The kernel is
 * asked: another preloaded library may have hooks for libc's calls.
 */
#ifndef MCPOOL_SIGNALS_H
#define MCPOOL_SIGNALS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/rawsys.h"

/* Fills HANDLER with the address of SIGNAL's handler, or with SIG_DFL or SIG_IGN as a number.
 * False when the kernel does not tell. errno is kept. */
static inline bool signals_handler(int signal, uintptr_t *handler)
{
    struct { /* the kernel's struct sigaction, which is not libc's */
        uintptr_t handler;
        unsigned long flags;
        uintptr_t restorer;
        uint64_t mask;
    } action = {0};
    long result = raw_syscall(SYS_rt_sigaction, signal, NULL, &action, sizeof(action.mask));

    *handler = action.handler;
    return result == 0;
}

/* Blocks all signals for this thread. BLOCKED is filled with those that were blocked before, as
 * a set of the kernel. False, and nothing has changed, when the kernel refuses. errno is kept.
 */
static inline bool signals_block_all(uint64_t *blocked)
{
    const uint64_t all = ~UINT64_C(0);

    *blocked = 0; /* clang-tidy does not see that the kernel writes it */
    return raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, blocked, sizeof(all)) == 0;
}

/* Ends signals_block_all(). errno is kept. */
static inline void signals_restore(uint64_t blocked)
{
    raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &blocked, NULL, sizeof(blocked));
}

#endif
