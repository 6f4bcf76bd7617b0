/*
 * The lists of idle connections, under the lock. lock_pool() registers a cleanup handler: if a
 * signal handler jumps out while the lock is held, the tables may be half changed, and pooling
 * ends for good.
 */
#include "pool/pool.h"

#include <utlist.h>

#include "conn/fdmap.h"
#include "conn/limits.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/unwind.h"
#include "pool/guess.h"
#include "stats/mode.h"
#include "stats/stats.h"

/* For how many milliseconds a server counts as full, and how many idle connections to it are
 * kept meanwhile. */
#define FULL_FOR  ((msec_t)60 * 1000)
#define FULL_MOST 1u

static struct lock lock;
/* This thread has the lock or waits for it: a signal handler that interrupts it then must
 * not. */
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

static const struct config *settings;
static struct conn *idle; /* and draining ones, of all endpoints; latest first */

_Atomic msec_t pool_due = POOL_NEVER;
_Atomic unsigned int pool_surplus;
static msec_t due = POOL_NEVER; /* as pool_due, but also set in a dry run */

/* A signal handler jumped out while its thread had the lock: the tables may be half changed,
 * and are not used any more. */
static atomic_bool torn;

/* Why there are connections in the lists that have lost their fds: another thread had the lock.
 * REASON_NONE: there are none. It is set before the lock is asked for once more, and looked at
 * after the lock was given back, so one of the two threads takes them out; see concurrency.md,
 * 5. */
static _Atomic uint32_t loss;
static void (*catch_up)(void);

/* A cleanup handler: the code that has the lock, or waits for it, was left by a jump. */
static void abandon(void *unused)
{
    (void)unused;
    if (lock_is_mine(&lock))
        atomic_store(&torn, true);
    lock_abandon(&lock);
    inside = false;
}

ALWAYS_INLINE void release_lock(void)
{
    lock_release(&lock);
    inside = false;
}

ALWAYS_INLINE void catch_up_if_due(void)
{
    if (__builtin_expect(atomic_load(&loss) != REASON_NONE, 0) && catch_up)
        catch_up();
}

ALWAYS_INLINE void unlock_pool(struct _pthread_cleanup_buffer *cleanup)
{
    release_lock();
    _pthread_cleanup_pop(cleanup, 0);
    catch_up_if_due();
}

/* Gets the lock by GET for a thread that is not INSIDE. REASON_NONE: it has the lock, and is
 * inside. Another reason: the lock was refused, and nothing has changed. */
ALWAYS_INLINE enum reason enter_by(bool (*get)(struct lock *lock))
{
    enum reason reason = REASON_LOCKED;

    inside = true;
    if (get(&lock)) {
        /* relaxed: ordered by the lock, as it is set before the lock is given up */
        if (!atomic_load_explicit(&torn, memory_order_relaxed))
            return REASON_NONE;
        lock_release(&lock);
        reason = REASON_POOL_UNUSABLE;
    }
    inside = false;
    return reason;
}

/* Gets the lock by GET and registers CLEANUP. REASON_NONE: the caller must end it by
 * unlock_pool(). Another reason: the lock was refused, and there is nothing to end. */
ALWAYS_INLINE enum reason lock_pool_by(bool (*get)(struct lock *lock),
                                       struct _pthread_cleanup_buffer *cleanup)
{
    enum reason reason;

    if (inside)
        return REASON_REENTERED;
    _pthread_cleanup_push(cleanup, abandon, NULL);
    reason = enter_by(get);
    if (reason != REASON_NONE)
        _pthread_cleanup_pop(cleanup, 0);
    return reason;
}

ALWAYS_INLINE enum reason lock_pool(struct _pthread_cleanup_buffer *cleanup)
{
    return lock_pool_by(lock_acquire, cleanup);
}

void pool_when_lost(void (*work)(void))
{
    catch_up = work;
}

void pool_note_lost(enum reason reason)
{
    atomic_store(&loss, (uint32_t)reason);
    catch_up_if_due();
}

