/*
 * Giving, taking, and tending the queues.
 */
#include "pool/sharing.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <string.h>
#include <sys/socket.h>

#include "base/owner.h"
#include "base/rawsys.h"
#include "conn/fdmap.h"
#include "conn/limits.h"
#include "conn/shadow.h"
#include "conn/sockid.h"
#include "pool/account.h"
#include "pool/discard.h"
#include "pool/proof.h"
#include "pool/verify.h"
#include "stats/mode.h"

/* The same for a process with one thread and nothing in use: it is quiet when nothing is ready
 * for the first moment of a wait. */
#define QUIET_AT_ONCE ((msec_t)1)

/* How often a member looks after the queues, and how much later others do it instead. */
#define TEND_EVERY ((msec_t)5 * 1000)
#define TEND_GRACE ((msec_t)1000)

/* How many connections one connect() looks at. */
#define LOOKS 3

/* How many one turn closes. */
#define CLOSED_AT_ONCE 8

static void note_total(const struct family_board *board)
{
    stats_note_queued(atomic_load(&board->total));
}

/* Adds MORE, 1 or -1, to what is in queue I. */
static void note_queued(size_t i, unsigned int more)
{
    struct family_board *board = family_get();
    unsigned int queued = atomic_fetch_add(&board->queues[i].queued, more) + more;

    atomic_fetch_add(&board->total, more);
    /* Two takers may both lower it: the larger value may stay, which closes one too many. */
    if (queued < atomic_load(&board->queues[i].lowest))
        atomic_store(&board->queues[i].lowest, queued);
    note_total(board);
}

/* Sets what is in queue I to what the kernel says: a member may have been killed before it
 * could note it. Returns it. */
static unsigned int recount(size_t i, const struct fdqueue *queue)
{
    struct family_board *board = family_get();
    unsigned int is = fdqueue_size(queue) / family_size_of_one();
    unsigned int was = atomic_exchange(&board->queues[i].queued, is);

    if (is != was)
        atomic_fetch_add(&board->total, is - was);
    note_total(board);
    return is;
}

/* Whether a member waits in a way that lets it look after the queues. */
static bool is_tended(const struct family_board *board, msec_t now)
{
    return atomic_load(&board->tended_until) + TEND_GRACE > now;
}

static bool has_room(size_t i, msec_t now, unsigned int most)
{
    const struct family_board *board = family_get();

    return atomic_load(&board->total) < most &&
           (atomic_load(&board->queues[i].queued) == 0 || is_tended(board, now));
}

enum given {
    GIVEN,
    NO_ROOM,
    UNFIT, /* it is not what it should be */
};

/* The queue has refused: ERROR is negative. */
static enum given not_given(long error, msec_t now)
{
    if (error == -ETOOMANYREFS)
        family_note_quota(now);
    else if (error != -EAGAIN)
        family_leave(SHARE_CLOSED);
    return NO_ROOM;
}

static bool is_fit(struct conn *conn)
{
    struct tcp_info info;

    if (verify_for_reuse(conn, &info) != REASON_NONE ||
        proof_of(conn, &info) != PROOF_OF_LIFE || !sockopts_can_be_cleared(&conn->options) ||
        !sockopts_clear(conn->fd, &conn->options))
        return false;
    conn->options.given = 0;
    return true;
}

/* In a turn. */
static enum given give_in_turn(struct conn *conn, msec_t now, unsigned int most)
{
    size_t i = family_queue_for(conn->endpoint);
    const struct fdqueue *queue = family_open(i);
    struct account account;
    long result;

    if (!queue || !has_room(i, now, most))
        return NO_ROOM;
    if (!is_fit(conn) || !account_fill(&account, conn, now))
        return UNFIT;
    result = fdqueue_give(queue, conn->fd, &account, sizeof(account));
    if (result < 0)
        return not_given(result, now);
    note_queued(i, 1);
    shadow_close(conn, conn->fd);
    return GIVEN;
}

/* CONN, EVICTED, is clean. GIVEN: its record is given up. */
static enum given give(struct conn *conn, msec_t now)
{
    unsigned int most;
    struct family_turn turn;
    enum given given = NO_ROOM;

    if (!family_get() || conn->fd < 0 || mode_now() != MODE_ON || !owner_is_this_process())
        return NO_ROOM;
    most = family_most(now);
    if (!family_begin(&turn))
        return NO_ROOM;
    given = give_in_turn(conn, now, most);
    family_end(&turn);
    if (given == GIVEN) {
        stats_count(&conn->endpoint->stats->given);
        conn_move(conn, CONN_CLOSED);
    } else if (given == NO_ROOM) {
        stats_count(&conn->endpoint->stats->not_given);
    }
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
        enum given given = room ? give(conn, now) : NO_ROOM;

