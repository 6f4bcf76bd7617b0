/*
 * Giving idle connections to the family.
 */
#include "pool/sharing.h"

#include <errno.h>
#include <linux/tcp.h>

#include "base/owner.h"
#include "conn/limits.h"
#include "conn/shadow.h"
#include "pool/account.h"
#include "pool/discard.h"
#include "pool/members.h"
#include "pool/proof.h"
#include "pool/queues.h"
#include "pool/quota.h"
#include "pool/request.h"
#include "pool/tending.h"
#include "pool/verify.h"
#include "stats/mode.h"

/* The first piece of a wait of a process with one thread and nothing in use: see due_in(). */
#define QUIET_AT_ONCE ((msec_t)1)

static bool is_sharing(void)
{
    return family_get() && mode_now() == MODE_ON && owner_is_this_process();
}

/* Whether no other member can look after the queues. */
static bool is_alone(struct family_board *board, msec_t now)
{
    return !tending_is_promised(board, now) && !members_others_work(&board->members);
}

enum given {
    GIVEN,
    UNFIT, /* it is not what it should be */
    /* The family does not take any more: */
    NOT_SHARING, /* this process shares nothing now */
    FULL,
    ALONE,   /* one is queued already, and no member would look after more */
    REFUSED, /* by the kernel */
};

/* The queue has refused: ERROR is negative. */
static enum given refused(long error, msec_t now)
{
    if (error == -EAGAIN)
        return FULL;
    if (error == -ETOOMANYREFS)
        quota_note_refusal(now);
    else
        family_leave(SHARE_CLOSED);
    return REFUSED;
}

static void count_given(struct stats *stats, enum given given)
{
    switch (given) {
    case GIVEN:
        stats_count(&stats->given);
        break;
    case FULL:
        stats_count(&stats->not_given_full);
        break;
    case ALONE:
        stats_count(&stats->not_given_alone);
        break;
    case REFUSED:
        stats_count(&stats->not_given_refused);
        break;
    case UNFIT:
    case NOT_SHARING:
        break;
    }
}

static bool is_fit(struct conn *conn)
{
    struct tcp_info info;

    if (verify_bytes(conn) != REASON_NONE || verify_for_reuse(conn, &info) != REASON_NONE ||
        proof_of(conn, &info) != PROOF_OF_LIFE || !sockopts_can_be_cleared(&conn->options) ||
        !sockopts_clear(conn->fd, &conn->options))
        return false;
    conn->options.given = 0;
    return true;
}

/* In a turn. */
static enum given give_in_turn(struct family_board *board, struct conn *conn, msec_t now,
                               unsigned int most, bool alone)
{
    size_t i = family_queue_for(conn->endpoint);
    struct account account;
    enum room room;
    long result;

    room = queues_reserve(board, i, most, alone);
    if (room != ROOM)
        return room == ROOM_USED_UP ? FULL : ALONE;
    if (!is_fit(conn)) {
        queues_unreserve(board, i);
        return UNFIT;
    }
    if (!account_fill(&account, conn, now)) {
        queues_unreserve(board, i);
        return NOT_SHARING;
    }
    result = queues_put(i, conn->fd, &account);
    if (result < 0)
        return refused(result, now);
    shadow_close(conn, conn->fd);
    return GIVEN;
}

/* CONN, EVICTED, is clean. GIVEN: its record is given up. */
static enum given give(struct conn *conn, msec_t now)
{
    struct family_board *board = family_get();
    struct family_turn turn;
    enum given given;
    unsigned int most;
    bool alone;

    if (conn->fd < 0 || !is_sharing())
        return NOT_SHARING;
    members_join(&board->members);
    most = quota_of(board);
    alone = is_alone(board, now);
    if (!family_begin(&turn))
        return NOT_SHARING;
    /* Another thread may have left the family meanwhile. */
    given = family_get() == board ? give_in_turn(board, conn, now, most, alone) : NOT_SHARING;
    family_end(&turn);
    count_given(conn->endpoint->stats, given);
    if (given == GIVEN)
        conn_move(conn, CONN_CLOSED);
    return given;
}

void sharing_release(struct evicted *evicted)
{
    int saved = errno;

    for (size_t i = 0; i < evicted->count; i++) {
        struct conn *conn = evicted->conn[i];

        if (evicted->reason[i] != REASON_SURPLUS || give(conn, clock_now()) != GIVEN)
            discard(conn, evicted->reason[i]);
    }
    evicted->count = 0;
    errno = saved;
}

/* Gives the COUNT connections in EVICTED, as far as ROOM says that there is room; the others go
 * back. Returns whether there is more room. */
static bool give_or_put_back(struct evicted *evicted, msec_t now)
{
    bool room = true;

    for (size_t i = 0; i < evicted->count; i++) {
        struct conn *conn = evicted->conn[i];
        enum given given = room ? give(conn, now) : NOT_SHARING;

        if (given >= NOT_SHARING) {
            room = false;
            if (pool_put_back(conn))
                continue;
        }
        if (given != GIVEN)
            discard(conn, REASON_SURPLUS);
    }
    return room;
}

