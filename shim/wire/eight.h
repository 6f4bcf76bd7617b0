/*
 * Eight bytes at a time, for the fast paths of the text protocol.
 */
#ifndef MCPOOL_EIGHT_H
#define MCPOOL_EIGHT_H

#include <endian.h>
#include <stdint.h>
#include <string.h>

#define EACH_BYTE(value) (UINT64_C(0x0101010101010101) * (value))

/* The eight bytes at AT, the first one lowest. */
static inline uint64_t eight_at(const uint8_t *at)
{
    uint64_t eight;

    memcpy(&eight, at, sizeof eight);
    return le64toh(eight);
}

/* In the highest bits: the first byte that ends a word, which is one up to a blank, by the
 * subtraction, or 0x7f, by the addition. Later ones mean nothing. A carry may take 0x7e for
 * such a byte. The other bits mean nothing: see EIGHT_MARKS. */
static inline uint64_t eight_mark(uint64_t eight)
{
    return ((eight - EACH_BYTE(' ' + 1)) | (eight + EACH_BYTE(1))) & ~eight;
}

#define EIGHT_MARKS EACH_BYTE(0x80)

#endif
