/*
 * Hash tables: uthash without malloc(), which must not be called after start-up, and without
 * exit(), which uthash calls when memory is short. Include this file instead of <uthash.h>.
 * Also hash_mix(), for tables that are plain arrays.
 */
#ifndef MCPOOL_HASH_H
#define MCPOOL_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Returns SIZE bytes of a static block, which are never freed; NULL when the block is used up.
 * The caller holds the pool's lock. */
void *hash_allocate(size_t size);

/* A growing table allocates a larger array of buckets and frees the smaller one. The number of
 * endpoints is bounded, and so is the memory of all these arrays: none of it is reused. */
#define uthash_malloc(size)       hash_allocate(size)
#define uthash_free(memory, size) ((void)(memory))
/* Without memory the element is not added. The function that adds it declares the variable. */
#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) (out_of_memory = true)

/* Multiplicative (Fibonacci) hashing: the upper half of the result depends on all bits of
 * VALUE. The multiplier is 2^64 divided by the golden ratio, made odd. */
static inline uint64_t hash_mix(uint64_t value)
{
    return value * UINT64_C(0x9e3779b97f4a7c15);
}

/* The hash of a key, eight bytes at a time; uthash's own functions read byte by byte. */
static inline unsigned int hash_of(const void *key, size_t length)
{
    const unsigned char *at = key;
    uint64_t hash = length, word;

    for (size_t n; length > 0; at += n, length -= n) {
        n = length < sizeof(word) ? length : sizeof(word);
        word = 0;
        memcpy(&word, at, n);
        hash = hash_mix(hash ^ word);
        hash ^= hash >> 32;
    }
    return (unsigned int)hash;
}

#define HASH_FUNCTION(key, length, hash) ((hash) = hash_of(key, length))

#include <uthash.h>

#endif
