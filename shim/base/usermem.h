/*
 * Which memory of the program is there for certain: its variables, its heap and the stack of
 * its first thread, as far as these reach at the moment. Nothing but the end of the heap moves,
 * and libc keeps that.
 */
#ifndef MCPOOL_USERMEM_H
#define MCPOOL_USERMEM_H

#include <stdbool.h>
#include <stdint.h>

struct memory_range {
    uintptr_t from;
    uintptr_t size;
};

/* Where they are; empty before memory_start(), and where it cannot be told. */
extern struct memory {
    struct memory_range variables;
    uintptr_t heap_from;
    void *const *heap_end; /* libc's own variable, see brk(2) */
    uintptr_t stack_end;   /* nothing of the first thread lies above */
} memory __attribute__((visibility("hidden")));

/* Finds them. Once, at start-up; looks symbols up. */
void memory_start(void);

/* How far below its end a stack is believed to be that of the first thread: fewer bytes than
 * the kernel leaves free below the least stack it gives (mmap_base() of Linux: 128 MB). */
#define MEMORY_STACK_MOST (1 << 20)

static inline bool memory_in(struct memory_range range, uintptr_t at)
{
    return at - range.from < range.size;
}

/* Whether the word at AT is such memory. FRAME is an address in the caller's frame: what lies
 * above on the same stack is there. */
static inline bool memory_is_certain(uintptr_t at, uintptr_t frame)
{
    const struct memory *known = &memory;

    return memory_in(known->variables, at) ||
           (known->heap_end &&
            memory_in((struct memory_range){known->heap_from,
                                            (uintptr_t)*known->heap_end - known->heap_from},
                      at)) ||
           (known->stack_end - frame < MEMORY_STACK_MOST &&
            memory_in((struct memory_range){frame, known->stack_end - frame}, at));
}

#endif
