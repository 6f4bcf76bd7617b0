/*
 * The other half of sharing (pool/sharing.h): a process that has no idle connection takes one
 * out of the queues of its family before it opens one.
 *
 * Called without the pool's lock and outside of turns (pool/family.h). No function blocks or is
 * a cancellation point; errno is kept.
 */
#ifndef MCPOOL_TAKE_H
#define MCPOOL_TAKE_H

#include "base/clock.h"
#include "base/compiler.h"
#include "conn/conn.h"
#include "pool/family.h"

/* Takes a connection to the endpoint of FRESH out of the family's queue, which can take on the
 * options of FRESH and speaks PROTOCOL (WIRE_UNDECIDED: any). It is CHECKING_OUT and the
 * caller's, which must verify it as any other idle connection. NULL when there is none. */
COLD struct conn *take_shared_slow(const struct conn *fresh, enum wire_protocol protocol,
                                   msec_t now);

static inline struct conn *take_shared(const struct conn *fresh, enum wire_protocol protocol,
                                       msec_t now)
{
    return family_has_queued() ? take_shared_slow(fresh, protocol, now) : NULL;
}

#endif
