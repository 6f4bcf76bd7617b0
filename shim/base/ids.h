/*
 * The user and group ids of this thread, to learn whether a call has changed them: some
 * programs set the ids that they have already. The kernel is asked (getresuid(2)). errno is
 * kept.
 */
#ifndef MCPOOL_IDS_H
#define MCPOOL_IDS_H

#include <stdbool.h>
#include <string.h>
#include <sys/types.h>

#include "base/rawsys.h"

/* The real, the effective and the saved one. */
struct ids {
    uid_t users[3];
    gid_t groups[3];
};

/* False when the kernel does not tell. */
static inline bool ids_ask(struct ids *ids)
{
    uid_t *users = ids->users;
    gid_t *groups = ids->groups;

    return raw_syscall(SYS_getresuid, &users[0], &users[1], &users[2]) == 0 &&
           raw_syscall(SYS_getresgid, &groups[0], &groups[1], &groups[2]) == 0;
}

/* Whether they are still those of BEFORE. */
static inline bool ids_are(const struct ids *before)
{
    struct ids now = {{0}, {0}};

    return ids_ask(&now) && memcmp(before, &now, sizeof(now)) == 0;
}

#endif
