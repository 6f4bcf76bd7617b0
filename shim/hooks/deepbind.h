/*
 * RTLD_DEEPBIND (dlopen(3)): an object loaded with it looks for libc's functions in its own
 * dependencies before it looks into preloaded libraries, and so never calls our hooks. PHP
 * loads its extensions that way. For the objects that MCPOOL_DEEPBIND names, dlopen() removes
 * the flag.
 */
#ifndef MCPOOL_DEEPBIND_H
#define MCPOOL_DEEPBIND_H

#include "config/config.h"

/* Once, at start-up. CONFIG stays the caller's and must not change. Until this call no flag is
 * removed. */
void deepbind_start(const struct config *config);

#endif
