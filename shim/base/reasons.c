/*
 * The table of the names and texts of the reasons, made from base/reasons.def.
 */
#include "base/reasons.h"

#include <stddef.h>

struct row {
    const char *name;
    const char *text;
};

static const struct row rows[REASON_COUNT] = {
    [REASON_NONE] = {"none", "poolable"},
#define REASON(name, text) [REASON_##name] = {#name, text},
#include "base/reasons.def"
#undef REASON
};

const char *reason_name(enum reason reason)
{
    return rows[reason].name;
}

const char *reason_text(enum reason reason)
{
    return rows[reason].text;
}
