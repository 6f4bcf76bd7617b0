/*
 * May the program's memory be looked at? Before the real call it is not known: a bad address
 * must give EFAULT, as without us, and no crash.
 *
 * Some memory is there for certain: the program's variables, its heap and the stack of its
 * first thread, as far as these reach at the moment. Nothing but the end of the heap moves, and
 * libc keeps that. Of other memory the kernel is asked.
 *
 * No lock, no wait; errno is kept.
 */
#ifndef MCPOOL_USERMEM_H
#define MCPOOL_USERMEM_H

#include <errno.h>
#include <linux/futex.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/rawsys.h"

struct usermem_range {
    uintptr_t from;
    uintptr_t size;
};

/* Where they are; empty before usermem_start(), and where it cannot be told. */
extern struct memory {
    struct usermem_range variables;
    uintptr_t heap_from;
    void *const *heap_end; /* libc's own variable, see brk(2) */
    uintptr_t stack_end;   /* nothing of the first thread lies above */
} memory __attribute__((visibility("hidden")));

/* Finds them. Once, at start-up; looks symbols up. */
void usermem_start(void);

/* How far below its end a stack is believed to be that of the first thread: fewer bytes than
 * the kernel leaves free below the least stack it gives (mmap_base() of Linux: 128 MB). */
#define MEMORY_STACK_MOST (1 << 20)

static inline bool usermem_in(struct usermem_range range, uintptr_t at)
{
    return at - range.from < range.size;
}

/* Whether the word at AT is such memory. FRAME is an address in the caller's frame: what lies
 * above on the same stack is there. */
static inline bool usermem_certain(uintptr_t at, uintptr_t frame)
{
    const struct memory *known = &memory;

    return usermem_in(known->variables, at) ||
           (known->heap_end &&
            usermem_in((struct usermem_range){known->heap_from,
                                              (uintptr_t)*known->heap_end - known->heap_from},
                       at)) ||
           (known->stack_end - frame < MEMORY_STACK_MOST &&
            usermem_in((struct usermem_range){frame, known->stack_end - frame}, at));
}

#define READABLE_PAGE 4096

/* Whether the word at WORD is readable for certain: it lies in the page of our own frame, as
 * small things on the stack often do, or is memory that is always there. No system call. */
static inline bool usermem_word_certain(uintptr_t word)
{
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);

    return word / READABLE_PAGE == frame / READABLE_PAGE || usermem_certain(word, frame);
}

/* Whether the aligned word around BYTES is readable: rt_sigprocmask() copies a mask from there
 * before it refuses to do anything with it, if it is given any. Where a filter forbids the call
 * it is not known, and taken to be readable: a bad pointer is rarer than a good one. */
static inline bool usermem_word_readable(const void *bytes)
{
    enum { WORD = 8, NO_SUCH_HOW = -1 };
    uintptr_t word = (uintptr_t)bytes & ~(uintptr_t)(WORD - 1);

    if (usermem_word_certain(word))
        return true;
    return word != 0 &&
           raw_syscall(SYS_rt_sigprocmask, NO_SUCH_HOW, word, NULL, WORD) != -EFAULT;
}

/* Whether the first byte and the last TAIL (fewer than a page) of the N at BYTES are readable:
 * one question for what lies in one page. */
static inline bool usermem_ends_readable(const void *bytes, size_t n, size_t tail)
{
    uintptr_t first = (uintptr_t)bytes, last = first + n - 1,
              from = last - (tail < n ? tail : n) + 1;

    if (n == 0 || last < first || !usermem_word_readable(bytes))
        return false;
    return (from / READABLE_PAGE == first / READABLE_PAGE ||
            usermem_word_readable((const void *)from)) &&
           (last / READABLE_PAGE == from / READABLE_PAGE ||
            usermem_word_readable((const void *)last));
}

/* Whether N bytes at BYTES, fewer than a page, are readable. */
static inline bool usermem_readable(const void *bytes, size_t n)
{
    return usermem_ends_readable(bytes, n, n);
}

/* Whether N bytes at BYTES, however many, are readable. */
static inline bool usermem_all_readable(const void *bytes, size_t n)
{
    const char *at = bytes;

    for (; n >= READABLE_PAGE; at += READABLE_PAGE - 1, n -= READABLE_PAGE - 1) {
        if (!usermem_readable(at, READABLE_PAGE - 1))
            return false;
    }
    return usermem_readable(at, n);
}

/* Whether AT can be read, and nothing beside it is: what else lies in its word may never have
 * been written, and a checker of memory would say so. Slower. A futex that is compared and then
 * has nobody to wake is left as it is; FUTEX_WAKE would not look (futex(2)). */
static inline bool usermem_int_readable(const int *at)
{
    uintptr_t word = (uintptr_t)at & ~(uintptr_t)(sizeof(int) - 1);

    return raw_syscall(SYS_futex, word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, word, 0) != -EFAULT;
}

#endif
