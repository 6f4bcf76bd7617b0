/*
 * The time-outs of the calls that wait.
 */
#include "hooks/timeouts.h"

#include "base/usermem.h"

nsec_t timeout_from_ms(int timeout)
{
    return timeout < 0 ? FOREVER : timeout * MILLISECOND;
}

/* More than a century is cut like a century, as more nanoseconds may not fit. */
static nsec_t from_seconds(time_t seconds)
{
    return (seconds < UINT32_MAX ? seconds : UINT32_MAX) * SECOND;
}

nsec_t timeout_from_timespec(const struct timespec *timeout)
{
    if (!timeout)
        return FOREVER;
    if (!usermem_readable(timeout, sizeof(*timeout)) || timeout->tv_sec < 0 ||
        timeout->tv_nsec < 0 || timeout->tv_nsec >= SECOND)
        return 0;
    return from_seconds(timeout->tv_sec) + timeout->tv_nsec;
}

nsec_t timeout_from_timeval(const struct timeval *timeout)
{
    if (!timeout)
        return FOREVER;
    if (!usermem_readable(timeout, sizeof(*timeout)) || timeout->tv_sec < 0 ||
        timeout->tv_usec < 0 || timeout->tv_usec >= SECOND / 1000)
        return 0;
    return from_seconds(timeout->tv_sec) + timeout->tv_usec * 1000;
}

const struct timespec *timeout_as_timespec(nsec_t ns, struct timespec *space)
{
    *space = (struct timespec){ns / SECOND, ns % SECOND};
    return ns == FOREVER ? NULL : space;
}

int timeout_as_ms(nsec_t ns)
{
    return ns == FOREVER ? -1 : (int)((ns + MILLISECOND - 1) / MILLISECOND);
}
