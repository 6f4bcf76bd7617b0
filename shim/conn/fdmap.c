/*
 * The table behind conn/fdmap.h.
 */
#include "conn/fdmap.h"

_Atomic uint32_t fdmap_words[FDMAP_SIZE];

static _Atomic int end;

static void note_used(int fd)
{
    int seen = atomic_load_explicit(&end, memory_order_relaxed);

    while (fd >= seen && !atomic_compare_exchange_weak(&end, &seen, fd + 1))
        ;
}

uint32_t fdmap_exchange(int fd, uint32_t value)
{
    if (value != FDMAP_NONE)
        note_used(fd);
    return atomic_exchange(&fdmap_words[fd], value);
}

bool fdmap_replace(int fd, uint32_t expected, uint32_t value)
{
    if (value != FDMAP_NONE)
        note_used(fd);
    return atomic_compare_exchange_strong(&fdmap_words[fd], &expected, value);
}

int fdmap_end(void)
{
    return atomic_load_explicit(&end, memory_order_relaxed);
}
