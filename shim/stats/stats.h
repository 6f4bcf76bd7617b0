/*
 * Counters per endpoint, and the file in which other processes read them (stats_file.h). A
 * process creates its file in the directory of MCPOOL_STATS when it first connects to an
 * endpoint; a child has a file of its own.
 *
 * The counters are in private memory. The file is a copy of them, made once a second at most,
 * by a call that counts something or is about to wait (pool/due.h). If a signal kills the
 * process, what it counted since the last copy is lost.
 *
 * The program must not notice what other processes do to the file. So the file is not mapped:
 * if another process truncated it, an access would raise SIGBUS. Nor does it stay open: the
 * program could see the fd, or close it in a loop over all fds. It is opened for each copy, and
 * written only if it still is the file that we created. If the process changes its root, or
 * becomes a user that may not write to the file, the file is not written any more.
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
#include "stats/share.h"

/* Whether the file has the latest counters. The state, stats_due and the counters are relaxed:
 * they need no order with each other. */
enum stats_state { STATS_NO_FILE, STATS_WRITTEN, STATS_UNWRITTEN };

extern _Atomic unsigned int stats_state __attribute__((visibility("hidden")));

/* When the next copy may be made, and a wish is looked for (pool/due.h), on clock_now();
 * INT64_MAX without a file. */
extern _Atomic msec_t stats_due __attribute__((visibility("hidden")));

/* The least time between two copies. */
#define STATS_PERIOD ((msec_t)1000)

static inline void stats_changed(void)
{
    if (atomic_load_explicit(&stats_state, memory_order_relaxed) == STATS_WRITTEN)
        atomic_store_explicit(&stats_state, STATS_UNWRITTEN, memory_order_relaxed);
}

/* Adds N to COUNTER. Does not make the counters due to be written: for what is counted because
 * they were, and where the caller calls stats_changed() once after all of its counting. */
static inline void stats_add_quietly(_Atomic uint64_t *counter, uint64_t n)
{
    atomic_fetch_add_explicit(counter, n, memory_order_relaxed);
}

static inline void stats_add(_Atomic uint64_t *counter, uint64_t n)
{
    stats_add_quietly(counter, n);
    stats_changed();
}

static inline void stats_count(_Atomic uint64_t *counter)
{
    stats_add(counter, 1);
}

static inline void stats_set_quietly(_Atomic uint64_t *gauge, uint64_t value)
{
    atomic_store_explicit(gauge, value, memory_order_relaxed);
}

static inline void stats_set(_Atomic uint64_t *gauge, uint64_t value)
{
    stats_set_quietly(gauge, value);
    stats_changed();
}

static inline uint64_t stats_read(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* The largest value of each bucket. */
extern const uint64_t stats_bucket_most[BUCKETS] __attribute__((visibility("hidden")));

/* Counts VALUE in its bucket, quietly. FIRST is the first one of the histogram. */
static inline void stats_observe(struct stats *stats, enum bucket first, uint64_t value)
{
    char *buckets = (char *)stats + offsetof(struct stats, connect_us_25);
    size_t i = first;

    while (value > stats_bucket_most[i])
        i++;
    stats_add_quietly((_Atomic uint64_t *)(void *)buckets + i, 1);
}

/* Called once, at start-up. The caller keeps CONFIG, which must not change any more. SLOTS is
 * how many endpoints there may be. */
void stats_start(const struct config *config, size_t slots);

/* Whether counters are to be written to a file. False for good once that has failed. */
extern atomic_bool stats_wanted __attribute__((visibility("hidden")));

/* Makes the file before there is an endpoint to count for, so that the process can be found by
 * its file. Does nothing when there is one. Makes system calls, so no lock may be held. */
COLD void stats_make(void);

/* A trylock around the file: one thread at a time creates or writes it. A thread that gets true
 * calls stats_end(). No thread waits. */
bool stats_begin(void);
void stats_end(void);

/* Whether a thread is between these two, or in stats_write(). */
bool stats_is_busy(void);

/* Returns counters, all zero, that are in the file: those of the endpoint TEXT, in its slot
 * number SLOT. Creates the file if there is none yet; NULL when that fails. Called between
 * stats_begin() and stats_end(). Makes system calls, so no other lock may be held. */
struct stats *stats_publish(size_t slot, const char *text);

/* Moves the counters at FROM to TO, which keeps its own. What another thread counts at FROM
 * meanwhile may stay there until the next call. */
void stats_move(struct stats *to, struct stats *from);

/* Copies all counters to the file if it lacks any, whether it is due or not. NOW is the time
 * of clock_now(). Does nothing without a file, in a child of vfork(), or while another thread
 * is between stats_begin() and stats_end(). Makes system calls, so no lock may be held; they
 * are made with signals blocked. No cancellation point. */
COLD void stats_write(msec_t now);

/* In how many milliseconds from NOW a copy is certainly due, as clock_now() may be late. */
static inline msec_t stats_in(msec_t now)
{
    msec_t in = atomic_load_explicit(&stats_due, memory_order_relaxed) - now;

    return (in < 0 ? 0 : in > STATS_PERIOD ? STATS_PERIOD : in) + CLOCK_LAG;
}

/* Reads into WISH what an operator wishes of this process (stats/switch_file.h). False when
 * there is nothing that was not followed, and while another thread is between stats_begin() and
 * stats_end(). Between ownfile_begin() and ownfile_end(). */
struct switch_file;
COLD bool stats_read_wish(struct switch_file *wish);

/* The wish GENERATION is followed: the next copy says so, and which mode the process is in. */
COLD void stats_followed(uint64_t generation);

/* What the next copy says of the family of this process: SHARE and the ID, 0 for none. QUEUED,
 * which may be NULL, is where it says how many connections it has; it stays readable for good.
 */
COLD void stats_note_share(enum share share, uint64_t id, const _Atomic uint32_t *queued);

/* How many families the files of our user show, that of this process included; 0 when there are
 * no files. QUEUED is how many connections the others have in their queues. Reads all files. */
COLD unsigned int stats_count_families(unsigned int *queued);

/* stats_pause(): until stats_resume(), counting does not make a copy due. */
COLD void stats_pause(void);
COLD void stats_resume(void);

/* In the child of a fork, which has one thread: leaves the file to the parent, and sets all
 * counters to zero. False when there is no memory; then nothing may be counted any more. */
bool stats_after_fork_in_child(void);

/* Removes the file, at the end of the process. */
void stats_finish(void);

#endif