bool pool_start(const struct config *config)
{
    if (!endpoint_start())
        return false;
    settings = config;
    limits_start(config);
    /* Last: with it the pool is at work. */
    stats_start(config, POOL_ENDPOINTS);
    return true;
}

bool pool_is_dry_run(void)
{
    return mode_now() == MODE_DRY;
}

unsigned int pool_keepalive(void)
{
    return settings->keepalive;
}

static struct conn **list_of(struct endpoint *endpoint, enum conn_state state)
{
    return state == CONN_DRAINING ? &endpoint->draining : &endpoint->idle;
}

/* Relaxed: waits read it without the lock, as a hint. In a dry run no wait is cut. */
static void publish_due(msec_t at)
{
    atomic_store_explicit(&pool_due, pool_is_dry_run() ? POOL_NEVER : at, memory_order_relaxed);
}

static void set_due(msec_t at)
{
    due = at;
    publish_due(at);
}

/* Adds MORE, 1 or -1, to the surplus, if ENDPOINT has OTHERS beside the connection that comes
 * or goes. */
static void count_surplus(unsigned int others, unsigned int more)
{
    if (others > 0)
        /* relaxed: changed with the lock held, and a hint to others */
        atomic_store_explicit(&pool_surplus,
                              atomic_load_explicit(&pool_surplus, memory_order_relaxed) + more,
                              memory_order_relaxed);
}

/* How long connections to ENDPOINT may idle, where that was learned. */
COLD static msec_t learned_limit(struct endpoint *endpoint, msec_t now)
{
    msec_t limit = path_limit_at(&endpoint->path, settings->idle_timeout, now);

    stats_set(&endpoint->stats->idle_limit_ms, endpoint->path.limit == 0 ? 0 : (uint64_t)limit);
    return limit;
}

/* Sets from when on CONN, to ENDPOINT, which is in the lists as STATE, is not reused. */
ALWAYS_INLINE void set_expiry(struct conn *conn, struct endpoint *endpoint,
                              enum conn_state state)
{
    msec_t most = settings->idle_timeout;

    if (__builtin_expect(endpoint->path.limit != 0, 0))
        most = learned_limit(endpoint, conn->idle_since);
    if (__builtin_expect(state == CONN_DRAINING, 0))
        most = POOL_DRAIN_TIMEOUT;
    most += conn->idle_since + 1;
    conn->unusable_at = conn->expires_at < most ? conn->expires_at : most;
}

/* Why CONN is not reused any more. */
static enum reason expiry_reason(const struct conn *conn)
{
    if (conn->unusable_at == conn->expires_at)
        return REASON_TOO_OLD;
    return conn_state(conn) == CONN_DRAINING ? REASON_DRAIN_TIMEOUT : REASON_IDLE_TIMEOUT;
}

/* When CONN, which is in the lists, has to leave them. ALONE: it is the one that is kept for
 * its endpoint although it was not needed. */
static msec_t leaves_at(const struct conn *conn, bool alone)
{
    msec_t surplus_at = conn->idle_since + POOL_LOW_WATER + 1;

    return alone || conn->unusable_at < surplus_at ? conn->unusable_at : surplus_at;
}

static bool is_last_used(const struct conn *conn)
{
    return conn == conn->endpoint->idle;
}

/* CONN is in the lists now. */
ALWAYS_INLINE void count_linked(const struct conn *conn, struct endpoint *endpoint)
{
    msec_t leaves;

    count_surplus(endpoint->idle_count, 1);
    endpoint->idle_count++;
    limits_count_idle(1);
    endpoint_note_idle(endpoint);
    leaves = leaves_at(conn, endpoint->idle_count == 1);
    if (leaves < due)
        set_due(leaves);
}

ALWAYS_INLINE void link_idle(struct conn *conn, struct endpoint *endpoint, enum conn_state to)
{
    struct conn **list = list_of(endpoint, to);

    conn_move_from(conn, CONN_CHECKING_IN, to);
    set_expiry(conn, endpoint, to);
    DL_PREPEND2(*list, conn, prev, next);
    DL_PREPEND2(idle, conn, newer, older);
    count_linked(conn, endpoint);
}

