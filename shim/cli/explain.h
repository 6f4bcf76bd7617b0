/*
 * What each reason means to an operator.
 */
#ifndef MCPOOL_EXPLAIN_H
#define MCPOOL_EXPLAIN_H

#include "base/reasons.h"
#include "stats/share.h"

struct explanation {
    const char *means;
    const char *helps; /* what to do about it */
};

extern const struct explanation explanations[REASON_COUNT];

/* The same of each reason for which a process shares nothing. */
extern const struct explanation share_explanations[SHARES];

#endif
