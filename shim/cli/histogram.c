/*
 * What the buckets of the histograms mean.
 */
#include "cli/histogram.h"

#include <math.h>

/* In the order of the rows of stats.def from STAT_connect_us_25 on. */
static const uint64_t bounds[] = {
#define BUCKET(sum, suffix, most) most,
#include "stats/buckets.def"
#undef BUCKET
};

#define LENGTH(first, last) (STAT_##last - STAT_##first + 1)

const struct histogram histograms[HISTOGRAMS] = {
    [CONNECT_DURATION] = {"connect_duration_seconds", "how long real connects took", 1e-6,
                          STAT_connect_us, STAT_connect_us_25,
                          LENGTH(connect_us_25, connect_us_more)},
    [IDLE_AGE] = {"idle_age_seconds",
                  "how long connections had been idle when they were reused", 1e-3,
                  STAT_idle_age_ms, STAT_idle_age_ms_10,
                  LENGTH(idle_age_ms_10, idle_age_ms_more)},
};

double histogram_bound(const struct histogram *histogram, size_t i)
{
    uint64_t bound = bounds[(size_t)histogram->first - STAT_connect_us_25 + i];

    return bound == UINT64_MAX ? (double)INFINITY : (double)bound * histogram->unit;
}

uint64_t histogram_up_to(const struct histogram *histogram, const uint64_t *stats, size_t i)
{
    uint64_t n = 0;

    for (size_t j = 0; j <= i; j++)
        n += stats[(size_t)histogram->first + j];
    return n;
}

uint64_t histogram_total(const struct histogram *histogram, const uint64_t *stats)
{
    return histogram_up_to(histogram, stats, histogram->count - 1);
}

double histogram_quantile(const struct histogram *histogram, const uint64_t *stats,
                          double share)
{
    double wanted = share * (double)histogram_total(histogram, stats);
    size_t i = 0;

    if (wanted <= 0)
        return 0;
    while (i < histogram->count - 1 && (double)histogram_up_to(histogram, stats, i) < wanted)
        i++;
    return histogram_bound(histogram, i);
}
