/*
 * RTLD_DEEPBIND: an object loaded with it looks for libc's functions in its own dependencies
 * before the preloaded ones, and so binds past us. PHP loads its extensions that way. For the
 * objects that MCPOOL_DEEPBIND names the flag is taken away.
 */
#ifndef MCPOOL_DEEPBIND_H
#define MCPOOL_DEEPBIND_H

#include "config/config.h"

/* CONFIG stays the caller's and must not change. Before, and without this call, no flag is
 * taken away. */
void deepbind_start(const struct config *config);

#endif
