/*
 * Dialogues, with the verdict that the wire tracker must reach after each step.
 */
#ifndef WIRE_VECTORS_H
#define WIRE_VECTORS_H

#include <stddef.h>

#include "wire/wire.h"

#define WIRE_STEPS 8

struct wire_step {
    char direction; /* '>' to the server, '<' from it, 0 after the last step */
    const char *bytes;
    size_t length;
    enum wire_verdict verdict;
    enum reason reason;
};

struct wire_vector {
    const char *name;
    struct wire_step steps[WIRE_STEPS];
};

extern const struct wire_vector wire_vectors[];
extern const size_t wire_vector_count;

#endif