        if (given == NO_ROOM) {
            room = false;
            if (pool_put_back(conn))
                continue;
        }
        if (given != GIVEN)
            discard(conn, REASON_SURPLUS);
    }
    return room;
}

bool sharing_give_idle(msec_t now, msec_t idle_for)
{
    struct evicted evicted;
    int saved = errno;
    bool room = family_get() != NULL && mode_now() == MODE_ON, more = room;

    while (more) {
        evicted.count = 0;
        more = pool_take_idle(now - idle_for, &evicted);
        room = give_or_put_back(&evicted, now);
        more = more && room && evicted.count == POOL_EVICTED_MAX;
    }
    errno = saved;
    return room;
}

/* What was taken out of a queue. */
struct taken {
    struct account account;
    int fd;
    uint32_t bulk; /* bulk_close_count() before */
};

/* Closes the fd of TAKEN, unless a bulk close of another thread has done so and it may be
 * another file by now. */
static void close_taken(const struct taken *taken)
{
    uint64_t cookie = 0;

    if (bulk_close_count() == taken->bulk ||
        (sockid_cookie(taken->fd, &cookie) && cookie == taken->account.cookie))
        raw_close(taken->fd);
}

/* SO_LINGER (socket(7)) would make a close() wait, and another user may have set it. */
static void stop_lingering(int fd)
{
    static const struct linger off;

    raw_syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off));
}

enum got {
    GOT,
    GOT_NOTHING, /* the queue is empty, or cannot be used */
    GOT_OTHER,   /* what came is no connection of ours, and was closed */
};

/* Takes out what is first in queue I, in a turn. */
static enum got take_first(size_t i, struct taken *taken)
{
    const struct fdqueue *queue = family_open(i);
    long n;

    if (!queue || !fdqueue_has_room(queue))
        return GOT_NOTHING;
    taken->bulk = bulk_close_count();
    taken->account.cookie = 0;
    n = fdqueue_take(queue, &taken->account, sizeof(taken->account), &taken->fd);
    if (n == -EAGAIN) {
        recount(i, queue);
        return GOT_NOTHING;
    }
    if (n <= 0) {
        family_leave(SHARE_CLOSED);
        return GOT_NOTHING;
    }
    note_queued(i, -1u);
    if (taken->fd < 0)
        return GOT_OTHER;
    stop_lingering(taken->fd);
    if (account_is_ours(&taken->account, (size_t)n))
        return GOT;
    close_taken(taken);
    return GOT_OTHER;
}

/* Puts TAKEN back, behind the others. */
static void give_back(size_t i, const struct taken *taken)
{
    const struct fdqueue *queue = family_open(i);

    if (queue && fdqueue_give(queue, taken->fd, &taken->account, sizeof(taken->account)) == 0)
        note_queued(i, 1);
    close_taken(taken);
}

static bool is_for(const struct account *account, const struct endpoint *endpoint)
{
    return address_equal(&account->address, &endpoint->address);
}

static bool can_serve(const struct account *account, const struct conn *fresh,
                      enum wire_protocol protocol)
{
    return is_for(account, fresh->endpoint) && account->domain == fresh->domain &&
           (protocol == WIRE_UNDECIDED || account->wire.protocol == protocol);
}

/* The kernel's word that TAKEN is a connection to the peer of FRESH, and the one that the
 * account is about. verify_for_reuse() asks the rest. */
static bool is_connected_to(const struct taken *taken, const struct conn *fresh)
{
    struct sockaddr_storage peer = {0};
    socklen_t length = sizeof(peer);
    struct address address;
    uint64_t cookie = 0;

    return sockid_cookie(taken->fd, &cookie) && cookie == taken->account.cookie &&
           raw_syscall(SYS_getpeername, taken->fd, &peer, &length) == 0 &&
           peer.ss_family == fresh->domain &&
           address_from(&address, (const void *)&peer, length) &&
           address_equal(&address, &fresh->endpoint->address);
}

static bool read_flags(struct conn *conn)
{
    long flags = raw_syscall(SYS_fcntl, conn->fd, F_GETFL);

    if (flags < 0 || (flags & ~(O_ACCMODE | O_NONBLOCK | O_LARGEFILE)) != 0)
        return false;
    conn_set_flags(conn, (int)flags, FD_CLOEXEC);
    return true;
}

/* Makes a record for TAKEN, with a shadow fd. CHECKING_OUT; REASON tells whether it can be
 * used. NULL when there is no room for it: it is closed. */
static struct conn *adopt(const struct taken *taken, const struct conn *fresh, msec_t now,
                          enum reason *reason)
{
    bool good = is_connected_to(taken, fresh);
    struct conn *conn = good ? conn_new(taken->fd, fresh->domain) : NULL;

