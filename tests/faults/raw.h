/*
 * Takes the place of shim/raw.h in the library that tests/faults builds: each system call the
 * shim makes for itself may be told to fail.
 */
#ifndef FAULTS_RAW_H
#define FAULTS_RAW_H
#ifndef __ASSEMBLER__ /* the compiler is told to include it everywhere */

#define raw_syscall6 raw_syscall6_unfailing
#include "../../shim/raw.h"
#undef raw_syscall6

/* What the call must answer instead of being made; 0 when it is to be made. */
long fault_for(long nr) __attribute__((visibility("hidden")));

static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long fault = fault_for(nr);
    long result;

    /* A close that fails has closed (close(2), NOTES). */
    if (fault != 0 && nr != SYS_close)
        return fault;
    result = raw_syscall6_unfailing(nr, a, b, c, d, e, f);
    return fault != 0 ? fault : result;
}

#endif
#endif
