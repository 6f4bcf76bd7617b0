/*
 * Quits: before close(), many clients send `quit` or call shutdown(), and a server that
 * receives that ends the connection. So if nothing at all is outstanding, the quit is kept from
 * the server, the connection is checked in at that moment, and a tombstone takes its fd. A
 * tombstone is one end of a socket pair whose other end is closed. The kernel then does the
 * rest: reading gives what is left to say and end of file, writing gives EPIPE, waiting a
 * hang-up. Before the check-in the kernel is asked what the fd refers to: the program may have
 * closed and reused it where no hook saw it.
 *
 * A quit is also a barrier: at the end of file a client knows that everything it sent was done.
 * So a quit is passed on if it follows quiet requests that no later answer has confirmed, or
 * shares its write with requests.
 *
 * To be called for fds that have a word in the map, without the pool's lock. errno is kept.
 */
#ifndef MCPOOL_QUIT_H
#define MCPOOL_QUIT_H

#include <stdbool.h>
#include <stddef.h>

#include "base/compiler.h"
#include "wire/wire.h"

/* The program quits on FD, of which the map has said WORD: by shutdown(), if QUIT is NULL, or
 * by a write of the N readable bytes at QUIT, which may turn out to be something else. True:
 * the connection was checked in, and a tombstone is at FD. False: the caller passes the call
 * on. */
COLD bool quit_intercept(int fd, uint32_t word, const void *quit, size_t n);

#endif