    if (!conn) {
        close_taken(taken);
        return NULL;
    }
    conn->fork_epoch = atomic_load(&fork_epoch);
    conn->orphan_epoch = atomic_load(&orphan_epoch);
    conn->cred_epoch = atomic_load(&cred_epoch);
    conn->endpoint = fresh->endpoint;
    good = account_apply(&taken->account, conn, now);
    shadow_make(conn, taken->fd);
    close_taken(taken);
    conn->fd = shadow_claim(conn);
    if (conn->fd < 0) {
        conn_move(conn, CONN_CLOSED);
        return NULL;
    }
    conn_move(conn, CONN_CHECKING_OUT);
    *reason = !good ? REASON_TOO_OLD : read_flags(conn) ? REASON_NONE : REASON_ODD_FLAGS;
    return conn;
}

/* In a turn. */
static struct conn *take_in_turn(size_t i, const struct conn *fresh,
                                 enum wire_protocol protocol, msec_t now, enum reason *reason)
{
    struct taken taken;

    for (int looks = 0; looks < LOOKS; looks++) {
        enum got got = take_first(i, &taken);
        struct conn *conn;

        if (got == GOT_NOTHING)
            return NULL;
        if (got == GOT_OTHER) {
            stats_count(&fresh->endpoint->stats->foreign);
            continue;
        }
        if (!can_serve(&taken.account, fresh, protocol)) {
            give_back(i, &taken);
            continue;
        }
        conn = adopt(&taken, fresh, now, reason);
        if (conn)
            return conn;
    }
    return NULL;
}

/* A child that was made meanwhile may have a copy of CONN, and not know it. */
static void end_copies(const struct conn *conn)
{
    raw_syscall(SYS_shutdown, conn->fd, SHUT_RDWR);
}

struct conn *sharing_take_slow(const struct conn *fresh, enum wire_protocol protocol,
                               msec_t now)
{
    static const struct sockopts none;
    struct family_board *board = family_get();
    enum reason reason = REASON_NONE;
    struct family_turn turn;
    struct conn *conn;
    size_t i;

    if (!board || mode_now() != MODE_ON || !sockopts_fit(&none, &fresh->options) ||
        !sockopts_know_usual(fresh->fd, &fresh->options))
        return NULL;
    i = family_queue_for(fresh->endpoint);
    if (atomic_load(&board->queues[i].queued) == 0 || !family_begin(&turn))
        return NULL;
    conn = take_in_turn(i, fresh, protocol, now, &reason);
    if (conn && family_was_forked(&turn)) {
        end_copies(conn);
        reason = REASON_FORKED;
    }
    family_end(&turn);
    if (!conn)
        return NULL;
    if (reason == REASON_NONE)
        reason = pool_refusal(conn, now);
    if (reason != REASON_NONE) {
        discard(conn, reason);
        return NULL;
    }
    stats_count(&conn->endpoint->stats->taken);
    return conn;
}

/* What one turn has closed, to be counted after it. */
struct closed {
    struct address of[CLOSED_AT_ONCE];
    size_t count;
};

static void close_noted(struct closed *closed, const struct taken *taken)
{
    close_taken(taken);
    closed->of[closed->count++] = taken->account.address;
}

static void count_closed(const struct closed *closed, enum reason reason)
{
    for (size_t n = 0; n < closed->count; n++)
        pool_count_discarded(&closed->of[n], reason);
}

/* Closes up to MOST connections that are first in queue I, in a turn. */
static void trim_to(size_t i, unsigned int most, struct closed *closed)
{
    struct taken taken;

    for (unsigned int n = 0; n < most && closed->count < CLOSED_AT_ONCE; n++) {
        enum got got = take_first(i, &taken);

        if (got == GOT_NOTHING)
            return;
        if (got == GOT)
            close_noted(closed, &taken);
    }
}

/* Closes those first in queue I that have idled for too long, in a turn. */
static void trim_old(size_t i, const struct fdqueue *queue, struct closed *closed)
{
    struct account first;
    struct taken taken;

    while (closed->count < CLOSED_AT_ONCE &&
           fdqueue_peek(queue, &first, sizeof(first)) == (long)sizeof(first) &&
           account_is_stale(&first, pool_idle_timeout())) {
        if (take_first(i, &taken) != GOT)
            return;
        close_noted(closed, &taken);
    }
}

/* How many of a queue, which has QUEUED, were not needed for POOL_LOW_WATER. */
static unsigned int unneeded(struct family_queue *shown, unsigned int queued, msec_t now)
{
    msec_t since = atomic_load(&shown->lowest_since);
    unsigned int lowest;

    if (now - since < POOL_LOW_WATER && since <= now)
        return 0;
    lowest = atomic_exchange(&shown->lowest, queued);
    atomic_store(&shown->lowest_since, now);
    if (lowest > queued)
        lowest = queued;
    return since == 0 || lowest == 0 ? 0 : lowest - 1;
}

