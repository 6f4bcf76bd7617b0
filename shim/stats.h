/*
 * What happened, counted per endpoint.
 */
#ifndef MCPOOL_STATS_H
#define MCPOOL_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "reasons.h"

struct stats {
    _Atomic uint64_t connects;   /* calls of connect(): reused + opened */
    _Atomic uint64_t reused;     /* answered with a pooled connection; in a dry run: would be */
    _Atomic uint64_t opened;     /* answered by the real connect() */
    _Atomic uint64_t checked_in; /* kept at close(), or at a goodbye */
    _Atomic uint64_t fenced;     /* fences sent */
    _Atomic uint64_t settled;    /* lent after what was owed on it had come */
    _Atomic uint64_t repaired;   /* lent for the wrong protocol, and exchanged in time */
    _Atomic uint64_t misled;     /* lent for the wrong protocol, which became an error */
    _Atomic uint64_t refused[REASON_COUNT];   /* not kept at close() */
    _Atomic uint64_t discarded[REASON_COUNT]; /* kept, and closed later without a user */
};

static inline void stats_count(_Atomic uint64_t *counter)
{
    atomic_fetch_add_explicit(counter, 1, memory_order_relaxed);
}

static inline uint64_t stats_read(_Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

#endif
