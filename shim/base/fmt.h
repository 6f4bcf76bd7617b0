/*
 * Text without stdio: usable in signal handlers and after fork.
 */
#ifndef MCPOOL_FMT_H
#define MCPOOL_FMT_H

#include <stdarg.h>
#include <stddef.h>

/* Like vsnprintf() for the conversions %s, %d, %u, %lu and %%, nothing else. Always ends TEXT
 * with a NUL (ROOM is at least 1) and returns the length written, cut to what fits. */
size_t fmt_vprint(char *text, size_t room, const char *format, va_list args);
size_t fmt_print(char *text, size_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
