/*
 * The table of endpoints, their peaks and their counters.
 */
#include "conn/endpoint.h"

#include <string.h>

#include "base/pages.h"

#define MINUTE ((msec_t)60 * 1000)

/* Reserved in blocks, as the records of connections are (conn/conn.h). */
#define BLOCK 32
static struct endpoint *blocks[POOL_ENDPOINTS / BLOCK];
static atomic_size_t count; /* of endpoints that were ever used, all of them ready to be read */
static struct endpoint *table; /* the hash table */

static struct endpoint *endpoint_at(size_t slot)
{
    return &blocks[slot / BLOCK][slot % BLOCK];
}

/* Whether there is memory for the endpoints of block I. */
static bool has_block(size_t i)
{
    if (!blocks[i])
        blocks[i] = pages_reserve(BLOCK * sizeof(struct endpoint));
    return blocks[i] != NULL;
}

bool endpoint_start(void)
{
    return has_block(0);
}

/* Only its slot is set. If it was never used, it is not counted yet. */
static struct endpoint *new_endpoint(void)
{
    struct endpoint *endpoint, *next;
    size_t slot = atomic_load(&count);

    if (slot < POOL_ENDPOINTS && has_block(slot / BLOCK)) {
        endpoint = endpoint_at(slot);
        endpoint->slot = slot;
        return endpoint;
    }
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
    size_t slot;

    if (!endpoint)
        return NULL;
    slot = endpoint->slot;
    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->slot = slot;
    endpoint->stats = &endpoint->early;
    endpoint->address = *address;
    address_text(address, endpoint->text);
    endpoint->peak_since = now;
    HASH_ADD_KEYPTR(hh, table, &endpoint->address, sizeof(*address), endpoint);
    /* No memory for the hash table: the place of a removed endpoint is lost. */
    if (out_of_memory)
        return NULL;
    endpoint->v4 = address_v4(address);
    /* Last, as waits look at all that are counted without the lock: else one that does would
     * find a count whose block it does not see yet. */
    if (slot == atomic_load(&count))
        atomic_store(&count, slot + 1);
    return endpoint;
}

struct endpoint *endpoint_recent[DESTINATION_PLACES];

/* An endpoint that has given up its place since has another v4. */
struct endpoint *endpoint_find_slow(const struct destination *target, msec_t now)
{
    struct address address = target->address;
    struct endpoint *endpoint;

    if (target->v4 != 0)
        address_from_v4(&address, target->v4);
    HASH_FIND(hh, table, &address, sizeof(address), endpoint);
    if (!endpoint)
        endpoint = add_endpoint(&address, now);
    if (endpoint)
        endpoint_recent[target->place] = endpoint;
    return endpoint;
}

/* The peak is never above the most so far, so a new most is a new peak too. */
COLD static void raise_peak(struct endpoint *endpoint, unsigned int in_use)
{
    endpoint->peak = in_use;
    if (in_use > stats_read(&endpoint->stats->most_in_use))
        stats_set(&endpoint->stats->most_in_use, in_use);
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
        raise_peak(endpoint, in_use);
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

_Atomic(struct endpoint *) endpoint_unpublished;

void endpoint_publish(void)
{
    struct endpoint *endpoint = atomic_exchange(&endpoint_unpublished, NULL);
    struct stats *published;

    if (!endpoint)
        return;
    if (!stats_begin())
        return;
    if (!atomic_exchange(&endpoint->published, true)) {
        published = stats_publish(endpoint->slot, endpoint->text);
        if (published) {
            atomic_store(&endpoint->stats, published);
            stats_move(published, &endpoint->early);
        }
    }
    stats_end();
}

bool endpoint_any_in_use(void)
{
    size_t n = atomic_load(&count);

    for (size_t i = 0; i < n; i++) {
        if (atomic_load(&endpoint_at(i)->in_use) > 0)
            return true;
    }
    return false;
}

void endpoint_for_each(void (*visit)(struct endpoint *endpoint))
{
    size_t n = atomic_load(&count);

    /* A signal handler may have jumped out of add_endpoint(), before `stats` was set. */
    for (size_t i = 0; i < n; i++)
        if (endpoint_at(i)->stats)
            visit(endpoint_at(i));
}

void endpoint_flush(const char *text, msec_t now)
{
    for (size_t i = 0; i < count; i++) {
        if (text[0] == '\0' || strcmp(endpoint_at(i)->text, text) == 0)
            endpoint_at(i)->flushed_before = now + 1;
    }
}

static void restart_counters(struct endpoint *endpoint)
{
    unsigned int in_use = atomic_load(&endpoint->in_use);
    struct stats *former = endpoint->stats;
    /* None if a signal handler has jumped out of add_endpoint(). */
    uint64_t usual = former ? stats_read(&former->usual_connect_us) : 0;

    memset((void *)&endpoint->early, 0, sizeof(endpoint->early));
    endpoint->stats = &endpoint->early;
    stats_set(&endpoint->stats->usual_connect_us, usual);
    endpoint->published = false;
    endpoint_note_in_use(endpoint, in_use);
    stats_set(&endpoint->stats->most_in_use, in_use);
    /* The child has a peak of its own, and keeps as many as its parent needed a moment ago. */
    if (endpoint->peak > endpoint->last_peak)
        endpoint->last_peak = endpoint->peak;
    endpoint->peak = in_use;
}

void endpoint_after_fork_in_child(void)
{
    for (size_t i = 0; i < count; i++)
        restart_counters(endpoint_at(i));
}
