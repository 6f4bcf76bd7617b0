/*
 * What each reason means to an operator.
 */
#ifndef MCPOOL_EXPLAIN_H
#define MCPOOL_EXPLAIN_H

#include "base/reasons.h"

struct explanation {
    const char *means;
    const char *helps; /* what to do about it */
};

extern const struct explanation explanations[REASON_COUNT];

#endif