static bool give_idle(msec_t now, msec_t idle_for, bool but_last)
{
    struct evicted evicted;
    int saved = errno;
    bool room = family_get() != NULL && mode_now() == MODE_ON, more = room;
    bool many = false;

    if (room)
        quota_count(now);
    while (more) {
        evicted.count = 0;
        more = pool_take_idle(now - idle_for, but_last, &evicted);
        room = give_or_put_back(&evicted, now);
        more = more && room && evicted.count == POOL_EVICTED_MAX;
        many |= more;
    }
    /* Other families have to know (quota_of()). */
    if (many)
        stats_write(now);
    errno = saved;
    return room;
}

bool sharing_give_idle(msec_t now, msec_t idle_for)
{
    return give_idle(now, idle_for, false);
}

/* The next requests may all come to another member, at once and before this one has waited. It
 * keeps one connection, for requests that come one after the other. */
static void give_surplus_of_burst(msec_t now)
{
    struct family_board *board = family_get();

    if (board && limits_idle() > 1 && !family_has_queued() &&
        members_others_work(&board->members))
        give_idle(now, 0, true);
}

/* When something that is idle by now will have been idle for SHARING_QUIET, on clock_now().
 * Most waits find that nothing is due. */
static _Atomic msec_t look_at;

/* The same for a process that has threads, or connections in use. */
static msec_t give_unused(msec_t now)
{
    msec_t at = atomic_load(&look_at);
    bool room;

    if (now < at)
        return at - now;
    room = sharing_give_idle(now, SHARING_QUIET);
    at = pool_oldest_idle(now);
    at = room && at > now - SHARING_QUIET ? at + SHARING_QUIET : now + SHARING_QUIET;
    atomic_store(&look_at, at);
    return at - now;
}

/* Gives what this process, which has WAITED, does not need. Returns in how many milliseconds to
 * look again. */
static msec_t give_unneeded(msec_t now, msec_t waited)
{
    if (endpoint_any_in_use() || !owner_has_one_thread())
        return give_unused(now);
    if (waited == 0) {
        give_surplus_of_burst(now);
        return QUIET_AT_ONCE;
    }
    tending_in(now);
    sharing_give_idle(now, 0);
    return POOL_NEVER;
}

msec_t sharing_in(msec_t now, msec_t waited)
{
    msec_t give_in = POOL_NEVER, tend_in = POOL_NEVER;

    if (!family_get() || mode_now() != MODE_ON)
        return POOL_NEVER;
    if (limits_idle() > 0)
        give_in = give_unneeded(now, waited);
    if (limits_idle() == 0)
        give_in = POOL_NEVER;
    if (family_has_queued())
        tend_in = tending_in(now);
    return give_in < tend_in ? give_in : tend_in;
}

/* No other member can look after the queues: what they and this process have would idle for
 * long. */
static void leave_one(void)
{
    struct evicted evicted;

    tending_leave_one();
    do {
        evicted.count = 0;
        if (!pool_take_idle(POOL_NEVER, false, &evicted))
            return;
        for (size_t i = 0; i < evicted.count; i++)
            discard(evicted.conn[i], REASON_SURPLUS);
    } while (evicted.count == POOL_EVICTED_MAX);
}

void sharing_give_closed(msec_t now)
{
    if (endpoint_any_in_use())
        return;
    request_note_given();
    sharing_give_idle(now, 0);
}

void sharing_note_block(void)
{
    struct family_board *board = family_get();

    if (board && mode_now() == MODE_ON)
        members_note_blocked(&board->members);
}

void sharing_before_block(msec_t now)
{
    struct family_board *board = family_get();
    int saved = errno;

    if (!board || mode_now() != MODE_ON)
        return;
    request_note_block();
    tending_withdraw(board);
    sharing_give_idle(now, 0);
    if (is_alone(board, now))
        leave_one();
    errno = saved;
}

void sharing_before_a_kill(void)
{
    int saved = errno;

    if (!is_sharing())
        return;
    sharing_give_idle(clock_now(), 0);
    errno = saved;
}

/* A promise to look does not count here: its member may be switched off as well. */
void sharing_when_switched_off(void)
{
    struct family_board *board = family_get();

    if (!board)
        return;
    members_leave(&board->members);
    tending_withdraw(board);
    if (!members_others_work(&board->members))
        tending_close_all(REASON_SWITCHED);
}

void sharing_at_end(void)
{
    struct family_board *board = family_get();
    int saved = errno;
    msec_t now;

    if (!is_sharing())
        return;
    now = clock_now_at_end();
    sharing_give_idle(now, 0);
    members_leave(&board->members);
    tending_withdraw(board);
    if (is_alone(board, now))
        tending_leave_one();
    errno = saved;
}
