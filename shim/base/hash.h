/*
 * uthash, made fit for another program's process: no malloc() after start-up and no exit() when
 * memory is short. Included instead of <uthash.h>. And the mixing of bits that it needs.
 */
#ifndef MCPOOL_HASH_H
#define MCPOOL_HASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* Cuts SIZE bytes from a block reserved at start-up. NULL when it is used up. Called with the
 * pool's lock held. */
void *hash_allocate(size_t size);

/*
 * A table allocates ever larger arrays of buckets and frees the smaller ones. The number of
 * endpoints is bounded, so all the arrays it can ever want are, too: nothing is given back.
 */
#define uthash_malloc(size)       hash_allocate(size)
#define uthash_free(memory, size) ((void)(memory))
/* The element was not added; the function that adds one declares the variable. */
#define HASH_NONFATAL_OOM            1
#define uthash_nonfatal_oom(element) (out_of_memory = true)

/* Spreads the bits of VALUE: the upper half of the result depends on all of them. The odd
 * multiplier is 2^64 over the golden ratio. */
static inline uint64_t hash_mix(uint64_t value)
{
    return value * UINT64_C(0x9e3779b97f4a7c15);
}

/* Addresses are few and short; uthash's own functions go through them byte by byte. */
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
