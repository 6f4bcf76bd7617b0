/*
 * The histograms of stats/buckets.def, in seconds.
 */
#ifndef MCPOOL_HISTOGRAM_H
#define MCPOOL_HISTOGRAM_H

#include <stddef.h>
#include <stdint.h>

#include "cli/layout.h"

struct histogram {
    const char *name;
    const char *text;
    double unit; /* of the values in the file, in seconds */
    enum stat_index sum;
    enum stat_index first; /* of its buckets; the last one has no bound */
    size_t count;          /* of its buckets */
};

enum { CONNECT_DURATION, IDLE_AGE, HISTOGRAMS };

extern const struct histogram histograms[HISTOGRAMS];

/* The largest value of bucket number I, in seconds; INFINITY for the last one. */
double histogram_bound(const struct histogram *histogram, size_t i);

/* How many values are in the buckets up to number I, of STATS, STATS of them. */
uint64_t histogram_up_to(const struct histogram *histogram, const uint64_t *stats, size_t i);

/* All values. */
uint64_t histogram_total(const struct histogram *histogram, const uint64_t *stats);

/* The bound of the first bucket up to which at least SHARE of all values are; INFINITY if it is
 * the last bucket, 0 if there are no values. */
double histogram_quantile(const struct histogram *histogram, const uint64_t *stats,
                          double share);

#endif
