/*
 * The switch file: what an operator wishes of one process, by `mcpool off` and its kin. The
 * command makes it beside the file of counters; the library looks for it once a second
 * (pool/due.h). That it has followed is in the header of the file of counters (stats_file.h).
 *
 * The name is that of the file of counters and SWITCH_SUFFIX.
 */
#ifndef MCPOOL_SWITCH_FILE_H
#define MCPOOL_SWITCH_FILE_H

#include <stdbool.h>
#include <stdint.h>

#include "config/address.h"
#include "stats/mode.h"
#include "stats/stats_file.h"

#define SWITCH_MAGIC  UINT64_C(0x68637469776c706d)
#define SWITCH_SUFFIX ".switch"

/* The first ones are modes. */
enum wish { WISH_ON = MODE_ON, WISH_DRY = MODE_DRY, WISH_OFF = MODE_OFF, WISH_FLUSH, WISHES };

/* It names the process for which it is made: a hard link to the file for one process could have
 * the name of another's. */
struct switch_file {
    uint64_t magic;
    int32_t pid;   /* this and the next two as in the file of counters */
    uint32_t wish; /* enum wish */
    uint64_t start;
    uint64_t pid_namespace;
    uint64_t generation;              /* not 0; another one is another wish */
    char endpoint[ADDRESS_TEXT_SIZE]; /* of WISH_FLUSH; empty: all */
};

/* Reads the file NAME into WISH. False when there is none, when it is not for the process that
 * has the file of counters with the header SELF, and when a user other than root and the one of
 * this process could have written it. Between ownfile_begin() and ownfile_end(). */
bool switch_file_read(const char *name, const struct stats_header *self,
                      struct switch_file *wish);

#endif
