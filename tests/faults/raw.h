/*
 * Replaces shim/base/rawsys.h in the library that tests/faults builds: each system call that
 * the library itself makes can be told to fail.
 */
#ifndef FAULTS_RAW_H
#define FAULTS_RAW_H
#ifndef __ASSEMBLER__ /* the compiler includes it in every file */

#include <errno.h>
#include <stdbool.h>
#include <sys/mman.h>
#include <sys/resource.h>

#define raw_syscall6 raw_syscall6_unfailing
#include "base/rawsys.h"
#undef raw_syscall6

/* What the call must return instead of being made; 0 when it is to be made. */
long fault_for(long nr) __attribute__((visibility("hidden")));

static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long fault = fault_for(nr);
    long result;

    /* A close() that fails has closed the fd all the same (close(2), NOTES). */
    if (fault != 0 && nr != SYS_close)
        return fault;
    result = raw_syscall6_unfailing(nr, a, b, c, d, e, f);
    return fault != 0 ? fault : result;
}

/* Calls through libc, at start-up. */
#define FAILS(nr) (fault_ = fault_for(nr), fault_ != 0 && (errno = (int)-fault_, true))
#define madvise(...)                                                                           \
    ({                                                                                         \
        long fault_;                                                                           \
        FAILS(SYS_madvise) ? -1 : madvise(__VA_ARGS__);                                        \
    })
#define getrlimit(...)                                                                         \
    ({                                                                                         \
        long fault_;                                                                           \
        FAILS(SYS_prlimit64) ? -1 : getrlimit(__VA_ARGS__);                                    \
    })

#endif
#endif
