/*
 * What the program has set for a signal, asked of the kernel: another preloaded library may
 * have a hook for libc's sigaction(2).
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

#endif
