/*
 * Time that the host was suspended: CLOCK_BOOTTIME counts it, CLOCK_MONOTONIC does not.
 */
#include "base/clock.h"

#include <errno.h>

#include "base/rawsys.h"

#define NS_PER_MS 1000000

_Atomic msec_t clock_suspended;

static int64_t at_start; /* CLOCK_BOOTTIME less CLOCK_MONOTONIC, in nanoseconds */

static bool read_clock(clockid_t id, int64_t *ns)
{
    struct timespec time;

    if (clock_gettime(id, &time) != 0)
        return false;
    *ns = (int64_t)time.tv_sec * 1000 * NS_PER_MS + time.tv_nsec;
    return true;
}

/* The thread may be stopped between the two readings. They are in such an order that the time
 * in which it was cannot be taken for a suspension. */
void clock_start(void)
{
    int64_t monotonic, boot;

    if (read_clock(CLOCK_MONOTONIC, &monotonic) && read_clock(CLOCK_BOOTTIME, &boot))
        at_start = boot - monotonic;
}

void clock_note_suspension(void)
{
    int saved = errno;
    int64_t monotonic, boot;

    if (read_clock(CLOCK_BOOTTIME, &boot) && read_clock(CLOCK_MONOTONIC, &monotonic)) {
        msec_t found = (boot - monotonic - at_start) / NS_PER_MS;
        msec_t known = atomic_load(&clock_suspended);

        while (found > known && !atomic_compare_exchange_weak(&clock_suspended, &known, found))
            ;
    }
    errno = saved;
}

msec_t clock_of_kernel(clockid_t clock)
{
    struct timespec now = {0};

    raw_syscall(SYS_clock_gettime, clock, &now);
    return (msec_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}
