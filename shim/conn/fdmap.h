/*
 * Descriptor number -> what we know of it. Lock-free: every slot is one atomic word, so that a
 * call on a number that is none of ours costs one bounds check and one load.
 *
 * A slot holds nothing, a connection (the application's number, or one of our private numbers),
 * or the mark of an epoll set or of a ring. Only the owner of a slot's value changes it, by
 * compare and swap.
 */
#ifndef MCPOOL_FDMAP_H
#define MCPOOL_FDMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* Numbers from here on are never tracked. */
#define FDMAP_SIZE 65536

#define FDMAP_NONE 0u
#define FDMAP_INDEX                                                                            \
    0x00ffffffu /* connection number + 1, or the age of an epoll set, or ring number + 1 */
#define FDMAP_RING    0x10000000u /* with FDMAP_EPOLL: a ring of io_uring, see conn/ring.h */
#define FDMAP_CLOSING 0x20000000u /* a connection that a close is about to end */
#define FDMAP_SHADOW  0x40000000u /* the number is ours, the application never got it */
#define FDMAP_EPOLL   0x80000000u

extern _Atomic uint32_t fdmap_words[FDMAP_SIZE] __attribute__((visibility("hidden")));

/* The one look-up of a call: the word of FD; FDMAP_NONE when it is out of range. The word may
 * be old by now. What is done with it checks that: conn_get_at(), fdmap_replace(). */
static inline uint32_t fdmap_word(int fd)
{
    return (unsigned int)fd < FDMAP_SIZE
               ? atomic_load_explicit(&fdmap_words[fd], memory_order_relaxed)
               : FDMAP_NONE;
}

/* Whether FD is none of ours: the one test on every untracked call. */
static inline bool fdmap_is_plain(int fd)
{
    return fdmap_word(fd) == FDMAP_NONE;
}

/* As fdmap_word(), in one order with the changes of the map by all threads. */
static inline uint32_t fdmap_get(int fd)
{
    return (unsigned int)fd < FDMAP_SIZE ? atomic_load(&fdmap_words[fd]) : FDMAP_NONE;
}

/* Whether FD still has WORD, being closed or not; in the same order. FD must be below
 * FDMAP_SIZE. */
static inline bool fdmap_holds(int fd, uint32_t word)
{
    return ((atomic_load(&fdmap_words[fd]) ^ word) & ~FDMAP_CLOSING) == 0;
}

/* Puts VALUE in the slot of FD and returns what was there. FD must be below FDMAP_SIZE. */
uint32_t fdmap_exchange(int fd, uint32_t value);

/* Changes the slot of FD from EXPECTED to VALUE; false when it held something else. FD must be
 * below FDMAP_SIZE. */
bool fdmap_replace(int fd, uint32_t expected, uint32_t value);

/* One more than the highest number that ever had a value: a bound for walks over the map. */
int fdmap_end(void);

#endif
