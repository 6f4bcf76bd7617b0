/*
 * The processes that have the library, and their counters, read from the files of counters.
 *
 * Any user can write such a file. A file is passed over if it does not have the form of
 * shim/stats/stats_file.h, or does not belong to the user of the process. Only its header is
 * read then. How much is read and shown of a user is limited. Files of the caller about
 * processes that have ended are removed, unless they are of another PID
 * namespace or below the root of another process. Files of other versions of the library are
 * read by the names in them (layout.h).
 */
#ifndef MCPOOL_PROCESSES_H
#define MCPOOL_PROCESSES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "base/reasons.h"
#include "cli/layout.h"
#include "cli/places.h"
#include "stats/mode.h"
#include "stats/share.h"

/* The counters of one endpoint, or the sum of several. */
struct numbers {
    uint64_t stats[STATS];
    uint64_t refused[REASON_COUNT];
    uint64_t discarded[REASON_COUNT];
    uint64_t all_refused;       /* for all reasons, also those unknown to this version */
    double seconds_avoided;     /* connect_us_avoided, see processes.c for older files */
    uint64_t time_wait_avoided; /* reused connections: each saved one socket in TIME_WAIT */
};

/* The number of a value that this version does not know. */
struct unknown_number {
    uint64_t value;     /* of a reason: connections not kept */
    uint64_t discarded; /* of a reason; else 0 */
};

struct server {
    char name[ADDRESS_TEXT_SIZE]; /* printable, without quotes or backslashes */
    struct numbers numbers;
    struct unknown_number *unknown; /* unknown_count of them, see below */
};

struct process {
    int pid;
    int inner_pid;  /* in its own PID namespace */
    uint64_t start; /* in clock ticks since boot */
    enum mode mode;
    int64_t since;           /* seconds since 1970 */
    uid_t owner;             /* of its file */
    struct timespec written; /* when it last wrote that */
    enum share share;        /* SHARES: its file does not say, or with an unknown number */
    bool tells_share;        /* the file says it, and the next two; else they are 0 */
    uint64_t family;         /* an id (families.h); 0: it shares nothing */
    uint32_t queued;         /* connections that the family had */
    char version[24];
    char command[64];   /* printable */
    char service[128];  /* the systemd unit, else the command; printable */
    char container[80]; /* its name (namespaces.h); empty: in none */
    bool has[STATS];    /* which statistics the file has; the others are 0 for each server */
    struct server *servers;
    size_t server_count;
    struct value *unknown; /* the values that this version does not know */
    size_t unknown_count;
    struct unknown_number *unknown_numbers; /* of all servers in a row */
};

struct processes {
    struct process *list; /* by service, container and mode, then by pid */
    size_t count;
    size_t forbidden;     /* files of other users that may not be read */
    size_t too_many;      /* processes beyond the limits for a user */
    size_t strange;       /* files of a version of the library that is not known */
    struct places places; /* where they were looked for */
};

/* "on", "dry", "off". */
extern const char *const mode_names[MODE_OFF + 1];

enum outcome { REFUSED, DISCARDED };

/* A reason, and how many connections were refused or discarded for it. */
struct reason_row {
    const char *name;
    const char *text;
    uint64_t number;
};

/* Fills ROW with the next reason for OUTCOME whose number is not 0, for SERVER of PROCESS.
 * Reasons that this version does not know come last. The caller sets *AT to 0 for the first
 * call. False when there is none left. */
bool process_next_reason(const struct process *process, const struct server *server,
                         enum outcome outcome, size_t *at, struct reason_row *row);

/* Reads the processes whose pids are at PIDS, N of them; if N is 0, all processes. Without
 * memory it ends the program. The caller frees the result with processes_free(). */
struct processes processes_read(const int *pids, size_t n);
void processes_free(struct processes *processes);

/* Adds FROM to TO. */
void numbers_add(struct numbers *to, const struct numbers *from);

/* How many percent of the connects were answered by reuse; 0 when there was no connect. */
double numbers_hit_rate(const struct numbers *numbers);

#endif