ALWAYS_INLINE void unlink_from(struct conn *conn, struct endpoint *endpoint, struct conn **list)
{
    DL_DELETE2(*list, conn, prev, next);
    DL_DELETE2(idle, conn, newer, older);
    endpoint->idle_count--;
    count_surplus(endpoint->idle_count, -1u);
    limits_count_idle(-1);
    endpoint_note_idle(endpoint);
}

COLD static void unlink_any(struct conn *conn)
{
    unlink_from(conn, conn->endpoint, list_of(conn->endpoint, conn_state(conn)));
}

COLD static void evict(struct conn *conn, enum reason reason, struct evicted *evicted)
{
    unlink_any(conn);
    conn_move(conn, CONN_EVICTED);
    evicted->conn[evicted->count] = conn;
    evicted->reason[evicted->count++] = reason;
}

/* Evicts up to MOST connections that have to leave by NOW; with ALL, all but the last used one
 * of each endpoint. Notes when the next one has to. A busy process has one that leaves soon at
 * any moment, so they are looked at once in POOL_CUSTODY_PERIOD. */
static void evict_due(msec_t now, bool all, size_t most, struct evicted *evicted)
{
    msec_t earliest = POOL_NEVER;
    struct conn *conn, *next;

    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        bool alone = is_last_used(conn);
        msec_t leaves = leaves_at(conn, alone);

        if (evicted->count < most && (leaves <= now || (all && !alone)))
            evict(conn, conn->unusable_at <= now ? expiry_reason(conn) : REASON_SURPLUS,
                  evicted);
        else if (leaves < earliest)
            earliest = leaves;
    }
    if (earliest > now && earliest < now + POOL_CUSTODY_PERIOD)
        earliest = now + POOL_CUSTODY_PERIOD;
    set_due(earliest);
}

bool pool_evict_due(msec_t now, bool all, struct evicted *evicted)
{
    struct _pthread_cleanup_buffer cleanup;
    enum reason reason = lock_pool_by(lock_try, &cleanup);

    if (reason != REASON_NONE) {
        /* Else waits would be cut again and again for work that cannot be done. Whatever the
         * holder of the lock writes at the same moment, the next look corrects it. */
        publish_due(reason == REASON_POOL_UNUSABLE ? POOL_NEVER : now + POOL_CUSTODY_PERIOD);
        return false;
    }
    if (all || now >= due)
        evict_due(now, all, POOL_EVICTED_MAX, evicted);
    else
        set_due(due);
    unlock_pool(&cleanup);
    return true;
}

/* CONN, DRAINING, was just checked in. Without a fence, its user has not waited for a reply. */
static void note_giver(struct conn *conn)
{
    conn->given_up_by = 0;
    if (conn->fence != FENCE_NONE)
        return;
    conn->given_up_by = lock_self;
    stats_count(&conn->endpoint->stats->given_up);
}

/* Whether FOUND can be reused in place of CONN, on which PROTOCOL is to be spoken. */
ALWAYS_INLINE bool can_serve(const struct conn *found, const struct conn *conn,
                             enum wire_protocol protocol)
{
    return found->domain == conn->domain &&
           (sockopts_are_alike(&found->options, &conn->options) ||
            sockopts_fit(&found->options, &conn->options)) &&
           (protocol == WIRE_UNDECIDED || wire_protocol(&found->wire) == protocol);
}

/* Takes FOUND, which is FROM, out of its lists, of which LIST of ENDPOINT is one, for a
 * check-out. */
ALWAYS_INLINE void claim(struct conn *found, enum conn_state from, struct endpoint *endpoint,
                         struct conn **list)
{
    unlink_from(found, endpoint, list);
    conn_move_from(found, from, CONN_CHECKING_OUT);
}

/* The latest idle connection to the endpoint of CONN that can be reused, NULL if there is none.
 * Evicts expired ones that it meets. */
