/*
 * Formatting text without stdio: async-signal-safe, usable in any child of a fork.
 */
#ifndef MCPOOL_FMT_H
#define MCPOOL_FMT_H

#include <stdarg.h>
#include <stddef.h>

/* Like vsnprintf(), but only for %s, %d, %u, %x, %lu and %%. Writes at most ROOM bytes (at
 * least 1) to TEXT, the final NUL included. Returns the length written, without the NUL: unlike
 * vsnprintf(), not the length that the whole text would have. */
size_t fmt_vprint(char *text, size_t room, const char *format, va_list args);
size_t fmt_print(char *text, size_t room, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

#endif
