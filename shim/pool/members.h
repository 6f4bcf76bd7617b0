/*
 * Which members of the family are at work: they have given or taken, and do not block in
 * accept(). A member that blocks in another call, as read(), counts as at work, too. The last
 * one of them has to tidy up (pool/tending.h).
 *
 * A list of pids on the board. A member that was killed is found by its pid. Where the list is
 * full, some other member always counts as at work.
 *
 * No function takes a lock or blocks; errno is kept.
 */
#ifndef MCPOOL_MEMBERS_H
#define MCPOOL_MEMBERS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "base/compiler.h"

/* How many there may be in a list. */
#define MEMBERS_MOST 128

/* An entry for each member, or 0. It is all zeros at first. */
struct members {
    _Atomic uint32_t list[MEMBERS_MOST];
};

/* This process is at work, and in the list from now on. */
COLD void members_join(struct members *members);

/* The only thread of this process is about to block in accept(), or has returned. */
COLD void members_note_blocked(struct members *members);
COLD void members_note_woken_slow(void);

/* How this process stands in the list. */
enum member {
    MEMBER_NONE,
    MEMBER_AT_WORK,
    MEMBER_BLOCKED,
};

extern _Atomic unsigned int members_self __attribute__((visibility("hidden")));

static inline bool members_self_is(enum member member)
{
    /* relaxed: it matters to the only thread of a process */
    return __builtin_expect(
        atomic_load_explicit(&members_self, memory_order_relaxed) == (unsigned int)member, 0);
}

static inline void members_note_woken(void)
{
    if (members_self_is(MEMBER_BLOCKED))
        members_note_woken_slow();
}

/* This process ends or leaves the family. */
COLD void members_leave(struct members *members);

/* Whether a member other than this process is at work. */
COLD bool members_others_work(struct members *members);

/* In the child of a fork, which is not in the list yet. */
COLD void members_after_fork_in_child(void);

#endif
