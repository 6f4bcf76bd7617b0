/*
 * The pauses: of 64 operations three give up the processor and one sleeps for a moment. By raw
 * system calls, because libc's functions would be cancellation points. A program can also have
 * one of its functions called.
 */
#include <stdint.h>
#include <time.h>

#include "pauses.h"

void pause_visit(const char *at) __attribute__((weak, visibility("default")));

void pause_somewhere(const char *at)
{
    static __thread uint64_t state __attribute__((tls_model("initial-exec")));
    struct timespec moment = {0, 20000};

    if (pause_visit)
        pause_visit(at);
    if (state == 0)
        state = (uint64_t)(uintptr_t)&state | 1;
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    if (state % 64 < 3)
        raw_syscall6_unpaused(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
    else if (state % 64 == 3)
        raw_syscall6_unpaused(SYS_nanosleep, (long)&moment, 0, 0, 0, 0, 0);
}
