/*
 * Looking after what is in the queues of the family. A queue keeps the order, so all its
 * connections are used in turn and none grows old. So a queue is trimmed by number: what was
 * not needed for POOL_LOW_WATER is closed, but for one; so is what has idled for
 * MCPOOL_IDLE_TIMEOUT.
 *
 * Members that wait do it in turn: one promises to look until some moment, and the others look
 * again after that. A member that blocks where its wait is not cut cannot promise anything. So
 * the last member that is at work leaves one connection for each endpoint when it blocks in
 * accept() or ends (pool/members.h). Before other calls that block, as read(), nothing is done.
 *
 * Called without the pool's lock and outside of turns (pool/family.h). No function blocks;
 * errno is kept.
 */
#ifndef MCPOOL_TENDING_H
#define MCPOOL_TENDING_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "conn/endpoint.h"
#include "pool/family.h"

/* Looks after the queues, unless another member has promised to. Returns in how many
 * milliseconds this one has to look again; POOL_NEVER when there is no family. */
COLD msec_t tending_in(msec_t now);

/* This process is about to wait for LENGTH milliseconds at most, and has work when it waits the
 * next time. Masters of workers wait a second at a time, so that is a promise to look. */
COLD void tending_note_wait(msec_t length);

/* Whether a member has promised to look after the queues. */
COLD bool tending_is_promised(const struct family_board *board, msec_t now);

/* This process cannot keep its promise. */
COLD void tending_withdraw(struct family_board *board);

/* In the child of a fork, which has promised nothing. */
COLD void tending_after_fork_in_child(void);

/* Closes all but one in each queue. */
COLD void tending_leave_one(void);

/* Closes what the family has for ENDPOINT and has been idle since SINCE or longer, for REASON.
 */
COLD void tending_empty(struct endpoint *endpoint, msec_t since, enum reason reason);

/* Closes what the family has for the endpoint NAME, or all if NAME is empty, as FLUSHED. */
COLD void tending_flush(const char *name);

/* Closes all that the family has, for REASON. */
COLD void tending_close_all(enum reason reason);

/* Closes all that the family has, as the user's quota of fds in flight is used up. True when
 * there was any. */
COLD bool tending_make_way(void);

#endif
