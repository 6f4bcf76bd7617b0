/*
 * Whether memory of the program can be read without a crash. A hook that reads the program's
 * buffers before the real call needs to know: a bad address must lead to EFAULT from the
 * kernel, as it does without the library.
 *
 * Some memory is certainly readable: the program's variables, its heap and the stack of its
 * first thread, as far as they reach now, unless the program protects a part of them. Of these
 * only the end of the heap moves, and libc has a variable for it. For other memory a system
 * call asks the kernel.
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

/* Where that memory is. All zero before the functions below, and for what they did not find. */
extern struct memory {
    struct usermem_range variables;
    uintptr_t variables_few; /* their size less USERMEM_FEW, or 0 */
    uintptr_t heap_from;
    void *const *heap_end; /* libc's variable for the program break, see brk(2) */
    uintptr_t stack_end;   /* the stack of the first thread is below */
} memory __attribute__((visibility("hidden")));

/* Fills `memory` but for heap_end. Called once, at start-up. */
void usermem_start(void);

/* The program is about to make SIZE bytes at FROM unreadable. Memory that has some of them is
 * not certainly readable from now on. */
void usermem_note_unreadable(const void *from, size_t size);

/* Fills heap_end. Called before the first connection; looks a symbol up. */
void usermem_find_heap(void);

/* An address at most so far below stack_end is on the stack of the first thread. The kernel
 * maps nothing else there: it keeps at least 128 MB free for that stack (mmap_base()). */
#define MEMORY_STACK_MOST (1 << 20)

static inline bool usermem_in(struct usermem_range range, uintptr_t at)
{
    return at - range.from < range.size;
}

/* Whether all N bytes at AT, at least one, lie from FROM to END. END may be below FROM: a heap
 * that was trimmed may end below where it ended when we looked first. */
static inline bool usermem_within(uintptr_t at, size_t n, uintptr_t from, uintptr_t end)
{
    return at >= from && at < end && n <= end - at;
}

/* Whether N bytes at AT and M bytes at OTHER have one in common. */
static inline bool usermem_overlap(uintptr_t at, size_t n, uintptr_t other, size_t m)
{
    return n > 0 && m > 0 && (at < other ? other - at < n : at - other < m);
}

/* Whether all N bytes at AT, at least one, are in a part of the first thread's stack that is in
 * use: in FRAME, an address in the caller's frame, or above it on the same stack. */
static inline bool usermem_on_stack(uintptr_t at, size_t n, uintptr_t frame)
{
    const struct memory *known = &memory;

    return known->stack_end - frame < MEMORY_STACK_MOST &&
           usermem_within(at, n, frame, known->stack_end);
}

/* Whether the word at AT is certainly readable. FRAME is an address in the caller's frame: the
 * part of the same stack above it is in use, so it is readable. */
static inline bool usermem_certain(uintptr_t at, uintptr_t frame)
{
    const struct memory *known = &memory;

    return usermem_in(known->variables, at) ||
           (known->heap_end &&
            usermem_within(at, 1, known->heap_from, (uintptr_t)*known->heap_end)) ||
           usermem_on_stack(at, 1, frame);
}

/* Whether all N bytes at BYTES, at least one, are certainly readable. FRAME as above. */
static inline bool usermem_all_certain(const void *bytes, size_t n, uintptr_t frame)
{
    const struct memory *known = &memory;
    uintptr_t at = (uintptr_t)bytes, variables = known->variables.from;

    return usermem_within(at, n, variables, variables + known->variables.size) ||
           (known->heap_end &&
            usermem_within(at, n, known->heap_from, (uintptr_t)*known->heap_end)) ||
           usermem_on_stack(at, n, frame);
}

/* The same for any N up to USERMEM_FEW, in fewer steps: not for the last such bytes of each
 * memory. */
#define USERMEM_FEW 256

static inline bool usermem_few_certain(const void *bytes, uintptr_t frame)
{
    const struct memory *known = &memory;
    uintptr_t at = (uintptr_t)bytes;

    return at - known->variables.from < known->variables_few ||
           (known->heap_end &&
            usermem_within(at, USERMEM_FEW, known->heap_from, (uintptr_t)*known->heap_end)) ||
           usermem_on_stack(at, USERMEM_FEW, frame);
}

#define READABLE_PAGE 4096

/* Whether the word at WORD is certainly readable: it is in the page of our own stack frame, as
 * small buffers on the stack often are, or in memory known to be readable. No system call. */
static inline bool usermem_word_certain(uintptr_t word)
{
    uintptr_t frame = (uintptr_t)__builtin_frame_address(0);

    return word / READABLE_PAGE == frame / READABLE_PAGE || usermem_certain(word, frame);
}

/* Whether the aligned word around BYTES is readable. Probes with rt_sigprocmask() and an
 * invalid `how`: the kernel copies the mask (EFAULT) before it rejects `how` (EINVAL), and
 * ignores a NULL mask. If a seccomp filter blocks the call, the word is assumed readable: most
 * pointers are good. */
static inline bool usermem_word_readable(const void *bytes)
{
    enum { WORD = 8, NO_SUCH_HOW = -1 };
    uintptr_t word = (uintptr_t)bytes & ~(uintptr_t)(WORD - 1);

    if (usermem_word_certain(word))
        return true;
    return word != 0 &&
           raw_syscall(SYS_rt_sigprocmask, NO_SUCH_HOW, word, NULL, WORD) != -EFAULT;
}

/* Whether, of the N bytes at BYTES, the first one and the last TAIL are readable. TAIL is less
 * than a page. Asks once for each page. */
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

/* Whether N bytes at BYTES are readable. N is less than a page. */
static inline bool usermem_readable(const void *bytes, size_t n)
{
    return usermem_ends_readable(bytes, n, n);
}

/* Whether N bytes at BYTES are readable, for any N. */
static inline bool usermem_all_readable(const void *bytes, size_t n)
{
    const char *at = bytes;

    for (; n >= READABLE_PAGE; at += READABLE_PAGE - 1, n -= READABLE_PAGE - 1) {
        if (!usermem_readable(at, READABLE_PAGE - 1))
            return false;
    }
    return usermem_readable(at, n);
}

/* Whether the int at AT is readable. Reads no byte beside it: those may be uninitialized, which
 * valgrind would report. Slower. FUTEX_CMP_REQUEUE reads the int to compare it, and has no
 * thread to wake, so it changes nothing; FUTEX_WAKE would not read it (futex(2)). */
static inline bool usermem_int_readable(const int *at)
{
    uintptr_t word = (uintptr_t)at & ~(uintptr_t)(sizeof(int) - 1);

    return raw_syscall(SYS_futex, word, FUTEX_CMP_REQUEUE_PRIVATE, 0, 0, word, 0) != -EFAULT;
}

#endif
