/*
 * The clock for ages and time limits: monotonic, in milliseconds. It is the kernel's coarse
 * clock (clock_gettime(2)), which is several times faster to read than the exact one, and late
 * by one tick at most, 10 ms.
 */
#ifndef MCPOOL_CLOCK_H
#define MCPOOL_CLOCK_H

#include <stdint.h>
#include <time.h>

typedef int64_t msec_t;

/* How late clock_now() may be. */
#define CLOCK_LAG ((msec_t)10)

static inline msec_t clock_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    return (msec_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

#endif
