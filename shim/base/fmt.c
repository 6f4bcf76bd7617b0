/*
 * The formatter of base/fmt.h: writes into a fixed buffer and cuts what does not fit.
 */
#include "base/fmt.h"

#include <stdbool.h>

struct sink {
    char *at;
    char *last; /* the last byte of the buffer, for the NUL */
};

static void put(struct sink *sink, char c)
{
    if (sink->at < sink->last)
        *sink->at++ = c;
}

static void put_string(struct sink *sink, const char *s)
{
    while (*s)
        put(sink, *s++);
}

static void put_number(struct sink *sink, unsigned long number, unsigned int base)
{
    char digits[3 * sizeof(number)];
    size_t n = 0;

    do {
        digits[n++] = "0123456789abcdef"[number % base];
        number /= base;
    } while (number);
    while (n > 0)
        put(sink, digits[--n]);
}

/* Writes one conversion. FORMAT is behind the '%'. Returns the format behind the conversion. */
static const char *put_conversion(struct sink *sink, const char *format, va_list *args)
{
    long number;

    switch (*format) {
    case 's':
        put_string(sink, va_arg(*args, const char *));
        break;
    case 'd':
        number = va_arg(*args, int);
        if (number < 0)
            put(sink, '-');
        put_number(sink, number < 0 ? 0UL - (unsigned long)number : (unsigned long)number, 10);
        break;
    case 'u':
        put_number(sink, va_arg(*args, unsigned int), 10);
        break;
    case 'x':
        put_number(sink, va_arg(*args, unsigned int), 16);
        break;
    case 'l':
        put_number(sink, va_arg(*args, unsigned long), 10);
        format++;
        break;
    default:
        put(sink, *format);
    }
    return format + 1;
}

size_t fmt_vprint(char *text, size_t room, const char *format, va_list args)
{
    struct sink sink = {text, text + room - 1};
    va_list rest;

    va_copy(rest, args);
    while (*format) {
        if (*format == '%' && format[1] != '\0')
            format = put_conversion(&sink, format + 1, &rest);
        else
            put(&sink, *format++);
    }
    va_end(rest);
    *sink.at = '\0';
    return (size_t)(sink.at - text);
}

size_t fmt_print(char *text, size_t room, const char *format, ...)
{
    va_list args;
    size_t n;

    va_start(args, format);
    n = fmt_vprint(text, room, format, args);
    va_end(args);
    return n;
}
