/*
 * The table of endpoints, their peaks and their counters.
 */
#include "conn/endpoint.h"

#include <string.h>
#include <sys/mman.h>

#define MINUTE ((msec_t)60 * 1000)

static struct endpoint *endpoints; /* POOL_ENDPOINTS of them */
static size_t count;               /* of endpoints that were ever used */
static struct endpoint *table;     /* the hash table */

bool endpoint_start(void)
{
    void *reserved =
        mmap(NULL, POOL_ENDPOINTS * sizeof(struct endpoint), PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (reserved == MAP_FAILED)
        return false;
    endpoints = reserved;
    return true;
}

static struct endpoint *new_endpoint(void)
{
    struct endpoint *endpoint, *next;

    if (count < POOL_ENDPOINTS)
        return &endpoints[count++];
    HASH_ITER(hh, table, endpoint, next)
    {
        if (endpoint->idle_count == 0 && atomic_load(&endpoint->in_use) == 0) {
            HASH_DELETE(hh, table, endpoint);
            return endpoint;
        }
    }
    return NULL;
}

static struct endpoint *add_endpoint(const struct address *address, msec_t now)
{
    struct endpoint *endpoint = new_endpoint();
    bool out_of_memory = false;

    if (!endpoint)
        return NULL;
    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->stats = &endpoint->early;
    endpoint->address = *address;
    address_text(address, endpoint->text);
    endpoint->peak_since = now;
    HASH_ADD_KEYPTR(hh, table, &endpoint->address, sizeof(*address), endpoint);
    if (!out_of_memory)
        return endpoint;
    /* No memory for the hash table. The place of a removed endpoint is lost, as it may not be
     * the last. */
    if (endpoint == &endpoints[count - 1])
        count--;
    return NULL;
}

struct endpoint *endpoint_find(const struct address *address, msec_t now)
{
    struct endpoint *endpoint;

    HASH_FIND(hh, table, address, sizeof(*address), endpoint);
    return endpoint ? endpoint : add_endpoint(address, now);
}

void endpoint_note_peak(struct endpoint *endpoint, msec_t now)
{
    unsigned int in_use = atomic_load(&endpoint->in_use);

    if (now - endpoint->peak_since >= MINUTE) {
        endpoint->last_peak = now - endpoint->peak_since < 2 * MINUTE ? endpoint->peak : 0;
        endpoint->peak = 0;
        endpoint->peak_since = now;
    }
    if (in_use > endpoint->peak)
        endpoint->peak = in_use;
}

unsigned int endpoint_most(const struct endpoint *endpoint, unsigned int least)
{
    unsigned int most = least;

    if (endpoint->peak > most)
        most = endpoint->peak;
    if (endpoint->last_peak > most)
        most = endpoint->last_peak;
    return most;
}

void endpoint_publish_slow(struct endpoint *endpoint)
{
    size_t stats_slot = (size_t)(endpoint - endpoints);
    struct stats *published;

    if (!stats_begin())
        return;
    if (!atomic_exchange(&endpoint->published, true)) {
        published = stats_publish(stats_slot, endpoint->text);
        if (published) {
            atomic_store(&endpoint->stats, published);
            stats_move(published, &endpoint->early);
        }
    }
    stats_end();
}

void endpoint_for_each(void (*visit)(struct endpoint *endpoint))
{
    /* A signal handler may have jumped out of add_endpoint(), before `stats` was set. */
    for (size_t i = 0; i < count; i++)
        if (endpoints[i].stats)
            visit(&endpoints[i]);
}

struct endpoint *endpoint_next(const struct endpoint *endpoint)
{
    size_t i = endpoint ? (size_t)(endpoint - endpoints) + 1 : 0;

    return i < count ? &endpoints[i] : NULL;
}

static void restart_counters(struct endpoint *endpoint)
{
    memset((void *)&endpoint->early, 0, sizeof(endpoint->early));
    endpoint->stats = &endpoint->early;
    endpoint->published = false;
    endpoint_note_in_use(endpoint, atomic_load(&endpoint->in_use));
}

void endpoint_after_fork_in_child(void)
{
    for (size_t i = 0; i < count; i++)
        restart_counters(&endpoints[i]);
}
