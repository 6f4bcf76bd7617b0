/*
 * Functions of libraries other than libc, which may be loaded at any time, and into a scope in
 * which dlsym() would not find them.
 */
#ifndef MCPOOL_FOREIGN_H
#define MCPOOL_FOREIGN_H

#include "base/compiler.h"

/* The function NAME that a loaded object defines as its default one under the symbol version
 * VERSION, or under any if that is NULL; NULL when none does. Takes no lock but that of
 * dl_iterate_phdr(3), which no dlopen() holds while it runs constructors, and allocates
 * nothing. */
COLD void *foreign_find(const char *name, const char *version);

#endif
