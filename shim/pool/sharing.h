/*
 * Sharing: idle connections that a process does not need go to the queues of its family, and a
 * process that has none takes one from there before it opens one (pool/take.h).
 *
 * Given is what the low-water mark would close, what a process has when it goes quiet, and what
 * it still has at its end, or when it prepares for that. A process with one thread and no
 * connection in use is quiet when a wait finds nothing ready, and before a sleep; before a wait
 * it gives all but one connection if the family has none and other members are at work. Any
 * other process gives what has idled for SHARING_QUIET, when it waits. pool/request.h says what
 * is given at close(), pool/custody.h what is before an accept().
 *
 * Only an idle connection is given, verified as for a reuse, with its socket options set back.
 * The process that takes it verifies it again, against the kernel, and believes nothing that
 * the giver says beyond that.
 *
 * pool/tending.h says who looks after what is in the queues.
 *
 * Called without the pool's lock and outside of turns (pool/family.h). No function blocks or is
 * a cancellation point; errno is kept.
 */
#ifndef MCPOOL_SHARING_H
#define MCPOOL_SHARING_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "pool/family.h"
#include "pool/pool.h"
#include "pool/request.h"

/* How long a connection idles before a process that waits gives it, unless the process has one
 * thread and nothing in use. Such a process gives all before a sleep that is as long. */
#define SHARING_QUIET ((msec_t)25)

/* Gives each connection in EVICTED that is SURPLUS to the family; closes the others, and those
 * that the family does not get. EVICTED is empty then. */
COLD void sharing_release(struct evicted *evicted);

/* Gives all connections that have been idle for IDLE_FOR or longer to the family, as far as
 * there is room. The others stay idle. False when there was no room. */
COLD bool sharing_give_idle(msec_t now, msec_t idle_for);

/* The process has waited for WAITED milliseconds: does what is due then. Returns in how many
 * milliseconds the next work is due; POOL_NEVER when there is none. */
COLD msec_t sharing_in(msec_t now, msec_t waited);

/* The only thread of the process is about to make a call that may block, where its wait is not
 * cut, and nothing is in use: it does not count as at work any more. */
COLD void sharing_note_block(void);

/* After that, if the call is going to block: gives what the process has. If no other member can
 * look after the queues, one connection for each endpoint is left there, and all others are
 * closed, those of this process too. */
COLD void sharing_before_block(msec_t now);

/* After a check-in: gives what is idle if the request is over by that. */
COLD void sharing_give_closed(msec_t now);

static inline void sharing_after_check_in(msec_t now)
{
    if (request_is_over_at_close())
        sharing_give_closed(now);
}

/* From now on a signal can end the process without notice: gives all that is idle. May be
 * called in a signal handler. */
COLD void sharing_before_a_kill(void);

/* An operator has switched pooling off in this process, which looks after nothing any more. If
 * no other member is at work, closes what is in the queues. */
COLD void sharing_when_switched_off(void);

/* The process ends: gives what it has. */
COLD void sharing_at_end(void);

#endif
