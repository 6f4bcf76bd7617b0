/*
 * The allocator of hash tables: cuts pieces from one static block and never frees one.
 */
#include "base/hash.h"

#include "base/compiler.h"

/* In bytes. Enough for the arrays of buckets of all endpoints there may be: a table that
 * doubles its array each time uses twice the last array in all. */
#define HASH_MEMORY 65536

static LARGE union {
    max_align_t alignment;
    unsigned char bytes[HASH_MEMORY];
} hash_memory;
static size_t hash_memory_used;

void *hash_allocate(size_t size)
{
    void *memory = &hash_memory.bytes[hash_memory_used];

    size = (size + sizeof(max_align_t) - 1) / sizeof(max_align_t) * sizeof(max_align_t);
    if (size > HASH_MEMORY - hash_memory_used)
        return NULL;
    hash_memory_used += size;
    return memory;
}
