/*
 * The directories in which processes show their counters, as this command finds them.
 *
 * Any user can make what is at some of these names. So the directories that belong to one user
 * are opened without following a link, and are passed over unless they belong to that user and
 * give no access to others: the library makes its file only in such a directory.
 */
#ifndef MCPOOL_PLACES_H
#define MCPOOL_PLACES_H

#include <dirent.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

#include "config/config.h"

/* A directory, or all directories of a pattern, and what was found there. */
struct place {
    char path[CONFIG_DIRECTORY_SIZE + 32];
    char state[64];
};

/* Further ones are looked into, but not noted. */
#define PLACES_MOST 12

struct places {
    struct place list[PLACES_MOST];
    size_t count;
    size_t opened; /* how many directories could be looked into */
};

/* Calls READ with each directory that may hold files of counters: that of MCPOOL_STATS, else
 * the default ones of this user, and for root those of all users. None is read twice. Notes in
 * PLACES, which the caller has set to zero, what was found. */
void places_read(struct places *places, void (*read)(void *context, DIR *directory),
                 void *context);

/* Says which directories were looked into, as which user, and what to do. */
void places_tell(const struct places *places, FILE *to);

#endif
