/*
 * The clock for ages and time limits: milliseconds that never go back. It is the kernel's
 * coarse clock (clock_gettime(2)), which is several times faster to read than the exact one,
 * and late by one tick at most, 10 ms. It goes on while the host is suspended, as servers and
 * firewalls do: that time is added by calls that have waited. The wall clock is never asked.
 */
#ifndef MCPOOL_CLOCK_H
#define MCPOOL_CLOCK_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "base/compiler.h"

typedef int64_t msec_t;

/* How late clock_now() may be. */
#define CLOCK_LAG ((msec_t)10)

/* How long the host was suspended since clock_start(), as far as it was noted. Relaxed: an old
 * value is that of a moment ago. */
extern _Atomic msec_t clock_suspended __attribute__((visibility("hidden")));

static inline msec_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (msec_t)now.tv_sec * 1000 + (uint32_t)now.tv_nsec / 1000000U +
           atomic_load_explicit(&clock_suspended, memory_order_relaxed);
}

/* CLOCK in milliseconds, asked of the kernel. At the end of the process: another preloaded
 * library's clock_gettime() may crash after the destructor of that library. */
COLD msec_t clock_of_kernel(clockid_t clock);

/* As clock_now(), at the end of the process. */
static inline msec_t clock_now_at_end(void)
{
    return clock_of_kernel(CLOCK_MONOTONIC_COARSE) +
           atomic_load_explicit(&clock_suspended, memory_order_relaxed);
}

/* Once, at start-up. */
void clock_start(void);

/* Adds the time that the host was suspended since the last call. Reads two clocks; takes no
 * lock, keeps errno. */
COLD void clock_note_suspension(void);

#endif
