/*
 * Our own files in the program's process: the log and the counters. Opening and writing them
 * must do nothing that the program could notice: no signal, no standard fd, no fd in a child.
 *
 * No lock is held when a function returns, but between the two around a fork. errno is kept.
 */
#ifndef MCPOOL_OWNFILE_H
#define MCPOOL_OWNFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/compiler.h"

struct ownfile {
    uint64_t mask;    /* the signals that were blocked before */
    uint64_t pending; /* those of our own making that were pending before */
};

/* Blocks all signals in the calling thread, so that no handler can jump out and no cancellation
 * can end what comes next. To be ended by ownfile_end(). False when a filter forbids it:
 * then no file is to be touched. */
COLD bool ownfile_begin(struct ownfile *own);

/* RESULT is what the kernel gave for a write of N bytes. A SIGPIPE or SIGXFSZ that the write
 * has raised (pipe(7), setrlimit(2)) is taken away; then the signals are as they were. */
COLD void ownfile_end(const struct ownfile *own, long result, size_t n);

/* Opens PATH for a moment. Never follows a symbolic link at its end, never waits (for the other
 * end of a FIFO, or the holder of a lease), and never gives one of the fds 0 to 2, which are
 * closed in some daemons. -errno on failure. */
COLD int ownfile_open(const char *path, int flags);
COLD void ownfile_close(int fd);

/* Around a fork; see pthread_atfork(3). No other thread opens a file of ours meanwhile, and the
 * child, which has one thread, closes those that other threads of the parent had open. */
COLD void ownfile_before_fork(void);
COLD void ownfile_after_fork_in_parent(void);
COLD void ownfile_after_fork_in_child(void);

/* Whether a file may grow to SIZE bytes: beyond its limit a write raises a signal in the
 * program (RLIMIT_FSIZE, setrlimit(2)). */
COLD bool ownfile_may_grow(uint64_t size);

/* Fills FOUND with what FD refers to. */
COLD bool ownfile_identify(int fd, struct stat *found);

#endif
