/*
 * Included before every file of the library that tests/lookups builds: each look-up in the fd
 * map counts itself.
 */
#ifndef LOOKUPS_COUNTED_H
#define LOOKUPS_COUNTED_H
#ifndef __ASSEMBLER__ /* the compiler includes it in every file */

#include "conn/fdmap.h"

/* Not atomic: the program that asks has one thread. */
extern unsigned long lookups_made __attribute__((visibility("default")));

#define fdmap_word(fd)     (lookups_made++, fdmap_word(fd))
#define fdmap_get(fd)      (lookups_made++, fdmap_get(fd))
#define fdmap_is_plain(fd) (lookups_made++, fdmap_is_plain(fd))

#endif
#endif