COLD static struct conn *search_idle(const struct conn *conn, enum wire_protocol protocol,
                                     msec_t now, struct evicted *evicted)
{
    struct conn *found, *next;

    DL_FOREACH_SAFE2(conn->endpoint->idle, found, next, next)
    {
        if (now < found->unusable_at && can_serve(found, conn, protocol))
            break;
        if (now >= found->unusable_at && evicted->count < POOL_EVICTED_MAX / 2)
            evict(found, expiry_reason(found), evicted);
    }
    return found;
}

/* pool_check_out() with the lock held. Nearly always it is the first one. */
ALWAYS_INLINE struct conn *claim_idle(const struct conn *conn, struct endpoint *endpoint,
                                      enum wire_protocol protocol, msec_t now,
                                      struct evicted *evicted)
{
    struct conn *found = endpoint->idle;

    if (!found)
        return NULL;
    if (__builtin_expect(now >= found->unusable_at || !can_serve(found, conn, protocol), 0)) {
        found = search_idle(conn, protocol, now, evicted);
        if (!found)
            return NULL;
    }
    claim(found, CONN_IDLE, endpoint, &endpoint->idle);
    return found;
}

struct conn *pool_check_out(const struct conn *conn, enum wire_protocol protocol, msec_t now,
                            struct evicted *evicted)
{
    struct conn *found;
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return NULL;
    found = claim_idle(conn, conn->endpoint, protocol, now, evicted);
    unlock_pool(&cleanup);
    return found;
}

INLINED enum reason pool_bind(struct conn *conn, const struct destination *target, msec_t now,
                              bool reuse, struct conn **found, struct evicted *evicted)
{
    struct endpoint *endpoint;
    struct _pthread_cleanup_buffer cleanup;
    enum reason reason = lock_pool(&cleanup);

    if (reason != REASON_NONE)
        return reason;
    endpoint = endpoint_find(target, now);
    if (__builtin_expect(!endpoint, 0)) {
        unlock_pool(&cleanup);
        return REASON_NO_ROOM;
    }
    conn->endpoint = endpoint;
    *found = reuse ? claim_idle(conn, endpoint, guess_protocol(conn), now, evicted) : NULL;
    if (__builtin_expect(!*found, 0))
        conn_move(conn, CONN_IN_USE);
    endpoint_note_peak(endpoint, now);
    unlock_pool(&cleanup);
    return REASON_NONE;
}

/* Whether this thread has just given CONN up, which is DRAINING. */
static bool is_spared(const struct conn *conn, msec_t now)
{
    return conn->given_up_by == lock_self && now - conn->idle_since < POOL_SPARED;
}

/* The list has the latest first, so the last match has waited longest. */
struct conn *pool_check_out_draining(const struct conn *conn, enum wire_protocol protocol,
                                     msec_t now, struct evicted *evicted)
{
    struct conn *found = NULL, *at, *next;
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return NULL;
    DL_FOREACH_SAFE2(conn->endpoint->draining, at, next, next)
    {
        if (now >= at->unusable_at) {
            if (evicted->count < POOL_EVICTED_MAX)
                evict(at, expiry_reason(at), evicted);
        } else if (can_serve(at, conn, protocol) && !is_spared(at, now)) {
            found = at;
        }
    }
    if (found)
        claim(found, CONN_DRAINING, conn->endpoint, &conn->endpoint->draining);
    unlock_pool(&cleanup);
    return found;
}

static bool is_flushed(const struct conn *conn)
{
    return conn->connected_at < conn->endpoint->flushed_before;
}

COLD static enum reason may_be_idle_slow(const struct conn *conn)
{
    /* On: it has an fd. Dry run: it has none. Off: never. */
    enum mode wanted = conn->fd < 0 ? MODE_DRY : MODE_ON;

    if (mode_now() != wanted)
        return REASON_SWITCHED;
    return is_flushed(conn) ? REASON_FLUSHED : REASON_NONE;
}

