/*
 * The families of processes that share idle connections (shim/pool/family.h), as the files of
 * counters show them, and the reasons why a process shares none.
 *
 * Any user may write any number into a file. So processes of different users, or in different
 * containers, are never taken for one family.
 */
#ifndef MCPOOL_FAMILIES_H
#define MCPOOL_FAMILIES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "cli/processes.h"
#include "stats/share.h"

struct family {
    const struct process *first; /* the first member in the list of processes */
    size_t count;                /* of its members that are in the list */
    uint64_t given;              /* these six are sums of what the members count */
    uint64_t taken;
    uint64_t not_given_full;
    uint64_t not_given_alone;
    uint64_t not_given_refused;
    uint64_t foreign;
    uint32_t queued; /* idle connections that it had, as the member says that wrote last */
};

struct families {
    struct family *list; /* in the order of their first members */
    size_t count;
};

/* PROCESSES stays the caller's, and must not change meanwhile. Without memory it ends the
 * program. The caller frees the result with families_free(). */
struct families families_find(const struct processes *processes);
void families_free(struct families *families);

/* Whether ONE and OTHER share idle connections. */
bool families_share(const struct process *one, const struct process *other);

/* The name of SHARE, and what it says of a process. SHARES stands for what is not known. */
const char *share_name(enum share share);
const char *share_text(enum share share);

/* Whether an operator may want to know that a process that has forked shares nothing. */
bool share_is_notable(enum share share);

#endif
