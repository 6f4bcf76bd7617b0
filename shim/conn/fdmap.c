/*
 * The words of the fd map, and the changes of a word.
 */
#include "conn/fdmap.h"

#include "base/compiler.h"

LARGE _Atomic uint32_t fdmap_words[FDMAP_SIZE];

static _Atomic int end;

/* Relaxed: `end` only grows, and the exchange or CAS of the word, which follows, orders it. */
static void note_used(int fd)
{
    int seen = atomic_load_explicit(&end, memory_order_relaxed);

    while (fd >= seen && !atomic_compare_exchange_weak(&end, &seen, fd + 1))
        ;
}

/* seq_cst: each of the two changes releases the record that WORD names, and acquires the record
 * that the former word named; see shim/concurrency.md, 1. */
uint32_t fdmap_exchange(int fd, uint32_t word)
{
    if (word != FDMAP_NONE)
        note_used(fd);
    return atomic_exchange(&fdmap_words[fd], word);
}

INLINED bool fdmap_replace(int fd, uint32_t expected, uint32_t word)
{
    /* An fd that has a word was noted when it got that. */
    if (expected == FDMAP_NONE)
        note_used(fd);
    return atomic_compare_exchange_strong(&fdmap_words[fd], &expected, word);
}

/* Relaxed: see note_used(). */
int fdmap_end(void)
{
    return atomic_load_explicit(&end, memory_order_relaxed);
}
