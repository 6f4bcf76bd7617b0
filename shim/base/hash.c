/*
 * The memory of hash tables.
 */
#include "base/hash.h"

#define HASH_MEMORY 65536

static union {
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
