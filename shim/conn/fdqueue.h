/*
 * A queue of fds in the kernel. Each message is an fd and a few bytes about it, and any process
 * that has the queue can take it out.
 *
 * It is a Unix datagram socket that is connected to itself: one fd, and the kernel refuses what
 * a stranger sends to it (unix(7)). Its own fd lies among the shadow fds, with FDMAP_QUEUE in
 * the fd map, is closed by an exec, and is not closed if the program closes fds in a loop.
 *
 * No function here takes a lock or blocks. errno is kept. A thread that gives or takes keeps
 * forks out meanwhile (pool/family.h): a child would get an fd of which it knows nothing.
 */
#ifndef MCPOOL_FDQUEUE_H
#define MCPOOL_FDQUEUE_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* FD is -1 where there is no queue. COOKIE tells the queue from what is at FD once the program
 * has closed it unseen. */
struct fdqueue {
    _Atomic int fd; /* other threads look whether an fd is that of a queue */
    _Atomic uint64_t cookie;
};

/* Makes a queue. False when the kernel refuses one: QUEUE is none then. */
COLD bool fdqueue_make(struct fdqueue *queue);

/* Closes this process's fd of QUEUE, if it is still there. QUEUE is none then. */
COLD void fdqueue_close(struct fdqueue *queue);

/* Whether QUEUE is where it was. */
COLD bool fdqueue_is_there(const struct fdqueue *queue);

/* Moves QUEUE to another fd, and closes the former unless KEEP. False when that failed: QUEUE
 * is none then. */
COLD bool fdqueue_move(struct fdqueue *queue, bool keep);

/* Puts FD and the N bytes at MESSAGE behind what is in QUEUE. FD stays open here. Returns 0 or
 * -errno: EAGAIN when the queue is full, ETOOMANYREFS when the user has too many fds in flight
 * (unix(7)), EPIPE after a shutdown(). */
COLD long fdqueue_give(const struct fdqueue *queue, int fd, const void *message, size_t n);

/* Takes out what has been in QUEUE longest. Fills MESSAGE, at most N bytes, and FD, which is
 * close-on-exec and the caller's; -1 when none came: the message had none, or the process has
 * no room for one. Its SO_LINGER (socket(7)), which its sender may have set, is off, so that a
 * close() does not wait. Returns the length of the message, which may be 0, and is more than N
 * also for one with several fds; else -errno: EAGAIN when the queue is empty, also after a
 * shutdown(). */
COLD long fdqueue_take(const struct fdqueue *queue, void *message, size_t n, int *fd);

/* Fills MESSAGE with what is first in QUEUE and leaves it there. Returns as fdqueue_take(). */
COLD long fdqueue_peek(const struct fdqueue *queue, void *message, size_t n);

/* The kernel's memory, in bytes, for all that is in QUEUE; 0 also when it does not say. Equal
 * messages take equal parts of it. */
COLD unsigned int fdqueue_size(const struct fdqueue *queue);

/* Whether an fd that the kernel gives out now would have a place. */
COLD bool fdqueue_has_room(const struct fdqueue *queue);

#endif
