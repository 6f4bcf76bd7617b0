/*
 * The time-outs of the calls that wait, in nanoseconds: from the forms that the calls take, and
 * back.
 */
#ifndef MCPOOL_TIMEOUTS_H
#define MCPOOL_TIMEOUTS_H

#include <stdint.h>
#include <sys/time.h>
#include <time.h>

/* A time to wait, in nanoseconds. */
typedef int64_t nsec_t;

#define MILLISECOND ((nsec_t)1000000)
#define SECOND      (1000 * MILLISECOND)
#define FOREVER     INT64_MAX

/* FOREVER for a negative time (poll(2)) and for NULL (ppoll(2), select(2)). 0 for a TIMEOUT
 * that the kernel refuses, or that cannot be read: such a wait is not cut, so that the kernel
 * sees it. */
nsec_t timeout_from_ms(int timeout);
nsec_t timeout_from_timespec(const struct timespec *timeout);
nsec_t timeout_from_timeval(const struct timeval *timeout);

/* Fills SPACE and returns it; NULL for FOREVER, as the calls want it. */
const struct timespec *timeout_as_timespec(nsec_t ns, struct timespec *space);

/* Rounded up; -1 for FOREVER. */
int timeout_as_ms(nsec_t ns);

#endif