/* REASON_NONE, or what an operator has done meanwhile. A wish sets what is read here before it
 * takes the lock to empty the lists. So either this sees it, or the lists are emptied later. */
static enum reason may_be_idle(const struct conn *conn)
{
    /* seq_cst: see concurrency.md, 5 */
    if (mode_is_plain())
        return REASON_NONE;
    return may_be_idle_slow(conn);
}

bool pool_take_idle(msec_t since, bool but_last, struct evicted *evicted)
{
    struct _pthread_cleanup_buffer cleanup;
    struct conn *conn, *newer;

    if (lock_pool(&cleanup) != REASON_NONE)
        return false;
    for (conn = idle ? idle->newer : NULL;
         conn && conn->idle_since <= since && evicted->count < POOL_EVICTED_MAX; conn = newer) {
        newer = conn == idle ? NULL : conn->newer;
        if (conn_state(conn) == CONN_IDLE && (newer || !but_last) &&
            sockopts_can_be_cleared(&conn->options))
            evict(conn, REASON_SURPLUS, evicted);
    }
    unlock_pool(&cleanup);
    return true;
}

msec_t pool_oldest_idle(msec_t now)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return now;
    if (idle)
        now = idle->newer->idle_since;
    unlock_pool(&cleanup);
    return now;
}

/* The lists have the latest first. */
static void link_last(struct conn *conn)
{
    conn_move(conn, CONN_IDLE);
    DL_APPEND2(conn->endpoint->idle, conn, prev, next);
    DL_APPEND2(idle, conn, newer, older);
    count_linked(conn, conn->endpoint);
    stats_changed();
}

bool pool_put_back(struct conn *conn)
{
    struct _pthread_cleanup_buffer cleanup;
    bool kept;

    if (lock_pool(&cleanup) != REASON_NONE)
        return false;
    kept = may_be_idle(conn) == REASON_NONE;
    if (kept)
        link_last(conn);
    unlock_pool(&cleanup);
    return kept;
}

enum reason pool_refusal(struct conn *conn, msec_t now)
{
    struct _pthread_cleanup_buffer cleanup;
    enum reason reason = lock_pool(&cleanup);

    if (reason != REASON_NONE)
        return reason;
    set_expiry(conn, conn->endpoint, CONN_IDLE);
    if (now >= conn->unusable_at)
        reason = expiry_reason(conn);
    else
        reason = is_flushed(conn) ? REASON_FLUSHED : REASON_NONE;
    unlock_pool(&cleanup);
    return reason;
}

void pool_count_discarded(const struct address *address, enum reason reason)
{
    struct destination target = {.v4 = 0, .address = *address};
    struct _pthread_cleanup_buffer cleanup;
    struct endpoint *endpoint;

    if (lock_pool(&cleanup) != REASON_NONE)
        return;
    endpoint = endpoint_find(&target, clock_now_at_end());
    if (endpoint)
        stats_count(&endpoint->stats->discarded[reason]);
    unlock_pool(&cleanup);
}

msec_t pool_idle_timeout(void)
{
    return settings->idle_timeout;
}

bool pool_return(struct conn *conn)
{
    struct _pthread_cleanup_buffer cleanup;
    bool kept;

    if (lock_pool(&cleanup) != REASON_NONE)
        return false;
    kept = may_be_idle(conn) == REASON_NONE;
    if (kept) {
        link_idle(conn, conn->endpoint, CONN_DRAINING);
        stats_changed();
    }
    unlock_pool(&cleanup);
    return kept;
}

/* There are as many connections to ENDPOINT as may be kept. A draining one is evicted first,
 * and never puts out an idle one: it may turn out to be good for nothing. */
COLD static bool replace_one_at(const struct endpoint *endpoint, enum conn_state to,
                                enum reason reason, struct evicted *evicted)
{
    if (endpoint->draining)
        evict(endpoint->draining->prev, reason, evicted);
    else if (to == CONN_IDLE)
        evict(endpoint->idle->prev, reason, evicted);
    else
        return false;
    return true;
}