static void tend_queue(size_t i, msec_t now)
{
    struct closed old = {.count = 0}, surplus = {.count = 0};
    const struct fdqueue *queue;
    struct family_turn turn;
    unsigned int queued;

    if (!family_begin(&turn))
        return;
    queue = family_open(i);
    if (queue) {
        queued = recount(i, queue);
        trim_to(i, unneeded(&family_get()->queues[i], queued, now), &surplus);
        trim_old(i, queue, &old);
    }
    family_end(&turn);
    count_closed(&surplus, REASON_SURPLUS);
    count_closed(&old, REASON_IDLE_TIMEOUT);
}

/* One member looks after the queues at a time. Returns in how many milliseconds this one has to
 * look again. */
static msec_t tend(msec_t now)
{
    struct family_board *board = family_get();
    msec_t until = board ? atomic_load(&board->tended_until) : 0;

    if (!board)
        return POOL_NEVER;
    if (until > now)
        return until - now + TEND_GRACE;
    if (!atomic_compare_exchange_strong(&board->tended_until, &until, now + TEND_EVERY))
        return TEND_EVERY + TEND_GRACE;
    for (size_t i = 0; i < FAMILY_QUEUES && family_get(); i++) {
        if (atomic_load(&board->queues[i].queued) > 0)
            tend_queue(i, now);
    }
    return TEND_EVERY;
}

/* Gives what this process, which has WAITED, does not need. Returns in how many milliseconds to
 * look again. */
static msec_t give_unneeded(msec_t now, msec_t waited)
{
    bool at_once = owner_has_one_thread() && !endpoint_any_in_use();
    msec_t quiet = at_once ? QUIET_AT_ONCE : SHARING_QUIET;

    if (waited < quiet)
        return quiet - waited;
    tend(now);
    return sharing_give_idle(now, at_once ? 0 : SHARING_QUIET) && !at_once ? quiet : POOL_NEVER;
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
        tend_in = tend(now);
    return give_in < tend_in ? give_in : tend_in;
}

/* Whether ACCOUNT is about the endpoint NAME; any if NAME is empty. */
static bool is_named(const struct account *account, const char *name)
{
    char text[ADDRESS_TEXT_SIZE];

    if (name[0] == '\0')
        return true;
    address_text(&account->address, text);
    return strcmp(text, name) == 0;
}

/* Looks at each connection in queue I once, and closes those to the endpoint NAME that have
 * been idle for IDLE_FOR or longer. True when there is more to do. */
static bool empty_some(size_t i, const char *name, msec_t idle_for, unsigned int *left,
                       struct closed *closed)
{
    struct taken taken;

    for (; *left > 0 && closed->count < CLOSED_AT_ONCE; --*left) {
        enum got got = take_first(i, &taken);

        if (got == GOT_NOTHING)
            return false;
        if (got == GOT_OTHER)
            continue;
        if (is_named(&taken.account, name) && account_idle_for(&taken.account) >= idle_for)
            close_noted(closed, &taken);
        else
            give_back(i, &taken);
    }
    return *left > 0;
}

static void empty_queue(struct family_board *board, size_t i, const char *name, msec_t idle_for,
                        enum reason reason)
{
    unsigned int left = atomic_load(&board->queues[i].queued);
    struct family_turn turn;
    bool more = left > 0;

    while (more && family_begin(&turn)) {
        struct closed closed = {.count = 0};

        more = empty_some(i, name, idle_for, &left, &closed);
        family_end(&turn);
        count_closed(&closed, reason);
    }
}

void sharing_empty(struct endpoint *endpoint, msec_t since, enum reason reason)
{
    struct family_board *board = family_get();

    if (board && family_has_queued() && owner_is_this_process())
        empty_queue(board, family_queue_for(endpoint), endpoint->text, clock_now() - since,
                    reason);
}

void sharing_flush(const char *name)
{
    struct family_board *board = family_get();

    if (!board || !family_has_queued())
        return;
    for (size_t i = 0; i < FAMILY_QUEUES; i++)
        empty_queue(board, i, name, 0, REASON_FLUSHED);
}

bool sharing_make_way(void)
{
    struct family_board *board = family_get();
    int saved = errno;

    if (!board || !family_has_queued() || !owner_is_this_process())
        return false;
    family_note_quota(clock_now());
    for (size_t i = 0; i < FAMILY_QUEUES; i++)
        empty_queue(board, i, "", 0, REASON_FD_PRESSURE);
    errno = saved;
    return true;
}
