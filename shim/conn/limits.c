/*
 * Reads the limit of fds and counts pooled connections.
 *
 * Relaxed: idle_most and idle_count are hints to threads without the pool's lock.
 */
#include "conn/limits.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/resource.h>

static const struct config *settings;

static _Atomic unsigned int idle_most;
static _Atomic unsigned int idle_count; /* changed with the pool's lock held */
static _Atomic unsigned int queues;
static _Atomic int fds;
_Atomic msec_t limits_read_at;

void limits_start(const struct config *config)
{
    settings = config;
    limits_read(0);
}

void limits_read(msec_t now)
{
    struct rlimit limit;
    rlim_t limit_fds;
    int saved = errno;

    atomic_store(&limits_read_at, now);
    limit_fds = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
    errno = saved;
    atomic_store(&idle_most, limit_fds / 4 < settings->max_idle_total
                                 ? (unsigned int)(limit_fds / 4)
                                 : settings->max_idle_total);
    atomic_store(&fds, limit_fds < LIMITS_FDS_MOST ? (int)limit_fds : LIMITS_FDS_MOST);
}

int limits_fds(void)
{
    return atomic_load(&fds);
}

unsigned int limits_idle_most(void)
{
    return atomic_load_explicit(&idle_most, memory_order_relaxed);
}

unsigned int limits_idle(void)
{
    return atomic_load_explicit(&idle_count, memory_order_relaxed);
}

void limits_count_idle(int more)
{
    atomic_store_explicit(&idle_count, limits_idle() + (unsigned int)more,
                          memory_order_relaxed);
}

unsigned int limits_queues(void)
{
    return atomic_load_explicit(&queues, memory_order_relaxed);
}

void limits_count_queues(int more)
{
    atomic_fetch_add(&queues, (unsigned int)more);
}

INLINED bool limits_may_keep(unsigned int others)
{
    return limits_idle() + others < limits_idle_most();
}
