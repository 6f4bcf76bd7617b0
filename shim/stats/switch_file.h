/*
 * The switch file: what an operator wishes of one process, by `mcpool off` and its kin. The
 * command makes it beside the file of counters; the library looks for it once a second, when it
 * writes its counters anyway. The library never writes or removes it before its end: that it
 * has followed is in the header of the file of counters (stats_file.h).
 *
 * The name is that of the file of counters and SWITCH_SUFFIX.
 */
#ifndef MCPOOL_SWITCH_FILE_H
#define MCPOOL_SWITCH_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "config/address.h"
#include "stats/stats_file.h"

#define SWITCH_MAGIC  UINT64_C(0x68637469776c706d)
#define SWITCH_SUFFIX ".switch"

/* What a process does with its connections. In the header of the file of counters. */
enum mode {
    MODE_ON,
    MODE_DRY, /* reuse is only counted, as with MCPOOL_DRY_RUN */
    MODE_OFF,
};

/* The first ones are modes. */
enum wish { WISH_ON = MODE_ON, WISH_DRY = MODE_DRY, WISH_OFF = MODE_OFF, WISH_FLUSH, WISHES };

/* It names the process for which it is made: a hard link of one user's file could have the name
 * of another's. */
struct switch_file {
    uint64_t magic;
    int32_t pid;
    uint32_t wish;                    /* enum wish */
    uint64_t start;                   /* in clock ticks since boot */
    uint64_t pid_namespace;           /* as in the file of counters */
    uint64_t generation;              /* not 0; another one is another wish */
    char endpoint[ADDRESS_TEXT_SIZE]; /* of WISH_FLUSH; empty: all */
};

/* Reads the file NAME into WISH. False when there is none, or it is not for the process that
 * has the file of counters with the header SELF, or anybody but root and the user of this
 * process could have written it. Between ownfile_begin() and ownfile_end(). */
bool switch_file_read(const char *name, const struct stats_header *self,
                      struct switch_file *wish);

#endif
