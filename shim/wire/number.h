/*
 * Numbers of the text protocol, for its fast paths.
 */
#ifndef MCPOOL_NUMBER_H
#define MCPOOL_NUMBER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/compiler.h"

/* Numbers with so many digits fit every argument. */
#define NUMBER_DIGITS 9

/* Whether there is a byte at AT. END is NULL where the caller knows that something else follows
 * all digits; as a constant it costs nothing. */
ALWAYS_INLINE bool number_is_before(const uint8_t *at, const uint8_t *end)
{
    return !end || at < end;
}

/* Moves *AT behind the digits of a number, which may end at END. False if it has another form.
 */
ALWAYS_INLINE bool number_pass(const uint8_t **at, const uint8_t *end, uint32_t *number)
{
    const uint8_t *digit = *at;
    uint32_t sum, value;

    if (!number_is_before(digit, end) || (sum = (uint32_t)*digit - '0') > 9)
        return false;
    for (digit++; number_is_before(digit, end) && (value = (uint32_t)*digit - '0') <= 9;
         digit++)
        sum = sum * 10 + value;
    if (digit > *at + NUMBER_DIGITS)
        return false;
    *at = digit;
    *number = sum;
    return true;
}

/* The same for flags and the blank behind them. Those of most clients have one digit. */
ALWAYS_INLINE bool number_pass_flags(const uint8_t **at, const uint8_t *end)
{
    const uint8_t *flags = *at;
    uint32_t number;

    if ((!end || end - flags >= 2) &&
        __builtin_expect((uint8_t)(flags[0] - '0') <= 9 && flags[1] == ' ', 1)) {
        *at = flags + 2;
        return true;
    }
    return number_pass(at, end, &number) && number_is_before(*at, end) && *(*at)++ == ' ';
}

#endif
