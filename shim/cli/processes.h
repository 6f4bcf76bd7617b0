/*
 * The processes that show their counters, read from their files.
 *
 * A file is written by any user's process, and judged here: what is not of the form that
 * shim/stats/stats_file.h describes, or not of the user who runs the process, is passed over.
 * Files of processes that have ended are removed. Files of other versions of the library are
 * read by the names in them (layout.h).
 */
#ifndef MCPOOL_PROCESSES_H
#define MCPOOL_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/reasons.h"
#include "cli/layout.h"

/* The counters of one endpoint, or the sum of several. */
struct numbers {
    uint64_t stats[STATS];
    uint64_t refused[REASON_COUNT];
    uint64_t discarded[REASON_COUNT];
    uint64_t all_refused;       /* for any reason, also one that is unknown here */
    double seconds_avoided;     /* a mean real connect for each one reused */
    uint64_t time_wait_avoided; /* TCP connections reused, that is not opened and closed */
};

/* A value that this version does not know; of a reason, both of its numbers. */
struct unknown_number {
    uint64_t value; /* of a reason: refused */
    uint64_t discarded;
};

struct server {
    char name[ADDRESS_TEXT_SIZE]; /* printable, without quotes or backslashes */
    struct numbers numbers;
    struct unknown_number *unknown; /* as many as its process has */
};

struct process {
    int pid;
    bool dry_run;
    int64_t since; /* seconds since 1970 */
    char version[24];
    char command[64];  /* printable */
    char service[128]; /* the systemd unit, else the command; printable */
    bool has[STATS];   /* those without are zero for each server */
    struct server *servers;
    size_t server_count;
    struct value *unknown; /* what is counted that this version does not know */
    size_t unknown_count;
    struct unknown_number *unknown_numbers; /* of all servers */
};

struct processes {
    struct process *list; /* by service, dry runs last, then by number */
    size_t count;
    size_t forbidden; /* of other users */
    size_t strange;   /* of libraries whose counters are not ours */
};

enum outcome { REFUSED, DISCARDED };

/* Why connections had OUTCOME, and how many. */
struct reason_row {
    const char *name;
    const char *text;
    uint64_t number;
};

/* Fills ROW with the next reason that has a number above zero, for SERVER of PROCESS; those
 * that are unknown here come last. *AT is 0 for the first. False when there is none left. */
bool process_next_reason(const struct process *process, const struct server *server,
                         enum outcome outcome, size_t *at, struct reason_row *row);

/* Those among PIDS (N of them; 0: all). Ends the program when there is no memory. */
struct processes processes_read(const int *pids, size_t n);
void processes_free(struct processes *processes);

/* Adds FROM to TO. */
void numbers_add(struct numbers *to, const struct numbers *from);

/* What part of the connects was reused, in percent; 0 when there were none. */
double numbers_hit_rate(const struct numbers *numbers);

#endif
