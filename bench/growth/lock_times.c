/*
 * Preloaded behind the library: how long its lock is held and waited for.
 *
 * threads.c takes no lock itself, and libc its own by other names, so that every
 * pthread_mutex_lock() in that process is the pool's. At the end "LOCKS CONTENDED WAITED HELD",
 * the times in nanoseconds, is written to the file that LOCK_TIMES names. The price of asking
 * for the time is measured and taken off.
 */
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static int (*real_lock)(pthread_mutex_t *);
static int (*real_trylock)(pthread_mutex_t *);
static int (*real_unlock)(pthread_mutex_t *);

static atomic_llong locks, contended, waited, held;
static _Thread_local int64_t since;

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* What lies between two answers in a row. */
static int64_t price_of_time(void)
{
    enum { TIMES = 100000 };
    int64_t start = now();

    for (int i = 0; i < TIMES; i++)
        now();
    return (now() - start) / TIMES;
}

__attribute__((constructor)) static void find_real(void)
{
    real_lock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_lock");
    real_trylock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_trylock");
    real_unlock = (int (*)(pthread_mutex_t *))dlsym(RTLD_NEXT, "pthread_mutex_unlock");
}

__attribute__((visibility("default"))) int pthread_mutex_lock(pthread_mutex_t *mutex)
{
    int result;

    if (!real_lock)
        find_real();
    result = real_trylock(mutex);
    if (result == EBUSY) {
        int64_t start = now();

        result = real_lock(mutex);
        since = now();
        atomic_fetch_add(&contended, 1);
        atomic_fetch_add(&waited, since - start);
    } else {
        since = now();
    }
    return result;
}

__attribute__((visibility("default"))) int pthread_mutex_unlock(pthread_mutex_t *mutex)
{
    int64_t taken = now() - since;
    int result = real_unlock(mutex);

    atomic_fetch_add(&locks, 1);
    atomic_fetch_add(&held, taken);
    return result;
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
