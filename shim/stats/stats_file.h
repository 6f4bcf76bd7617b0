/*
 * The format of the file of counters, which the library writes and the command mcpool reads.
 *
 * The name of the file is PID-START. START is the start time of the process in clock ticks
 * since boot (field 22 of /proc/PID/stat): it tells the process from another one that had the
 * same pid before.
 *
 * The file is a header and then a slot for each endpoint. The header has the names of the
 * values in a slot and the offsets of all parts of the file, so a reader of another version
 * finds the values that it knows.
 */
#ifndef MCPOOL_STATS_FILE_H
#define MCPOOL_STATS_FILE_H

#include <stdatomic.h>
#include <stdint.h>

#include "config/config.h"
#include "stats/counters.h"

#define STATS_MAGIC  UINT64_C(0x7c1f006c6f6f706d)
#define STATS_LAYOUT 2

/* The names of the values in a slot, in their order, each with a final NUL. "gauge NAME" and
 * "counter NAME" stand for one value. "reason NAME" stands for two, refused and discarded; the
 * refused values of all reasons come before the discarded ones. */
struct stats_names {
#define STAT(kind, name, text) char name[sizeof(#kind " " #name)];
#include "stats/stats.def"
#undef STAT
    char reason_none[sizeof("reason none")];
#define REASON(name, text) char reason_##name[sizeof("reason " #name)];
#include "base/reasons.def"
#undef REASON
};

/* The fields before `names` are the same in every file with the same `layout`. `magic` and
 * `pid_namespace` are the same in all layouts: files of other versions are removed by them. */
struct stats_header {
    _Atomic uint64_t magic; /* written last, with release */
    uint32_t layout;
    uint32_t header_size; /* where the slots begin */
    uint32_t slot_size;
    uint32_t names_at;   /* where `names` begins in the file */
    uint32_t names_size; /* in bytes */
    uint32_t values_at;  /* where the values begin in a slot */
    int32_t pid;
    uint32_t mode;          /* enum mode of stats/mode.h */
    uint64_t start;         /* in clock ticks since boot */
    uint64_t pid_namespace; /* the inode of the process's PID namespace */
    int64_t since;          /* when the file was created, in seconds since 1970 */
    char version[16];
    uint64_t followed; /* the generation of the last wish that was followed, or 0 */
    /* Files of 0.1.0 have no more: `names` begins here. */
    uint64_t family; /* its id, or 0; see pool/family.h */
    uint32_t share;  /* enum share of stats/share.h */
    uint32_t queued; /* connections that the family had when this was written */
    struct stats_names names;
};

struct stats_slot {
    _Atomic uint32_t change; /* 0: never used; odd: the name is being written */
    uint32_t unused;
    char endpoint[ADDRESS_TEXT_SIZE];
    struct stats stats;
};

/* The size of a file with SLOTS slots. */
#define STATS_FILE_SIZE(slots)                                                                 \
    (sizeof(struct stats_header) + (size_t)(slots) * sizeof(struct stats_slot))

/* The names in stats/stats.def and base/reasons.def. */
extern const struct stats_names stats_names __attribute__((visibility("hidden")));

/* Fills PID and START from NAME. False when NAME is not that of a file of counters. */
bool stats_parse_name(const char *name, int *pid, uint64_t *start);

/* The start time in TEXT, which is N bytes of /proc/PID/stat; 0 when it is not there. */
uint64_t stats_parse_start(const char *text, size_t n);

#endif
