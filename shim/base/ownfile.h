/*
 * Our own files in the program's process: the log and the file of counters. The program must
 * not notice that they are opened and written: no signal reaches it, no file gets a standard
 * fd, no child inherits an fd.
 *
 * No function returns with a lock held, except for ownfile_before_fork(). errno is kept.
 */
#ifndef MCPOOL_OWNFILE_H
#define MCPOOL_OWNFILE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "base/compiler.h"

struct ownfile {
    uint64_t mask;    /* the signals blocked before ownfile_begin() */
    uint64_t pending; /* the blocked ones that were pending before it */
};

/* Blocks all signals in the calling thread: no handler can jump out, and no cancellation can
 * come, until ownfile_end(). False when a seccomp filter forbids it; then the caller touches no
 * file and does not call ownfile_end(). */
COLD bool ownfile_begin(struct ownfile *own);

/* Restores the signals. RESULT is what the kernel returned for a write of N bytes: if the write
 * has raised SIGPIPE or SIGXFSZ (pipe(7), setrlimit(2)), that signal is discarded first. */
COLD void ownfile_end(const struct ownfile *own, long result, size_t n);

/* Opens PATH between ownfile_begin() and ownfile_end(). Returns the fd, or -errno. Does not
 * follow a symbolic link at the end of PATH. Does not wait for the other end of a FIFO or the
 * holder of a lease. The fd is above 2: a daemon may have closed its standard fds. */
COLD int ownfile_open(const char *path, int flags);
COLD void ownfile_close(int fd);

/* The same, with a relative PATH below the directory at the fd DIRECTORY. */
COLD int ownfile_open_at(int directory, const char *path, int flags);

/* The handlers around a fork; see pthread_atfork(3). No other thread opens or closes a file of
 * ours during the fork. The child closes those that other threads of its parent had open. */
COLD void ownfile_before_fork(void);
COLD void ownfile_after_fork_in_parent(void);
COLD void ownfile_after_fork_in_child(void);

/* Whether a file may grow to SIZE bytes without SIGXFSZ, which a write beyond RLIMIT_FSIZE
 * raises (setrlimit(2)). */
COLD bool ownfile_may_grow(uint64_t size);

/* fstat(2) of FD into FOUND; false when it fails. */
COLD bool ownfile_identify(int fd, struct stat *found);

#endif
