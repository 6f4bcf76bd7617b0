/*
 * Goodbyes: many clients say `quit`, or shut their side down, before they close, and a server
 * that hears it ends the connection. A connection on which nothing at all is outstanding is
 * checked in at that moment instead, and a tombstone takes its fd: one end of a socket pair
 * whose other end is closed, so that reading gives what is left to say and then end of file,
 * writing EPIPE, and waiting a hang-up, all from the kernel. Before that the kernel is asked
 * what the fd refers to: the program may have closed it unseen and reused it.
 *
 * A goodbye is also a barrier: at the end of file a client knows that everything it sent was
 * done. So a goodbye behind quiet requests that no later answer has confirmed is passed on, as
 * is one that shares its write with requests.
 *
 * Called for numbers with a slot in the map, without the pool's lock. errno is kept.
 */
#ifndef MCPOOL_QUIT_H
#define MCPOOL_QUIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "wire/wire.h"

/* The longest goodbye is a binary packet without a body. */
#define QUIT_LONGEST WIRE_PACKET_HEADER

/* The program says goodbye on FD, of which the map has said WORD: by shutdown(), when GOODBYE
 * is NULL, or by a write of the N readable bytes at GOODBYE, which may turn out to be something
 * else. True when the connection was checked in and a tombstone is at FD; false when the call
 * is to be passed on. */
COLD bool quit_intercept(int fd, uint32_t word, const void *goodbye, size_t n);

#endif
