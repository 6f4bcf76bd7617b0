/*
 * Groups processes by their families.
 */
#include "cli/families.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    const char *text;
} shares[SHARES + 1] = {
#define SHARE(name, text) {#name, text},
#include "stats/share.def"
#undef SHARE
    {"UNKNOWN", "it does not say, or what this version of mcpool does not know"},
};

const char *share_name(enum share share)
{
    return shares[share].name;
}

const char *share_text(enum share share)
{
    return shares[share].text;
}

bool share_is_notable(enum share share)
{
    switch (share) {
    case SHARE_FILTERED:
    case SHARE_FEW_FDS:
    case SHARE_NO_QUEUE:
    case SHARE_IDENTITY:
    case SHARE_SANDBOX:
    case SHARE_CLOSED:
        return true;
    default:
        return false;
    }
}

bool families_share(const struct process *one, const struct process *other)
{
    return one->family != 0 && one->family == other->family && one->owner == other->owner &&
           strcmp(one->container, other->container) == 0;
}

static bool is_earlier(const struct timespec *one, const struct timespec *other)
{
    return one->tv_sec != other->tv_sec ? one->tv_sec < other->tv_sec
                                        : one->tv_nsec < other->tv_nsec;
}

/* LAST is the member of FAMILY so far that wrote last; NULL: there is none. Returns the one
 * that is it now. */
static const struct process *add_member(struct family *family, const struct process *process,
                                        const struct process *last)
{
    family->count++;
    for (size_t i = 0; i < process->server_count; i++) {
        const uint64_t *stats = process->servers[i].numbers.stats;

        family->given += stats[STAT_given];
        family->taken += stats[STAT_taken];
        family->not_given_full += stats[STAT_not_given_full];
        family->not_given_alone += stats[STAT_not_given_alone];
        family->not_given_refused += stats[STAT_not_given_refused];
        family->foreign += stats[STAT_foreign];
    }
    if (last && !is_earlier(&last->written, &process->written))
        return last;
    family->queued = process->queued;
    return process;
}

/* The family of the process number FIRST, which is the first one of it. */
static struct family find(const struct processes *processes, size_t first)
{
    struct family family = {.first = &processes->list[first]};
    const struct process *last = NULL;

    for (size_t i = first; i < processes->count; i++) {
        if (families_share(family.first, &processes->list[i]))
            last = add_member(&family, &processes->list[i], last);
    }
    return family;
}

static bool is_known(const struct families *families, const struct process *process)
{
    for (size_t i = 0; i < families->count; i++) {
        if (families_share(families->list[i].first, process))
            return true;
    }
    return false;
}

struct families families_find(const struct processes *processes)
{
    struct families families = {.list = calloc(processes->count + 1, sizeof(*families.list))};

    if (!families.list) {
        perror("mcpool");
        exit(EXIT_FAILURE);
    }
    for (size_t i = 0; i < processes->count; i++) {
        if (processes->list[i].family != 0 && !is_known(&families, &processes->list[i]))
            families.list[families.count++] = find(processes, i);
    }
    return families;
}

void families_free(struct families *families)
{
    free(families->list);
    *families = (struct families){0};
}
