/*
 * Finds functions and variables in the tables of the loaded objects, as dlsym() does. dlsym()
 * itself will not do. Before glibc 2.34 it is in a library of its own, which a program may
 * lack. It needs a handle for an object that was loaded with RTLD_LOCAL. And it waits for a
 * dlopen() of another thread, which may wait for this one.
 *
 * The only lock here is that of dl_iterate_phdr(3), which dlopen() does not hold while it runs
 * constructors. Nothing is allocated.
 */
#ifndef MCPOOL_LOOKUP_H
#define MCPOOL_LOOKUP_H

#include "base/compiler.h"

struct lookup_object;

/* Calls EACH for all objects that were loaded after this library, first to last: where
 * dlsym(RTLD_NEXT) looks. */
COLD void lookup_behind_us(void (*each)(const struct lookup_object *object));

/* What OBJECT defines by the name of NAME, in its default version or without one; NULL when it
 * defines nothing. */
COLD void *lookup_in(const struct lookup_object *object, const char *name);

/* The same for all objects behind us. */
COLD void *lookup_next(const char *name);

/* What the first loaded object that defines NAME with the default symbol version VERSION has by
 * that name; with VERSION NULL, any version. Names without versions do not count: they may be
 * hooks. NULL when no object has it. */
COLD void *lookup_versioned(const char *name, const char *version);

#endif
