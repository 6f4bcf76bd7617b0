/*
 * The process's limit of fds (RLIMIT_NOFILE), and how many pooled connections it allows.
 *
 * No function here takes a lock or blocks. errno is kept. All values are atomics by themselves:
 * a thread that reads an old one decides as it would have a moment ago.
 */
#ifndef MCPOOL_LIMITS_H
#define MCPOOL_LIMITS_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "config/config.h"

/* A higher limit of fds makes no difference; see conn/fdtable.h. */
#define LIMITS_FDS_MOST 8192

/* Reads the limit for the first time. CONFIG stays the caller's and must not change. */
void limits_start(const struct config *config);

/* Reads the limit again, by a system call, and notes that it was read at NOW. */
COLD void limits_read(msec_t now);

/* When that was. Relaxed: a thread that sees an old time reads the limit once more. */
extern _Atomic msec_t limits_read_at __attribute__((visibility("hidden")));

/* The same if a second has passed. */
static inline void limits_note(msec_t now)
{
    if (now - atomic_load_explicit(&limits_read_at, memory_order_relaxed) >= 1000)
        limits_read(now);
}

/* The limit of fds as last read, at most LIMITS_FDS_MOST. */
int limits_fds(void);

/* How many connections the process may keep in the pool: the setting, or a quarter of the limit
 * of fds. */
unsigned int limits_idle_most(void);

/* How many connections are idle or draining. */
unsigned int limits_idle(void);

/* Adds MORE, which may be negative, to that count. With the pool's lock held. */
void limits_count_idle(int more);

/* How many queues of fds (conn/fdqueue.h) the process has; adds MORE to that. */
unsigned int limits_queues(void);
void limits_count_queues(int more);

/* Whether one more shadow fd is allowed, beside those of pooled connections and OTHERS. */
bool limits_may_keep(unsigned int others);

#endif
