/*
 * The file of counters, as the library writes and the command mcpool reads it.
 *
 * Named PID-START (start in clock ticks since boot, field 22 of /proc/PID/stat), so that a
 * process is not taken for another that had its number before. A header, then a slot for each
 * endpoint. The header names the values in a slot, and says where each part of the file lies:
 * a reader of another version finds the values it knows by their names.
 */
#ifndef MCPOOL_STATS_FILE_H
#define MCPOOL_STATS_FILE_H

#include <stdatomic.h>
#include <stdint.h>

#include "config/config.h"
#include "stats/counters.h"

#define STATS_MAGIC  UINT64_C(0x7c1f006c6f6f706d)
#define STATS_LAYOUT 2

/* What the values in a slot are, in their order: "gauge NAME" and "counter NAME" for one value
 * each, then "reason NAME" for two: refused and discarded. All refused stand before the first
 * discarded. Each ends with a NUL. */
struct stats_names {
#define STAT(kind, name, text) char name[sizeof(#kind " " #name)];
#include "stats/stats.def"
#undef STAT
    char reason_none[sizeof("reason none")];
#define REASON(name, text) char reason_##name[sizeof("reason " #name)];
#include "base/reasons.def"
#undef REASON
};

/* A reader may rely on all up to `names` in every file with the same layout number. Libraries
 * of all versions rely on magic and pid_namespace, to know whose file they may remove. */
struct stats_header {
    _Atomic uint64_t magic; /* last to be written */
    uint32_t layout;
    uint32_t header_size; /* where the slots begin */
    uint32_t slot_size;
    uint32_t names_at;   /* where `names` begins in the file */
    uint32_t names_size; /* in bytes */
    uint32_t values_at;  /* where the values begin in a slot */
    int32_t pid;
    uint32_t dry_run;
    uint64_t start;         /* in clock ticks since boot */
    uint64_t pid_namespace; /* its inode */
    int64_t since;          /* seconds since 1970, when the file was made */
    char version[24];
    struct stats_names names;
};

struct stats_slot {
    _Atomic uint32_t change; /* 0: never used; odd: being changed */
    uint32_t unused;
    char endpoint[ADDRESS_TEXT_SIZE];
    struct stats stats;
};

/* The largest file of SLOTS slots. */
#define STATS_FILE_SIZE(slots)                                                                 \
    (sizeof(struct stats_header) + (size_t)(slots) * sizeof(struct stats_slot))

/* The names in stats/stats.def and base/reasons.def. */
extern const struct stats_names stats_names __attribute__((visibility("hidden")));

/* Fills PID and START from the name of a file. False when it is no such name. */
bool stats_parse_name(const char *name, int *pid, uint64_t *start);

/* Field 22 in N bytes of TEXT, the content of /proc/PID/stat; 0 when there is none. */
uint64_t stats_parse_start(const char *text, size_t n);

#endif
