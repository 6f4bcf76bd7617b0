/*
 * What the values in a file of counters are, and where they lie: by the names in the file, so
 * that files of other versions of the library are read too.
 *
 * Any user may have written the file, so nothing in it is trusted.
 */
#ifndef MCPOOL_LAYOUT_H
#define MCPOOL_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stats/stats_file.h"

enum stat_index {
#define STAT(kind, name, text) STAT_##name,
#include "stats/stats.def"
#undef STAT
    STATS
};

/* A row of stats.def. */
struct stat_row {
    const char *name;
    const char *text;
    bool is_gauge;
};

extern const struct stat_row stat_rows[STATS];

#define VALUE_NAME_SIZE 48
#define MOST_VALUES     512

enum value_kind { VALUE_GAUGE, VALUE_COUNTER, VALUE_REASON };

/* The index of a value that this version does not know, and of one that it does not know but
 * has a figure of its own for, under the same name. */
#define VALUE_UNKNOWN  (-1)
#define VALUE_REPLACED (-2)

struct value {
    enum value_kind kind;
    int index;                  /* of enum stat_index or enum reason, or one of the two above */
    char name[VALUE_NAME_SIZE]; /* letters, digits and underscores */
};

struct layout {
    size_t slots_at; /* in the file */
    size_t slot_size;
    size_t values_at; /* in a slot */
    size_t reason_count;
    size_t value_count;
    struct value values[MOST_VALUES]; /* those of reasons come last */
};

/* Fills LAYOUT from a file whose content is BYTES, N of them. False when the file has a layout
 * that this version does not know, or is damaged. */
bool layout_read(struct layout *layout, const void *bytes, size_t n);

/* The value I in SLOT, a whole one; of a reason how often connections were refused for it. */
uint64_t layout_value(const struct layout *layout, const void *slot, size_t i);

/* How often they were discarded for the reason that is value I. */
uint64_t layout_discarded(const struct layout *layout, const void *slot, size_t i);

#endif
