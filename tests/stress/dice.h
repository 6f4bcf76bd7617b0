/*
 * Random numbers that are the same for the same seed, also in several threads: each has dice of
 * its own.
 */
#ifndef DICE_H
#define DICE_H

#include <stdint.h>

struct dice {
    uint64_t state; /* the seed; not 0 */
};

/* A number below SIDES: xorshift64. */
static inline unsigned int roll(struct dice *dice, unsigned int sides)
{
    dice->state ^= dice->state << 13;
    dice->state ^= dice->state >> 7;
    dice->state ^= dice->state << 17;
    return (unsigned int)(dice->state >> 33) % sides;
}

#endif
