/*
 * Trimming and emptying the queues.
 */
#include "pool/tending.h"

#include <errno.h>
#include <string.h>

#include "base/owner.h"
#include "pool/pool.h"
#include "pool/queues.h"
#include "pool/quota.h"

/* How often a member looks after the queues, and how much later others do it instead. */
#define EVERY ((msec_t)2 * 1000)
#define GRACE ((msec_t)1000)

/* How many one turn closes. */
#define CLOSED_AT_ONCE 8

/* What one turn has closed, to be counted after it. */
struct closed {
    struct address of[CLOSED_AT_ONCE];
    size_t count;
};

static void close_noted(struct closed *closed, const struct taken *taken)
{
    queues_close(taken);
    closed->of[closed->count++] = taken->account.address;
}

static void count_closed(const struct closed *closed, enum reason reason)
{
    for (size_t n = 0; n < closed->count; n++)
        pool_count_discarded(&closed->of[n], reason);
}

/* Which connections a look at a queue closes. */
struct wanted {
    const char *name; /* the endpoint; empty: any */
    msec_t idle_for;  /* those that have idled for as long, or longer; ANY_AGE: all */
    enum reason reason;
};

#define ANY_AGE INT64_MIN

static bool is_wanted(const struct account *account, const struct wanted *wanted)
{
    char text[ADDRESS_TEXT_SIZE];

    if (account_idle_for(account) < wanted->idle_for)
        return false;
    if (wanted->name[0] == '\0')
        return true;
    address_text(&account->address, text);
    return strcmp(text, wanted->name) == 0;
}

/* In a turn. Looks at the first *LEFT connections in queue I, closes those that are WANTED, and
 * puts the others at its end. True when there is more to do, in another turn. */
static bool close_some(size_t i, const struct wanted *wanted, unsigned int *left,
                       struct closed *closed)
{
    struct taken taken;

    for (; *left > 0 && closed->count < CLOSED_AT_ONCE; --*left) {
        enum got got = queues_take(i, &taken);

        if (got == GOT_NOTHING)
            return false;
        if (got == GOT_OTHER)
            continue;
        if (is_wanted(&taken.account, wanted))
            close_noted(closed, &taken);
        else
            queues_give_back(i, &taken);
    }
    return *left > 0;
}

/* Looks at each of the first LOOKS connections in queue I once, and closes those that are
 * WANTED. */
static void close_wanted(size_t i, unsigned int looks, const struct wanted *wanted)
{
    struct family_turn turn;
    bool more = looks > 0;

    while (more && family_begin(&turn)) {
        struct closed closed = {.count = 0};

        more = close_some(i, wanted, &looks, &closed);
        family_end(&turn);
        count_closed(&closed, wanted->reason);
    }
}

/* Closes the first MOST connections in queue I. */
static void trim(size_t i, unsigned int most)
{
    static const struct wanted any = {"", ANY_AGE, REASON_SURPLUS};

    close_wanted(i, most, &any);
}

/* Closes those first in queue I that have idled for too long. Returns in how many milliseconds
 * the next one has; EVERY when that is later. */
static msec_t trim_old(size_t i)
{
    struct closed closed = {.count = 0};
    const struct fdqueue *queue;
    struct family_turn turn;
    struct account first;
    struct taken taken;
    msec_t in = EVERY;

    if (!family_begin(&turn))
        return EVERY;
    queue = family_open(i);
    while (queue && fdqueue_peek(queue, &first, sizeof(first)) == (long)sizeof(first)) {
        in = pool_idle_timeout() - account_idle_for(&first) + 1;
        if ((in > 0 && !account_is_stale(&first, pool_idle_timeout())) ||
            closed.count == CLOSED_AT_ONCE || queues_take(i, &taken) != GOT)
            break;
        close_noted(&closed, &taken);
    }
    family_end(&turn);
    count_closed(&closed, REASON_IDLE_TIMEOUT);
    return in < 0 ? 0 : in < EVERY ? in : EVERY;
}

/* How many are in queue I, by the kernel's word. Most queues were never for an endpoint, and
 * nothing was put there. */
static unsigned int recount(size_t i)
{
    const struct family_board *board = family_get();
    const struct fdqueue *queue;
    struct family_turn turn;
    unsigned int queued = 0;

    if (!board || atomic_load(&board->queues[i].endpoint) == 0 || !family_begin(&turn))
        return 0;
    queue = family_open(i);
    if (queue)
        queued = queues_recount(i, queue);
    family_end(&turn);
    return queued;
}

