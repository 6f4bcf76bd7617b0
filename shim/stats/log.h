/*
 * The log. It is off unless MCPOOL_LOG names a file, which must be a regular file, or is
 * `stderr`. Each line is one write. A line that cannot be written at once is dropped, and no
 * signal is raised.
 *
 * With `stderr` the lines go to fd 2 only while it refers to the same file as at start-up: a
 * daemon may close fd 2, and then a connection or a file with data may get it.
 *
 * Usable in signal handlers and after fork, without the pool's lock. errno is kept.
 */
#ifndef MCPOOL_LOG_H
#define MCPOOL_LOG_H

#include <stdbool.h>

#include "base/compiler.h"
#include "config/config.h"
#include "base/reasons.h"

/* Called once, at start-up. The caller keeps CONFIG, which must not change any more. */
void log_start(const struct config *config);

/* The highest level that is written; -1, below all levels, without a log. */
extern int log_level __attribute__((visibility("hidden")));

static inline bool log_wants(enum log_level level)
{
    return (int)level <= log_level;
}

/* Kinds of lines whose number is limited: a reason, and "not kept" or "discarded". */
#define LOG_KINDS (2 * REASON_COUNT)

/* Whether a line of KIND is to be written: one each second, or all at the level debug. If so,
 * OTHERS, of ROOM bytes, is filled with the text for the end of the line: how many lines of
 * KIND were not written since the last one. */
bool log_again(unsigned int kind, char *others, size_t room);

/* In the child of a fork: forgets the lines that the parent has not written. */
void log_after_fork_in_child(void);

/* Writes a line if its level is wanted. The format is one of base/fmt.h, without a line end. */
#define log_line(level, ...) (log_wants(level) ? log_write(level, __VA_ARGS__) : (void)0)

COLD void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
