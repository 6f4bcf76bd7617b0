/*
 * The counters of one endpoint, in the same form in memory and in the file of counters.
 */
#ifndef MCPOOL_COUNTERS_H
#define MCPOOL_COUNTERS_H

#include <stdatomic.h>
#include <stdint.h>

#include "base/reasons.h"

/* The buckets of all histograms in a row. In struct stats they stand in the same order. */
enum bucket {
#define BUCKET(sum, suffix, most) BUCKET_##sum##_##suffix,
#include "stats/buckets.def"
#undef BUCKET
    BUCKETS
};

/* How many calls of a connection that send are counted together. */
#define STATS_SENDS 64

struct stats {
#define STAT(kind, name, text) _Atomic uint64_t name;
#include "stats/stats.def"
#undef STAT
    _Atomic uint64_t refused[REASON_COUNT];   /* connections not kept at close() */
    _Atomic uint64_t discarded[REASON_COUNT]; /* connections kept, and closed without reuse */
};

#endif
