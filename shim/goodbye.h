/*
 * Goodbyes: many clients say `quit`, or shut their side down, before they close, and a server
 * that hears it ends the connection. What is clean is checked in at that moment instead, and a
 * tombstone takes its number: one end of a socket pair whose other end is closed, so that
 * reading gives what is left to say and then end of file, writing EPIPE, and waiting a hang-up,
 * all from the kernel. What the fd names is asked first: the program may have closed it and
 * have got it again for something else, unseen.
 *
 * Called for numbers with a slot in the map, without the pool's lock. errno is kept.
 */
#ifndef MCPOOL_GOODBYE_H
#define MCPOOL_GOODBYE_H

#include <stdbool.h>
#include <stddef.h>

#include "cold.h"
#include "wire/wire.h"

/* The longest goodbye is a binary packet without a body. */
#define GOODBYE_LONGEST WIRE_PACKET_HEADER

/* How many of the N bytes at BYTES, about to be sent on FD, are a goodbye that ends them; 0
 * when there is none. The last GOODBYE_LONGEST of them must be readable. */
size_t goodbye_in(int fd, const void *bytes, size_t n);

/* The program said goodbye on FD, by the GOODBYE that goodbye_in() found or, NULL, by
 * shutdown(). True when the connection was checked in and a tombstone is at FD; false when the
 * goodbye is to be passed on. */
COLD bool goodbye_bury(int fd, const void *goodbye);

#endif
