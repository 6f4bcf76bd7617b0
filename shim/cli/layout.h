/*
 * Which values a file of counters has, and where they are. The values are found by the names in
 * the file, so files of other versions of the library can be read too.
 *
 * Any user may have written the file, so nothing in it is trusted.
 */
#ifndef MCPOOL_LAYOUT_H
#define MCPOOL_LAYOUT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "stats/stats_file.h"

/* The size of the fields that are in the header of every file. */
#define LAYOUT_LEAST offsetof(struct stats_header, family)

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
    bool is_bucket; /* of a histogram (histogram.h); it is not shown under its own name */
};

extern const struct stat_row stat_rows[STATS];

#define VALUE_NAME_SIZE 48
#define MOST_VALUES     512

enum value_kind { VALUE_GAUGE, VALUE_COUNTER, VALUE_REASON };

/* In place of an index: a value that this version does not know. It is shown under its own
 * name, unless the command has a value of its own with that name (REPLACED). */
#define VALUE_UNKNOWN  (-1)
#define VALUE_REPLACED (-2)

struct value {
    enum value_kind kind;
    int index;                  /* enum stat_index or enum reason, or one of the two above */
    char name[VALUE_NAME_SIZE]; /* letters, digits and underscores */
};

struct layout {
    bool tells_share; /* the header has the fields from `family` on */
    size_t slots_at;  /* the offset of the first slot in the file */
    size_t slot_size;
    size_t values_at; /* the offset of the values in a slot */
    size_t reason_count;
    size_t value_count;               /* all, reasons included */
    struct value values[MOST_VALUES]; /* reasons come last */
};

/* Fills LAYOUT from the N bytes of a file at BYTES. False when the file is damaged, or has a
 * layout that this version does not know. */
bool layout_read(struct layout *layout, const void *bytes, size_t n);

/* The value number I in SLOT, of which all bytes can be read. For a reason it is how many
 * connections were not kept for it. */
uint64_t layout_value(const struct layout *layout, const void *slot, size_t i);

/* How many connections were discarded for the reason that is value number I. */
uint64_t layout_discarded(const struct layout *layout, const void *slot, size_t i);

#endif
