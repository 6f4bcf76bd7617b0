/*
 * How long the library's lock is held and waited for. Linked into a library that was built with
 * lock_times.h. At the end it writes "LOCKS CONTENDED WAITED HELD", the times in nanoseconds,
 * to the file that LOCK_TIMES names. The cost of reading the clock is measured and subtracted.
 */
#include "lock_times.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static atomic_llong locks, contended, waited, held;
static _Thread_local int64_t taken __attribute__((tls_model("initial-exec")));

int64_t lock_times_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* The time between two readings of the clock in a row. */
static int64_t price_of_time(void)
{
    enum { TIMES = 100000 };
    int64_t start = lock_times_now();

    for (int i = 0; i < TIMES; i++)
        lock_times_now();
    return (lock_times_now() - start) / TIMES;
}

void lock_times_taken(int64_t since)
{
    taken = lock_times_now();
    if (since == 0)
        return;
    atomic_fetch_add(&contended, 1);
    atomic_fetch_add(&waited, taken - since);
}

void lock_times_given(void)
{
    int64_t time = lock_times_now() - taken;

    atomic_fetch_add(&locks, 1);
    atomic_fetch_add(&held, time);
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("LOCK_TIMES");
    FILE *file = path ? fopen(path, "w") : NULL;
    int64_t price = price_of_time();

    if (!file)
        return;
    fprintf(file, "%lld %lld %lld %lld\n", (long long)locks, (long long)contended,
            (long long)(waited - contended * price), (long long)(held - locks * price));
    fclose(file);
}