/* Makes room for one more connection at ENDPOINT, which is to be TO. */
COLD static bool make_room_at(const struct endpoint *endpoint, enum conn_state to, msec_t now,
                              struct evicted *evicted)
{
    if (__builtin_expect(now < endpoint->full_until, 0))
        return endpoint->idle_count < FULL_MOST ||
               replace_one_at(endpoint, to, REASON_SERVER_FULL, evicted);
    return endpoint->idle_count < endpoint_most(endpoint, settings->max_idle) ||
           replace_one_at(endpoint, to, REASON_ENDPOINT_FULL, evicted);
}

/* The same in the whole process: the oldest are evicted. */
COLD static bool make_room(struct evicted *evicted)
{
    while (limits_idle() >= limits_idle_most() && idle && evicted->count < POOL_EVICTED_MAX)
        evict(idle->newer, REASON_POOL_FULL, evicted);
    return limits_idle() < limits_idle_most();
}

/* Whether there is room for one more, as far as that can be told without looking further. */
static inline bool has_room(const struct endpoint *endpoint, msec_t now)
{
    return now >= endpoint->full_until && endpoint->idle_count < settings->max_idle &&
           limits_idle() < limits_idle_most();
}

COLD static enum reason find_room(struct endpoint *endpoint, enum conn_state to, msec_t now,
                                  struct evicted *evicted)
{
    endpoint_note_peak(endpoint, now);
    if (!make_room_at(endpoint, to, now, evicted))
        return REASON_ENDPOINT_FULL;
    return make_room(evicted) ? REASON_NONE : REASON_POOL_FULL;
}

COLD static void link_draining(struct conn *conn)
{
    link_idle(conn, conn->endpoint, CONN_DRAINING);
    note_giver(conn);
}

/* As lock_pool() and unlock_pool(), with the caller's cleanup handler in place of one here. */
ALWAYS_INLINE enum reason lock_covered(bool *covered)
{
    enum reason reason;

    if (inside)
        return REASON_REENTERED;
    *covered = true;
    reason = enter_by(lock_acquire);
    if (reason != REASON_NONE)
        *covered = false;
    return reason;
}

void pool_abandon(void)
{
    abandon(NULL);
}

INLINED enum reason pool_check_in(struct conn *conn, enum conn_state to, msec_t now,
                                  struct evicted *evicted, bool *covered)
{
    struct endpoint *endpoint = conn->endpoint;
    enum reason reason = lock_covered(covered);

    if (__builtin_expect(reason != REASON_NONE, 0))
        return reason;
    if (__builtin_expect(now >= due, 0))
        evict_due(now, false, POOL_EVICTED_MAX / 2, evicted);
    /* The lock is held over a fork, so either the child has CONN in its lists, or the epoch
     * shows the fork here. */
    if (conn->fork_epoch != atomic_load(&fork_epoch))
        reason = REASON_FORKED;
    else
        reason = may_be_idle(conn);
    if (reason == REASON_NONE && __builtin_expect(!has_room(endpoint, now), 0))
        reason = find_room(endpoint, to, now, evicted);
    if (reason == REASON_NONE) {
        conn->idle_since = now;
        if (__builtin_expect(to == CONN_IDLE, 1))
            link_idle(conn, endpoint, CONN_IDLE);
        else
            link_draining(conn);
    }
    release_lock();
    *covered = false;
    catch_up_if_due();
    return reason;
}

void pool_drop_older(struct endpoint *endpoint, msec_t since, struct evicted *evicted)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return;
    while (endpoint->idle && endpoint->idle->prev->idle_since <= since &&
           evicted->count < POOL_EVICTED_MAX)
        evict(endpoint->idle->prev, REASON_PEER_DIED, evicted);
    unlock_pool(&cleanup);
}

void pool_note_full(struct endpoint *endpoint, msec_t now, struct evicted *evicted)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return;
    endpoint->full_until = now + FULL_FOR;
    while (endpoint->idle_count > FULL_MOST && evicted->count < POOL_EVICTED_MAX)
        evict(endpoint->draining ? endpoint->draining->prev : endpoint->idle->prev,
              REASON_SERVER_FULL, evicted);
    unlock_pool(&cleanup);
}

