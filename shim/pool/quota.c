/*
 * The quota of a family.
 */
#include "pool/quota.h"

#include "conn/limits.h"
#include "stats/stats.h"

/* The families of one user may have this many connections in flight: a sixteenth of the usual
 * limit of fds. The kernel compares what the user has in flight with the limit of the process
 * that sends (unix(7)), so more would make unrelated programs fail. Where the number of
 * families is not known, there are this many. */
#define USUAL_FD_LIMIT   1024
#define PART_OF_LIMIT    16
#define FAMILIES_UNKNOWN 16

/* How long a number of families is believed, and fewer are shared after a refusal. */
#define COUNT_EVERY ((msec_t)2 * 1000)
/* How much longer a count holds for a member that cannot count. */
#define COUNT_HOLDS ((msec_t)60 * 1000)
#define REFUSED_FOR ((msec_t)60 * 1000)

/* What the families of this user may have in flight together. */
static unsigned int all_most(void)
{
    int limit = limits_fds() < USUAL_FD_LIMIT ? limits_fds() : USUAL_FD_LIMIT;

    return (unsigned int)limit / PART_OF_LIMIT;
}

/* A part for each of as many FAMILIES; less as long as the others have more than theirs, which
 * have QUEUED together. */
static unsigned int part_of(unsigned int families, unsigned int queued)
{
    unsigned int all = all_most(), part, rest;

    if (families == 0)
        return all / FAMILIES_UNKNOWN;
    part = all / families;
    rest = queued < all ? all - queued : 0;
    return rest < part ? rest : part;
}

/* A new worker cannot count before its counters have a file. It must not undo what others have
 * counted: most of the queues would be closed as beyond the part of one of 16 families. And the
 * first one that can count must not have to wait. */
void quota_count(msec_t now)
{
    struct family_board *board = family_get();
    unsigned int families, queued;
    msec_t until;

    if (!board)
        return;
    if (limits_fds() < FAMILY_FEWEST_FDS) {
        family_leave(SHARE_FEW_FDS);
        return;
    }
    until = atomic_load(&board->most_until);
    if (now < until)
        return;
    families = stats_count_families(&queued);
    if (families == 0 && (until == 0 || now < until + COUNT_HOLDS))
        return;
    atomic_store(&board->most_until, now + COUNT_EVERY);
    atomic_store(&board->most, part_of(families, queued));
}

unsigned int quota_of(const struct family_board *board)
{
    return atomic_load(&board->most_until) == 0 ? all_most() / FAMILIES_UNKNOWN
                                                : atomic_load(&board->most);
}

void quota_note_refusal(msec_t now)
{
    struct family_board *board = family_get();

    if (!board)
        return;
    atomic_store(&board->most, quota_of(board) / 2);
    atomic_store(&board->most_until, now + REFUSED_FOR);
}
