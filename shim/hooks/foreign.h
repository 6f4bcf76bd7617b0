/*
 * Finds functions of libraries other than libc. Such a library may be loaded at any time, and
 * with RTLD_LOCAL, so that dlsym() does not find its functions.
 */
#ifndef MCPOOL_FOREIGN_H
#define MCPOOL_FOREIGN_H

#include "base/compiler.h"

/* The function NAME of the first loaded object that defines it with the default symbol version
 * VERSION; with VERSION NULL, any version. NULL when no object does. The only lock is that of
 * dl_iterate_phdr(3), which dlopen() does not hold while it runs constructors. Allocates
 * nothing. */
COLD void *foreign_find(const char *name, const char *version);

#endif
