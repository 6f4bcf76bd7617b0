/*
 * Memory of our own, straight from the kernel: the program's malloc() is never called.
 */
#ifndef MCPOOL_PAGES_H
#define MCPOOL_PAGES_H

#include <stddef.h>

#include "base/compiler.h"

/* SIZE bytes of zeros, at the start of a page; NULL when there is no memory, or when a limit of
 * the process forbids it. No page is touched. The caller owns them. Keeps errno; any lock may
 * be held. */
COLD void *pages_reserve(size_t size);

/* Gives back what pages_reserve() returned for SIZE. */
COLD void pages_return(void *pages, size_t size);

#endif
