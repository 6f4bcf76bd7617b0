/*
 * The log: off unless MCPOOL_LOG names a file. One write per line; usable in signal handlers
 * and after fork; never with the pool's lock held. errno is kept. A line that cannot be written
 * is dropped.
 */
#ifndef MCPOOL_LOG_H
#define MCPOOL_LOG_H

#include <stdbool.h>

#include "cold.h"
#include "config.h"

/* CONFIG stays the caller's and must not change. */
void log_start(const struct config *config);

/* The highest level that is written; below all levels when there is no log. */
extern int log_level __attribute__((visibility("hidden")));

static inline bool log_wants(enum log_level level)
{
    return (int)level <= log_level;
}

/* FORMAT as in text.h, without a line end. */
#define log_line(level, ...) (log_wants(level) ? log_write(level, __VA_ARGS__) : (void)0)

COLD void log_write(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
