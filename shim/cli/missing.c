/*
 * What was not found when the counters were read.
 */
#include "cli/missing.h"

#include <stdio.h>

#include "cli/causes.h"
#include "cli/command.h"

static bool is_shown(const struct processes *processes, int pid)
{
    for (size_t i = 0; i < processes->count; i++) {
        if (processes->list[i].pid == pid)
            return true;
    }
    return false;
}

/* Says of each of the N processes at PIDS that is not shown why it is not. */
static void tell_of_each(const struct processes *processes, const int *pids, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (is_shown(processes, pids[i]))
            continue;
        fprintf(stderr, "mcpool: process %d shows no counters\n", pids[i]);
        causes_tell(pids[i], stderr);
    }
}

void missing_tell(const struct processes *processes, const int *pids, size_t n)
{
    if (processes->forbidden > 0)
        fprintf(stderr, "mcpool: %zu more of other users; only root sees them\n",
                processes->forbidden);
    if (processes->too_many > 0)
        fprintf(stderr, "mcpool: %zu more of users who show too much; see mcpool-stat(1)\n",
                processes->too_many);
    if (processes->strange > 0)
        fprintf(stderr, "mcpool: %zu more with another version of " LIBRARY "\n",
                processes->strange);
    tell_of_each(processes, pids, n);
    if (processes->count > 0 || n > 0)
        return;
    fputs("mcpool: no process shows counters\n", stderr);
    places_tell(&processes->places, stderr);
}
