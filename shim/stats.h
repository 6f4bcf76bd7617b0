/*
 * What happened, counted per endpoint, where others can read it: once a process has its first
 * endpoint, its counters live in a file of its own in the directory of MCPOOL_STATS, mapped and
 * shared. Where there can be no file they stay in the process's own memory, and nobody notices.
 *
 * The file takes room before it is written to, so that a full file system is an error here and
 * no signal later. It is opened for moments only. A child has a file of its own.
 */
#ifndef MCPOOL_STATS_H
#define MCPOOL_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config.h"
#include "reasons.h"

struct stats {
#define STAT(kind, name, text) _Atomic uint64_t name;
#include "stats.def"
#undef STAT
    _Atomic uint64_t refused[REASON_COUNT];   /* not kept at close() */
    _Atomic uint64_t discarded[REASON_COUNT]; /* kept, and closed later without a user */
};

static inline void stats_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline void stats_set(_Atomic uint64_t *gauge, uint64_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
}

static inline uint64_t stats_read(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* CONFIG stays the caller's and must not change. SLOTS is how many endpoints there may be. */
void stats_start(const struct config *config, size_t slots);

/* Whether counters are wanted in a file. False for good once that has failed. */
extern atomic_bool stats_wanted __attribute__((visibility("hidden")));

/* Only one thread at a time makes room for others to read from: true for that one, which ends
 * with stats_end(). Nobody waits. */
bool stats_begin(void);
void stats_end(void);

/* Between these: counters for the endpoint in SLOT, whose name is TEXT, where others can read
 * them, all zero. NULL when there is no room. Makes system calls; not for under a lock. */
struct stats *stats_publish(size_t slot, const char *text);

/* Adds what was counted at FROM to TO. What another thread counts at FROM in this very instant
 * stays there until the next time. */
void stats_move(struct stats *to, struct stats *from);

/* In the child of a fork, the only thread: what was published is the parent's, and is written
 * to no more. False when it cannot be let go of; nothing may be counted then. */
bool stats_after_fork_in_child(void);

/* The process ends: removes its file. */
void stats_finish(void);

#endif
