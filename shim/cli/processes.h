/*
 * The processes that show their counters, read from their files.
 *
 * A file is written by any user's process, and judged here: what is not of the form that
 * shim/stats/stats_file.h describes, or not of the user who runs the process, is passed over.
 * Files of processes that have ended are removed.
 */
#ifndef MCPOOL_PROCESSES_H
#define MCPOOL_PROCESSES_H

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

/* The counters of one endpoint, or the sum of several. */
struct numbers {
    uint64_t stats[STATS];
    uint64_t refused[REASON_COUNT];
    uint64_t discarded[REASON_COUNT];
    double seconds_avoided;     /* a mean real connect for each one reused */
    uint64_t time_wait_avoided; /* TCP connections reused, that is not opened and closed */
};

struct server {
    char name[ADDRESS_TEXT_SIZE]; /* printable, without quotes or backslashes */
    struct numbers numbers;
};

struct process {
    int pid;
    bool dry_run;
    int64_t since; /* seconds since 1970 */
    char version[24];
    char command[64];  /* printable */
    char service[128]; /* the systemd unit, else the command; printable */
    struct server *servers;
    size_t server_count;
};

struct processes {
    struct process *list; /* by service, dry runs last, then by number */
    size_t count;
    size_t forbidden; /* of other users */
    size_t strange;   /* of libraries whose counters are not ours */
};

/* Those among PIDS (N of them; 0: all). Ends the program when there is no memory. */
struct processes processes_read(const int *pids, size_t n);
void processes_free(struct processes *processes);

/* Adds FROM to TO. */
void numbers_add(struct numbers *to, const struct numbers *from);

/* What part of the connects was reused, in percent; 0 when there were none. */
double numbers_hit_rate(const struct numbers *numbers);

#endif
