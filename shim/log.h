/*
 * The log: off unless MCPOOL_LOG names a file. One write per line; usable in signal handlers
 * and after fork; never with the pool's lock held. errno is kept. A line that cannot be written
 * is dropped.
 */
#ifndef MCPOOL_LOG_H
#define MCPOOL_LOG_H

#include <stdbool.h>

#include "config.h"

/* CONFIG stays the caller's and must not change. */
void log_start(const struct config *config);

bool log_wants(enum log_level level);

/* FORMAT as in text.h, without a line end. */
void log_line(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
