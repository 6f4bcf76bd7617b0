/*
 * The named reasons for which a connection is not pooled. The list is base/reasons.def.
 */
#ifndef MCPOOL_REASONS_H
#define MCPOOL_REASONS_H

enum reason {
    REASON_NONE,
#define REASON(name, text) REASON_##name,
#include "base/reasons.def"
#undef REASON
    REASON_COUNT
};

/* The name as the list spells it ("REPLY_OWED"), and the line of text. Static strings, never
 * NULL for a value of the enum; "none" and "poolable" for REASON_NONE. */
const char *reason_name(enum reason reason);
const char *reason_text(enum reason reason);

#endif
