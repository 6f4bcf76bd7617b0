/*
 * The fd map: for each fd one atomic word that tells what we know of it. A hook on an fd we
 * know nothing of costs one bounds check and one load.
 *
 * A word is one of: nothing; the record of a connection, for the program's fd or for our shadow
 * fd; an epoll set; a ring of io_uring; an fd that is waited for. It changes by exchange or by
 * compare and swap, and the thread whose change removes a word owns what the word named; see
 * shim/concurrency.md, 1.
 */
#ifndef MCPOOL_FDMAP_H
#define MCPOOL_FDMAP_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* An fd from here on is never tracked. */
#define FDMAP_SIZE 65536

/* A word. The index is the id of a record (conn_id()), the fork_epoch of an epoll set, or the
 * index of a ring + 1. */
#define FDMAP_NONE    0u
#define FDMAP_INDEX   0x00ffffffu
#define FDMAP_WAITED  0x08000000u /* nothing else is known of it, see conn/waiter.h */
#define FDMAP_RING    0x10000000u /* with FDMAP_EPOLL: a ring of io_uring, see conn/ring.h */
#define FDMAP_CLOSING 0x20000000u /* a close() or connect() is about to end the connection */
#define FDMAP_SHADOW  0x40000000u /* a shadow fd: the program never got it */
#define FDMAP_EPOLL   0x80000000u
#define FDMAP_COPY    (FDMAP_SHADOW | FDMAP_WAITED)  /* a shadow fd without a record */
#define FDMAP_QUEUE   (FDMAP_SHADOW | FDMAP_CLOSING) /* ours as well; see conn/fdqueue.h */

extern _Atomic uint32_t fdmap_words[FDMAP_SIZE] __attribute__((visibility("hidden")));

/* The word of FD; FDMAP_NONE when FD is out of range. This is the only look-up of most hooks.
 * Relaxed, so the word may be old: each use checks it, by fdmap_replace() or by the second look
 * in conn_get_at(); see shim/concurrency.md, 1. */
static inline uint32_t fdmap_word(int fd)
{
    return (unsigned int)fd < FDMAP_SIZE
               ? atomic_load_explicit(&fdmap_words[fd], memory_order_relaxed)
               : FDMAP_NONE;
}

/* Whether we know nothing of FD. */
static inline bool fdmap_is_plain(int fd)
{
    return fdmap_word(fd) == FDMAP_NONE;
}

/* As fdmap_word(), but seq_cst: pairs with the changes of `inflight` and with the counts of
 * bulk closes; see shim/concurrency.md, 2 and 3. */
static inline uint32_t fdmap_get(int fd)
{
    return (unsigned int)fd < FDMAP_SIZE ? atomic_load(&fdmap_words[fd]) : FDMAP_NONE;
}

/* Whether FD still has WORD, with or without FDMAP_CLOSING. seq_cst, as fdmap_get(). FD must be
 * below FDMAP_SIZE. */
static inline bool fdmap_holds(int fd, uint32_t word)
{
    return ((atomic_load(&fdmap_words[fd]) ^ word) & ~FDMAP_CLOSING) == 0;
}

/* Gives FD the word WORD and returns the former one. FD must be below FDMAP_SIZE. */
uint32_t fdmap_exchange(int fd, uint32_t word);

/* Changes the word of FD from EXPECTED to WORD; false when it was another. FD must be below
 * FDMAP_SIZE. */
bool fdmap_replace(int fd, uint32_t expected, uint32_t word);

/* One more than the highest fd that ever had a word: a bound for walks over the map. */
int fdmap_end(void);

#endif
