/*
 * An endpoint: the address of a server, what is known of the server there, its counters, and
 * the heads of the lists of its pooled connections.
 *
 * Endpoints are type-stable: their memory is never given back, so a pointer to one may be used
 * without a lock. The hash table of endpoints is guarded by the pool's lock
 * (pool/pool.h). "With the lock held" below means that lock.
 */
#ifndef MCPOOL_ENDPOINT_H
#define MCPOOL_ENDPOINT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/hash.h"
#include "config/address.h"
#include "conn/path_limit.h"
#include "stats/stats.h"

/* Endpoints known at the same time. A connection to one more is not pooled. */
#define POOL_ENDPOINTS 512

/* Kinds of sockets (pool/guess.h) for which an endpoint remembers the protocol last spoken. */
#define POOL_HABITS 16

struct conn;

struct endpoint {
    struct address address; /* the hash key */
    uint64_t v4;            /* the same, as address_v4() */
    char text[ADDRESS_TEXT_SIZE];
    size_t slot; /* its number, and that of its place in the counters file */
    UT_hash_handle hh;
    _Atomic uint32_t in_use;
    _Atomic msec_t no_auth_at;  /* since then it has answered a client that was not logged in */
    _Atomic msec_t no_mn_until; /* it did not understand `mn` as a fence: not sent until then */
    atomic_bool knows_mn;
    _Atomic msec_t ask_before; /* what has been idle since then is asked before it is reused */
    _Atomic uint8_t habits[POOL_HABITS]; /* by socket_kind: enum wire_protocol last spoken */
    _Atomic uint8_t spoken;              /* a bit per enum wire_protocol that was ever spoken */
    _Atomic(struct stats *) stats;       /* &early, or the published counters */
    struct stats early;                  /* the counters until they are published */
    atomic_bool published;               /* or publishing was tried and failed */

    /* Guarded by the pool's lock. */
    struct path_limit path;
    struct conn *idle;       /* the IDLE connections, latest first */
    struct conn *draining;   /* the DRAINING ones, latest first */
    unsigned int idle_count; /* in both lists */
    unsigned int peak;       /* connections in use at once, since peak_since */
    unsigned int last_peak;  /* the same, in the minute before */
    msec_t peak_since;
    msec_t full_until;     /* its server has no room: one idle connection is kept at most */
    msec_t flushed_before; /* what was opened before is not kept; 0: never flushed */
};

/* Where the counters of ENDPOINT are. Relaxed: both places that `stats` may point to are valid
 * for good. */
static inline struct stats *endpoint_stats(struct endpoint *endpoint)
{
    return atomic_load_explicit(&endpoint->stats, memory_order_relaxed);
}

/* Sets the gauge of connections in use to IN_USE, quietly (stats_add_quietly()). Concurrent
 * calls may leave a stale gauge until the next change. */
static inline void endpoint_note_in_use(struct endpoint *endpoint, uint32_t in_use)
{
    stats_set_quietly(&endpoint_stats(endpoint)->in_use, in_use);
}

/* Sets the gauge of idle and draining connections, quietly. With the lock held. */
static inline void endpoint_note_idle(struct endpoint *endpoint)
{
    stats_set_quietly(&endpoint_stats(endpoint)->idle, endpoint->idle_count);
}

/* Reserves the memory of the first endpoints. False when there is no memory. */
bool endpoint_start(void);

/* The endpoint at TARGET; a new one if it is not known. When all are taken, an endpoint
 * without connections, in use or idle, gives up its place; NULL when there is none. With the
 * lock held. An IPv4 address is looked for where the last one with its hash was found. */
extern struct endpoint *endpoint_recent[DESTINATION_PLACES]
    __attribute__((visibility("hidden")));
COLD struct endpoint *endpoint_find_slow(const struct destination *target, msec_t now);

static inline struct endpoint *endpoint_find(const struct destination *target, msec_t now)
{
    struct endpoint *endpoint = endpoint_recent[target->place];

    return endpoint && endpoint->v4 == target->v4 && target->v4 != 0
               ? endpoint
               : endpoint_find_slow(target, now);
}

/* Notes how many connections are in use at NOW, for endpoint_most(). With the lock held. */
void endpoint_note_peak(struct endpoint *endpoint, msec_t now);

/* How many idle connections to keep: as many as were in use at once in this minute or the one
 * before, but not less than LEAST. A lower cap would close and reopen the difference in each
 * burst of requests. With the lock held. */
unsigned int endpoint_most(const struct endpoint *endpoint, unsigned int least);

/* Notes ENDPOINT for endpoint_publish(), if its counters are wanted where other processes can
 * read them and are not there. Relaxed: both flags are hints. */
extern _Atomic(struct endpoint *) endpoint_unpublished __attribute__((visibility("hidden")));

static inline void endpoint_note_unpublished(struct endpoint *endpoint)
{
    if (__builtin_expect(!atomic_load_explicit(&endpoint->published, memory_order_relaxed),
                         0) &&
        atomic_load_explicit(&stats_wanted, memory_order_relaxed))
        atomic_store(&endpoint_unpublished, endpoint);
}

/* Moves the counters of the endpoint that was noted last to the file. Makes system calls. */
COLD void endpoint_publish(void);

/* Whether the program has a connection to any endpoint. Takes no lock: a hint. */
COLD bool endpoint_any_in_use(void);

/* Calls VISIT for every endpoint. Takes no lock: it is for the summary at exit. */
void endpoint_for_each(void (*visit)(struct endpoint *endpoint));

/* Sets `flushed_before` behind NOW for the endpoint TEXT, or for all if TEXT is empty. With the
 * lock held. */
COLD void endpoint_flush(const char *text, msec_t now);

/* In the child of a fork: starts the counters at zero, in the child's own memory, not
 * published. With the lock held. */
void endpoint_after_fork_in_child(void);

#endif
