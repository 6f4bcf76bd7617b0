/*
 * Whether a process shares idle connections, and why not, as the file of counters says it.
 */
#ifndef MCPOOL_SHARE_H
#define MCPOOL_SHARE_H

enum share {
#define SHARE(name, text) SHARE_##name,
#include "stats/share.def"
#undef SHARE
    SHARES
};

#endif