/* How many of QUEUE, which has QUEUED, were not needed for POOL_LOW_WATER. */
static unsigned int unneeded(struct family_queue *queue, unsigned int queued, msec_t now)
{
    msec_t since = atomic_load(&queue->lowest_since);
    unsigned int lowest;

    if (now - since < POOL_LOW_WATER && since <= now)
        return 0;
    lowest = atomic_exchange(&queue->lowest, queued);
    atomic_store(&queue->lowest_since, now);
    if (lowest > queued)
        lowest = queued;
    return since == 0 || lowest == 0 ? 0 : lowest - 1;
}

/* How many of queue I, which has QUEUED, have to go because another family of this user was
 * made, or the kernel has refused one. */
static unsigned int beyond(const struct family_board *board, unsigned int queued)
{
    unsigned int total = atomic_load(&board->total), most = quota_of(board);

    if (total <= most)
        return 0;
    return total - most < queued ? total - most : queued;
}

/* As tending_in(), of queue I. */
static msec_t tend(struct family_board *board, size_t i, msec_t now)
{
    unsigned int queued = recount(i), surplus, excess;

    if (queued == 0)
        return EVERY;
    surplus = unneeded(&board->queues[i], queued, now);
    excess = beyond(board, queued);
    trim(i, surplus > excess ? surplus : excess);
    return trim_old(i);
}

/* Until when this process has promised to look, as it stands on the board. */
static _Atomic msec_t promise;

void tending_withdraw(struct family_board *board)
{
    msec_t ours = atomic_load(&promise);

    atomic_compare_exchange_strong(&board->tended_until, &ours, 0);
}

void tending_after_fork_in_child(void)
{
    atomic_store(&promise, 0);
}

static void promise_until(struct family_board *board, msec_t until)
{
    atomic_store(&promise, until);
    atomic_store(&board->tended_until, until);
}

void tending_note_wait(msec_t length)
{
    struct family_board *board = family_get();
    msec_t until;

    if (!board || length > GRACE || endpoint_any_in_use())
        return;
    until = clock_now() + length;
    if (atomic_load(&board->waits_until) < until)
        atomic_store(&board->waits_until, until);
}

bool tending_is_promised(const struct family_board *board, msec_t now)
{
    return atomic_load(&board->tended_until) + GRACE > now ||
           atomic_load(&board->waits_until) + GRACE > now;
}

/* A member that was killed between two counts leaves a difference. If something is counted
 * meanwhile, the next look corrects it. */
static void correct_total(struct family_board *board)
{
    uint32_t total = atomic_load(&board->total), sum = 0;

    for (size_t i = 0; i < FAMILY_QUEUES; i++)
        sum += atomic_load(&board->queues[i].queued);
    atomic_compare_exchange_strong(&board->total, &total, sum);
}

static msec_t tend_all(struct family_board *board, msec_t now)
{
    msec_t in = EVERY;

    quota_count(now);
    for (size_t i = 0; i < FAMILY_QUEUES; i++) {
        msec_t next = tend(board, i, now);

        if (next < in)
            in = next;
    }
    correct_total(board);
    return in > 0 ? in : 1;
}

msec_t tending_in(msec_t now)
{
    struct family_board *board = family_get();
    msec_t due, promised;

    if (!board)
        return POOL_NEVER;
    due = atomic_load(&board->tend_at);
    if (due <= now && atomic_compare_exchange_strong(&board->tend_at, &due, now + EVERY)) {
        due = now + tend_all(board, now);
        atomic_store(&board->tend_at, due);
    }
    promised = atomic_load(&board->tended_until);
    if (promised >= due && promised != atomic_load(&promise))
        return due - now + GRACE;
    promise_until(board, due);
    return due > now ? due - now : 1;
}

void tending_leave_one(void)
{
    for (size_t i = 0; family_get() && i < FAMILY_QUEUES; i++) {
        unsigned int queued = recount(i);

        trim(i, queued > 1 ? queued - 1 : 0);
    }
}

void tending_empty(struct endpoint *endpoint, msec_t since, enum reason reason)
{
    struct wanted wanted = {endpoint->text, clock_now() - since, reason};
    size_t i;

    if (!family_has_queued() || !owner_is_this_process())
        return;
    i = family_queue_for(endpoint);
    close_wanted(i, recount(i), &wanted);
}

/* In all queues. */
static void close_everywhere(const struct wanted *wanted)
{
    for (size_t i = 0; family_has_queued() && i < FAMILY_QUEUES; i++)
        close_wanted(i, recount(i), wanted);
}

void tending_flush(const char *name)
{
    close_everywhere(&(struct wanted){name, 0, REASON_FLUSHED});
}

void tending_close_all(enum reason reason)
{
    close_everywhere(&(struct wanted){"", ANY_AGE, reason});
}

bool tending_make_way(void)
{
    int saved = errno;

    if (!family_has_queued() || !owner_is_this_process())
        return false;
    quota_note_refusal(clock_now());
    tending_close_all(REASON_FD_PRESSURE);
    errno = saved;
    return true;
}
