/*
 * The log: off unless MCPOOL_LOG names a file. One write per line; usable in signal handlers
 * and after fork; never with the pool's lock held. errno is kept. A line that cannot be written
 * at once is dropped, and no signal tells of it.
 *
 * With `stderr` lines go to fd 2 as long as it is what it was at start-up: a daemon closes it,
 * and fd 2 is soon a connection or a file with data. Only a regular file is a log file.
 */
#ifndef MCPOOL_LOG_H
#define MCPOOL_LOG_H

#include <stdbool.h>

#include "base/compiler.h"
#include "config/config.h"
#include "base/reasons.h"

/* CONFIG stays the caller's and must not change. */
void log_start(const struct config *config);

/* The highest level that is written; below all levels when there is no log. */
extern int log_level __attribute__((visibility("hidden")));

static inline bool log_wants(enum log_level level)
{
    return (int)level <= log_level;
}

/* Kinds of lines of which there may be many. */
#define LOG_KINDS (2 * REASON_COUNT)

/* Whether a line of KIND is to be written: one a second, or all at the level debug. OTHERS, of
 * ROOM bytes, is filled with what to say at its end of those that were not. */
bool log_again(unsigned int kind, char *others, size_t room);

/* In the child of a fork: what was not written is the parent's. */
void log_after_fork_in_child(void);

/* FORMAT as in base/fmt.h, without a line end. */
#define log_line(level, ...) (log_wants(level) ? log_write(level, __VA_ARGS__) : (void)0)

COLD void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
