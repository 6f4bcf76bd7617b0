/*
 * The table of the names and texts of the reasons, made from base/reasons.def.
 */
#include "base/reasons.h"

#include <stddef.h>
#include <stdint.h>

/* In one piece, with offsets instead of pointers: the loader would have to relocate each
 * pointer in every process. */
static const struct texts {
    char none[sizeof("none")];
    char poolable[sizeof("poolable")];
#define REASON(name, text)                                                                     \
    char name_##name[sizeof(#name)];                                                           \
    char text_##name[sizeof(text)];
#include "base/reasons.def"
#undef REASON
} texts = {
    "none",
    "poolable",
#define REASON(name, text) #name, text,
#include "base/reasons.def"
#undef REASON
};

static const struct row {
    uint16_t name;
    uint16_t text;
} rows[REASON_COUNT] = {
    [REASON_NONE] = {offsetof(struct texts, none), offsetof(struct texts, poolable)},
#define REASON(name, text)                                                                     \
    [REASON_##                                                                                 \
        name] = {offsetof(struct texts, name_##name), offsetof(struct texts, text_##name)},
#include "base/reasons.def"
#undef REASON
};

const char *reason_name(enum reason reason)
{
    return (const char *)&texts + rows[reason].name;
}

const char *reason_text(enum reason reason)
{
    return (const char *)&texts + rows[reason].text;
}
