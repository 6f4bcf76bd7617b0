/*
 * What happened, counted per endpoint, where others can read it: once a process has its first
 * endpoint it has a file of its own in the directory of MCPOOL_STATS. The counters are in
 * memory of the process alone; the file is a copy, made once a second at most, by a call that
 * counts something or is about to wait (pool/due.h). Death by a signal loses what came after.
 *
 * Whatever is done to the file, the program does not notice. It is not mapped: to touch the
 * memory of a file that was cut short is SIGBUS. It is opened for each copy, and written to
 * only when it is the file that was made: an fd that stayed open would be seen by the program,
 * and be closed and reused by its close loops. So the file stays as it was when the process
 * changes its root, or becomes a user that must not write to it.
 *
 * A child has a file of its own.
 */
#ifndef MCPOOL_STATS_H
#define MCPOOL_STATS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "config/config.h"
#include "stats/counters.h"

/* Whether the file has all that was counted. */
enum stats_state { STATS_NO_FILE, STATS_WRITTEN, STATS_UNWRITTEN };

extern _Atomic unsigned int stats_state __attribute__((visibility("hidden")));

/* When a copy may be made again; never as long as there is no file. */
extern _Atomic msec_t stats_due __attribute__((visibility("hidden")));

/* Two copies of the counters lie so far apart. */
#define STATS_PERIOD ((msec_t)1000)

static inline void stats_changed(void)
{
    if (atomic_load_explicit(&stats_state, memory_order_relaxed) == STATS_WRITTEN)
        atomic_store_explicit(&stats_state, STATS_UNWRITTEN, memory_order_relaxed);
}

static inline void stats_add(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
    stats_changed();
}

static inline void stats_count(_Atomic uint64_t *counter)
{
    stats_add(counter, 1);
}

static inline void stats_set(_Atomic uint64_t *gauge, uint64_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
    stats_changed();
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

/* Whether one is between these, or in stats_write(). */
bool stats_is_busy(void);

/* Between these: counters for the endpoint in SLOT, whose name is TEXT, that go to the file,
 * all zero. NULL when there can be no file. Makes system calls; not for under a lock. */
struct stats *stats_publish(size_t slot, const char *text);

/* Adds what was counted at FROM to TO. What another thread counts at FROM in this very instant
 * stays there until the next time. */
void stats_move(struct stats *to, struct stats *from);

/* Copies all counters to the file, whatever time it is; NOW is that of clock_now(). Does
 * nothing in a process that only shares our memory, without a file, and when another thread is
 * at it. Makes system calls, with signals blocked; no cancellation point. */
COLD void stats_write(msec_t now);

/* The same, if it is time. For calls that have counted, and know what time it is. */
static inline void stats_write_if_due(msec_t now)
{
    if (now >= atomic_load_explicit(&stats_due, memory_order_relaxed))
        stats_write(now);
}

/* In how many milliseconds from NOW that will be for certain, as clock_now() lags. */
static inline msec_t stats_in(msec_t now)
{
    msec_t in = atomic_load_explicit(&stats_due, memory_order_relaxed) - now;

    return (in < 0 ? 0 : in > STATS_PERIOD ? STATS_PERIOD : in) + CLOCK_LAG;
}

/* From now on nothing is due, whatever is counted; and again it is, if there is a file. */
COLD void stats_pause(void);
COLD void stats_resume(void);

/* In the child of a fork, the only thread: the file is the parent's, and so is what was
 * counted. False when there is no memory; nothing may be counted then. */
bool stats_after_fork_in_child(void);

/* The process ends: removes its file. */
void stats_finish(void);

#endif