void pool_count_piece(void)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return;
    if (idle)
        stats_add_quietly(&idle->newer->endpoint->stats->pieces, 1);
    unlock_pool(&cleanup);
}

/* A limit of ENDPOINT was learned: it holds for what is idle already. */
static void apply_limit(struct endpoint *endpoint, msec_t now)
{
    struct conn *conn;

    stats_set(&endpoint->stats->idle_limit_ms, (uint64_t)endpoint->path.limit);
    stats_count(&endpoint->stats->limits_learned);
    DL_FOREACH2(endpoint->idle, conn, next)
    {
        set_expiry(conn, endpoint, CONN_IDLE);
    }
    set_due(now);
}

void pool_note_death(struct endpoint *endpoint, msec_t age, msec_t now)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return;
    if (path_limit_note_death(&endpoint->path, age, now))
        apply_limit(endpoint, now);
    unlock_pool(&cleanup);
}

void pool_note_close(struct endpoint *endpoint, msec_t age, msec_t at)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return;
    if (path_limit_note_close(&endpoint->path, age, at))
        apply_limit(endpoint, at);
    unlock_pool(&cleanup);
}

bool pool_flush(enum reason reason, struct evicted *evicted)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return false;
    while (idle && evicted->count < POOL_EVICTED_MAX)
        evict(idle->newer, reason, evicted);
    unlock_pool(&cleanup);
    return true;
}

bool pool_flush_older(const char *name, msec_t now, struct evicted *evicted)
{
    struct conn *conn, *next;
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE)
        return false;
    endpoint_flush(name, now);
    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        if (evicted->count < POOL_EVICTED_MAX && is_flushed(conn))
            evict(conn, REASON_FLUSHED, evicted);
    }
    unlock_pool(&cleanup);
    return true;
}

struct conn *pool_claim_shadow(struct conn *conn, int fd)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_pool(&cleanup) != REASON_NONE) {
        pool_note_lost(REASON_CLOSED_IN_BULK);
        return NULL;
    }
    if ((conn_state(conn) != CONN_IDLE && conn_state(conn) != CONN_DRAINING) ||
        conn->fd != fd) {
        conn = NULL;
    } else {
        unlink_any(conn);
        conn_move(conn, CONN_EVICTED);
    }
    unlock_pool(&cleanup);
    return conn;
}

/* Evicts connections that have lost their fds: the map does not name them there any more. */
static void evict_lost(enum reason reason, struct evicted *evicted)
{
    struct conn *conn, *next;

    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        if (evicted->count < POOL_EVICTED_MAX && conn->fd >= 0 &&
            fdmap_get(conn->fd) != (conn_id(conn) | FDMAP_SHADOW))
            evict(conn, reason, evicted);
    }
}

bool pool_claim_lost(struct evicted *evicted)
{
    struct _pthread_cleanup_buffer cleanup;
    enum reason reason;

    if (atomic_load(&loss) == REASON_NONE || lock_pool_by(lock_try, &cleanup) != REASON_NONE)
        return false;
    reason = (enum reason)atomic_exchange(&loss, REASON_NONE);
    evict_lost(reason, evicted);
    if (evicted->count == POOL_EVICTED_MAX)
        atomic_store(&loss, (uint32_t)reason);
    release_lock();
    _pthread_cleanup_pop(&cleanup, 0);
    return true;
}

enum reason pool_before_fork(void)
{
    return inside ? REASON_REENTERED : enter_by(lock_acquire);
}

void pool_after_fork_in_parent(void)
{
    release_lock();
    catch_up_if_due();
}

void pool_after_fork_in_child(void)
{
    struct conn *conn, *next;

    endpoint_after_fork_in_child();
    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        unlink_any(conn);
        conn_move(conn, CONN_CLOSED);
    }
    atomic_store(&loss, REASON_NONE);
    atomic_store(&lock.word, 0);
    inside = false;
}
