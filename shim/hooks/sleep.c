/*
 * Hooks that sleep. A sleep is not cut: what becomes due during it is done before.
 */
#include "hooks/hooks.h"

#include <time.h>
#include <unistd.h>

#include "pool/due.h"
#include "base/usermem.h"

#define SECOND 1000 /* in milliseconds */

/* Shorter sleeps are left alone, and longer ones count as a day. */
#define SHORTEST 1
#define LONGEST  ((time_t)24 * 60 * 60)

static inline void before_seconds(time_t seconds)
{
    if (seconds >= SHORTEST && due_is_anything())
        due_before_sleep((seconds < LONGEST ? seconds : LONGEST) * SECOND);
}

/* The program may have given an address that the kernel refuses. */
static void before_time(clockid_t clock, int flags, const struct timespec *time)
{
    struct timespec now = {0};

    if (!due_is_anything() || !usermem_readable(time, sizeof(*time)))
        return;
    if (flags & TIMER_ABSTIME)
        raw_syscall(SYS_clock_gettime, clock, &now);
    before_seconds(time->tv_sec - now.tv_sec);
}

HOOKED unsigned int sleep(unsigned int seconds)
{
    before_seconds(seconds);
    return real_sleep(seconds);
}

HOOKED int usleep(useconds_t microseconds)
{
    before_seconds(microseconds / 1000000);
    return real_usleep(microseconds);
}

HOOKED int nanosleep(const struct timespec *time, struct timespec *rest)
{
    before_time(CLOCK_MONOTONIC, 0, time);
    return real_nanosleep(time, rest);
}
HOOKED_ALIAS(__nanosleep, nanosleep);

HOOKED int clock_nanosleep(clockid_t clock, int flags, const struct timespec *time,
                           struct timespec *rest)
{
    before_time(clock, flags, time);
    return real_clock_nanosleep(clock, flags, time, rest);
}
