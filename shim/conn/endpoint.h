/*
 * Endpoints: the addresses that connections lead to, what is known of the server there, its
 * counters, and the heads of its lists of idle connections.
 *
 * Endpoints are type-stable: the memory of all is reserved at start-up, and a pointer to one
 * may be used without a lock. The table that finds them is guarded by the lock of pool/pool.h,
 * which the caller holds where it is said here.
 */
#ifndef MCPOOL_ENDPOINT_H
#define MCPOOL_ENDPOINT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "base/hash.h"
#include "config/address.h"
#include "stats/stats.h"

/* Endpoints known at the same time; connections to more of them are not pooled. */
#define POOL_ENDPOINTS 512

/* Kinds of fresh sockets for which an endpoint remembers the protocol that was spoken. */
#define POOL_HABITS 16

struct conn;

struct endpoint {
    struct address address; /* the hash key */
    char text[ADDRESS_TEXT_SIZE];
    UT_hash_handle hh;
    _Atomic uint32_t in_use;
    _Atomic msec_t no_auth_at;  /* when it last answered somebody who was not logged in */
    _Atomic msec_t no_mn_until; /* it does not understand `mn` as a fence; asked again then */
    atomic_bool knows_mn;
    _Atomic uint8_t habits[POOL_HABITS]; /* enum wire_protocol */
    _Atomic uint8_t spoken; /* protocols that were ever spoken: bit per enum wire_protocol */
    _Atomic(struct stats *) stats; /* EARLY, or where others can read them */
    struct stats early;
    atomic_bool published; /* or at least tried */

    /* Guarded by the pool's lock. */
    struct conn *idle;       /* latest first */
    struct conn *draining;   /* the same */
    unsigned int idle_count; /* of both */
    unsigned int peak; /* of connections in use, in the running minute and the one before */
    unsigned int last_peak;
    msec_t peak_since;
};

/* IN_USE is how many connections are in use now. When two threads say so at once the gauge may
 * be wrong until the next change. */
static inline void endpoint_note_in_use(struct endpoint *endpoint, uint32_t in_use)
{
    struct stats *stats = atomic_load_explicit(&endpoint->stats, memory_order_relaxed);

    stats_set(&stats->in_use, in_use);
}

/* How many connections are idle or owing at ENDPOINT now. With the lock held. */
static inline void endpoint_note_idle(struct endpoint *endpoint)
{
    stats_set(&endpoint->stats->idle, endpoint->idle_count);
}

/* Reserves the memory of POOL_ENDPOINTS. False when there is none. */
bool endpoint_start(void);

/* The endpoint at ADDRESS; a new one if it is not known. One that no connection uses and where
 * none idles makes room for it; NULL when there is no such. With the lock held. */
struct endpoint *endpoint_find(const struct address *address, msec_t now);

/* Takes note of how many connections are in use, for endpoint_most(). With the lock held. */
void endpoint_note_peak(struct endpoint *endpoint, msec_t now);

/* How many idle connections are worth keeping: LEAST, or as many as were in use at once lately:
 * a smaller cap would close and reopen the difference at every wave. With the lock held. */
unsigned int endpoint_most(const struct endpoint *endpoint, unsigned int least);

/* Has ENDPOINT counted where others can read it, if that is wanted and was not tried before.
 * Makes system calls. */
void endpoint_publish_slow(struct endpoint *endpoint);

static inline void endpoint_publish(struct endpoint *endpoint)
{
    if (atomic_load_explicit(&stats_wanted, memory_order_relaxed) &&
        !atomic_load_explicit(&endpoint->published, memory_order_relaxed))
        endpoint_publish_slow(endpoint);
}

/* Calls VISIT for every endpoint, without the lock: for the summary at exit. */
void endpoint_for_each(void (*visit)(struct endpoint *endpoint));

/* In the child of a fork, which counts what it does itself, in memory of its own. With the lock
 * held. */
void endpoint_after_fork_in_child(void);

#endif
