/*
 * How many connections all queues of a family may hold together. The kernel counts the fds that
 * a user has in messages, and refuses more to all programs of that user. So the families of one
 * user have a small part of what is usual, and each of them an equal part of that.
 *
 * The number stands on the board (pool/family.h). No function blocks; errno is kept.
 */
#ifndef MCPOOL_QUOTA_H
#define MCPOOL_QUOTA_H

#include "base/clock.h"
#include "base/compiler.h"
#include "pool/family.h"

/* How many there may be, as last counted. */
COLD unsigned int quota_of(const struct family_board *board);

/* Counts the other families of this user again, if that was long ago: reads the directory of
 * counters. Not in a turn. A process whose limit of fds is too low leaves the family. */
COLD void quota_count(msec_t now);

/* The kernel has refused one more fd in flight (ETOOMANYREFS): fewer are shared for a while. */
COLD void quota_note_refusal(msec_t now);

#endif
