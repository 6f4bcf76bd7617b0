/*
 * Finds functions and variables in the tables of the loaded objects, as dlsym() does. dlsym()
 * itself will not do. Before glibc 2.34 it is in a library of its own, which a program may
 * lack. It needs a handle for an object that was loaded with RTLD_LOCAL. And it waits for a
 * dlopen() of another thread, which may wait for this one.
 *
 * The objects that were loaded with the program are noted at start-up. What is in one of them
 * is found without a lock, by reading only, so also in a signal handler and in a child. For
 * other objects the only lock is that of dl_iterate_phdr(3), which dlopen() does not hold while
 * it runs constructors. Nothing is allocated.
 */
#ifndef MCPOOL_LOOKUP_H
#define MCPOOL_LOOKUP_H

#include <stdbool.h>

#include "base/compiler.h"

/* Notes the objects that were loaded with the program. Called once, at start-up, before the
 * functions below. False, and nothing is noted, if this library came later, by dlopen(), or if
 * there are too many objects. */
bool lookup_note_objects(void);

/* What the first object behind this library has by the name of NAME, in its default version or
 * without one: what dlsym(RTLD_NEXT) finds. If objects are noted, it looks only there. NULL
 * when none has it. */
COLD void *lookup_next(const char *name);

/* What the first loaded object that defines NAME with the default symbol version VERSION has by
 * that name; with VERSION NULL, any version. Names without versions do not count: they may be
 * hooks. NULL when no object has it. */
COLD void *lookup_versioned(const char *name, const char *version);

#endif
