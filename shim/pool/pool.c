/*
 * The tables of idle connections.
 */
#include "pool/pool.h"

#include <utlist.h>

#include "conn/fdmap.h"
#include "conn/limits.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/unwind.h"
#include "stats/stats.h"

static struct lock lock;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

static const struct config *settings;
static struct conn *idle; /* of all endpoints, idle or owing, latest first */

/* A signal handler jumped out of the lock: the tables may be half changed, for ever. */
static atomic_bool torn;

/* Why idle connections have no fd any more and are still in the lists, as the lock was another
 * thread's; REASON_NONE when there are none. Set before the lock is asked for once more, and
 * looked at after it was given back, so that one of the two threads takes them out. */
static _Atomic uint32_t loss;
static void (*catch_up)(void);

static void abandon(void *unused)
{
    (void)unused;
    if (lock_is_mine(&lock))
        atomic_store(&torn, true);
    lock_abandon(&lock);
    inside = false;
}

static void release_lock(void)
{
    lock_release(&lock);
    inside = false;
}

static void catch_up_if_due(void)
{
    if (__builtin_expect(atomic_load(&loss) != REASON_NONE, 0) && catch_up)
        catch_up();
}

static void leave(struct _pthread_cleanup_buffer *stay)
{
    release_lock();
    _pthread_cleanup_pop(stay, 0);
    catch_up_if_due();
}

/* To be ended by leave() unless it gives a reason why not. */
static inline enum reason enter_by(bool (*take)(struct lock *lock),
                                   struct _pthread_cleanup_buffer *stay)
{
    enum reason reason = REASON_LOCKED;

    if (inside)
        return REASON_REENTERED;
    _pthread_cleanup_push(stay, abandon, NULL);
    inside = true;
    if (take(&lock)) {
        if (!atomic_load_explicit(&torn, memory_order_relaxed))
            return REASON_NONE;
        lock_release(&lock);
        reason = REASON_POOL_UNUSABLE;
    }
    inside = false;
    _pthread_cleanup_pop(stay, 0);
    return reason;
}

static enum reason enter(struct _pthread_cleanup_buffer *stay)
{
    return enter_by(lock_acquire, stay);
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
    stats_start(config, POOL_ENDPOINTS);
    limits_start(config);
    return true;
}

bool pool_is_dry_run(void)
{
    return settings->dry_run;
}

enum reason pool_bind_endpoint(struct conn *conn, const struct address *address, msec_t now)
{
    struct endpoint *endpoint;
    struct _pthread_cleanup_buffer stay;
    enum reason reason = enter(&stay);

    if (reason != REASON_NONE)
        return reason;
    endpoint = endpoint_find(address, now);
    if (endpoint) {
        conn->endpoint = endpoint;
        conn_move(conn, CONN_IN_USE);
        endpoint_note_peak(endpoint, now);
    }
    leave(&stay);
    return endpoint ? REASON_NONE : REASON_NO_ROOM;
}

static struct conn **list_of(struct endpoint *endpoint, enum conn_state state)
{
    return state == CONN_DRAINING ? &endpoint->draining : &endpoint->idle;
}

static void link_idle(struct conn *conn, enum conn_state to)
{
    struct conn **list = list_of(conn->endpoint, to);

    conn_move(conn, to);
    DL_PREPEND2(*list, conn, prev, next);
    DL_PREPEND2(idle, conn, newer, older);
    conn->endpoint->idle_count++;
    limits_count_idle(1);
    endpoint_note_idle(conn->endpoint);
}

static void unlink_idle(struct conn *conn)
{
    struct conn **list = list_of(conn->endpoint, conn_state(conn));

    DL_DELETE2(*list, conn, prev, next);
    DL_DELETE2(idle, conn, newer, older);
    conn->endpoint->idle_count--;
    limits_count_idle(-1);
    endpoint_note_idle(conn->endpoint);
}

static void take_out(struct conn *conn, enum reason reason, struct evicted *evicted)
{
    unlink_idle(conn);
    conn_move(conn, CONN_EVICTED);
    evicted->conn[evicted->count] = conn;
    evicted->reason[evicted->count++] = reason;
}

/* A few at a time, so that no call pays for a crowd. The oldest stands behind the newest. */
static void take_out_expired(msec_t now, struct evicted *evicted)
{
    while (idle && evicted->count < POOL_EVICTED_MAX / 2 &&
           now - idle->newer->idle_since > settings->idle_timeout)
        take_out(idle->newer, REASON_IDLE_TIMEOUT, evicted);
}

static bool can_serve(const struct conn *found, const struct conn *conn,
                      enum wire_protocol protocol)
{
    return found->domain == conn->domain && sockopts_fit(&found->options, &conn->options) &&
           (protocol == WIRE_UNDECIDED || wire_protocol(&found->wire) == protocol);
}

static void lend(struct conn *found)
{
    if (!found)
        return;
    unlink_idle(found);
    conn_move(found, CONN_CHECKING_OUT);
}

struct conn *pool_check_out(const struct conn *conn, enum wire_protocol protocol, msec_t now,
                            struct evicted *evicted)
{
    struct conn *found;
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return NULL;
    take_out_expired(now, evicted);
    DL_FOREACH2(conn->endpoint->idle, found, next)
    {
        if (now - found->idle_since <= settings->idle_timeout &&
            can_serve(found, conn, protocol))
            break;
    }
    lend(found);
    leave(&stay);
    return found;
}

/* The oldest stands behind the newest. */
struct conn *pool_check_out_draining(const struct conn *conn, enum wire_protocol protocol,
                                     msec_t now, struct evicted *evicted)
{
    struct conn *found = NULL, *at, *next;
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return NULL;
    DL_FOREACH_SAFE2(conn->endpoint->draining, at, next, next)
    {
        if (now - at->idle_since > POOL_OWING_TIMEOUT) {
            if (evicted->count < POOL_EVICTED_MAX)
                take_out(at, REASON_DRAIN_TIMEOUT, evicted);
        } else if (can_serve(at, conn, protocol)) {
            found = at;
        }
    }
    lend(found);
    leave(&stay);
    return found;
}

bool pool_return(struct conn *conn)
{
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return false;
    link_idle(conn, CONN_DRAINING);
    leave(&stay);
    return true;
}

/* What is not proven yet never takes the place of what is. */
static bool make_room_at(const struct endpoint *endpoint, enum conn_state to,
                         struct evicted *evicted)
{
    if (endpoint->idle_count < endpoint_most(endpoint, settings->max_idle))
        return true;
    if (endpoint->draining)
        take_out(endpoint->draining->prev, REASON_ENDPOINT_FULL, evicted);
    else if (to == CONN_IDLE)
        take_out(endpoint->idle->prev, REASON_ENDPOINT_FULL, evicted);
    else
        return false;
    return true;
}

static bool make_room(struct evicted *evicted)
{
    while (limits_idle() >= limits_idle_most() && idle && evicted->count < POOL_EVICTED_MAX)
        take_out(idle->newer, REASON_POOL_FULL, evicted);
    return limits_idle() < limits_idle_most();
}

enum reason pool_check_in(struct conn *conn, enum conn_state to, msec_t now,
                          struct evicted *evicted)
{
    struct endpoint *endpoint = conn->endpoint;
    struct _pthread_cleanup_buffer stay;
    enum reason reason = enter(&stay);

    if (reason != REASON_NONE)
        return reason;
    take_out_expired(now, evicted);
    endpoint_note_peak(endpoint, now);
    /* The lock is held over a fork, so that this comparison and the child's view of the lists
     * agree. */
    if (conn->fork_epoch != atomic_load(&fork_epoch))
        reason = REASON_FORKED;
    else if (!make_room_at(endpoint, to, evicted))
        reason = REASON_ENDPOINT_FULL;
    else if (!make_room(evicted))
        reason = REASON_POOL_FULL;
    if (reason == REASON_NONE) {
        conn->idle_since = now;
        link_idle(conn, to);
    }
    leave(&stay);
    return reason;
}

bool pool_flush(enum reason reason, struct evicted *evicted)
{
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return false;
    while (idle && evicted->count < POOL_EVICTED_MAX)
        take_out(idle->newer, reason, evicted);
    leave(&stay);
    return true;
}

struct conn *pool_claim_shadow(struct conn *conn, int fd)
{
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE) {
        pool_note_lost(REASON_CLOSED_IN_BULK);
        return NULL;
    }
    if ((conn_state(conn) != CONN_IDLE && conn_state(conn) != CONN_DRAINING) ||
        conn->fd != fd) {
        conn = NULL;
    } else {
        unlink_idle(conn);
        conn_move(conn, CONN_EVICTED);
    }
    leave(&stay);
    return conn;
}

/* The map does not say any more that their fds are theirs. */
static void take_out_lost(enum reason reason, struct evicted *evicted)
{
    struct conn *conn, *next;

    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        if (evicted->count < POOL_EVICTED_MAX && conn->fd >= 0 &&
            fdmap_get(conn->fd) != (conn_id(conn) | FDMAP_SHADOW))
            take_out(conn, reason, evicted);
    }
}

bool pool_claim_lost(struct evicted *evicted)
{
    struct _pthread_cleanup_buffer stay;
    enum reason reason;

    if (atomic_load(&loss) == REASON_NONE || enter_by(lock_try, &stay) != REASON_NONE)
        return false;
    reason = (enum reason)atomic_exchange(&loss, REASON_NONE);
    take_out_lost(reason, evicted);
    if (evicted->count == POOL_EVICTED_MAX)
        atomic_store(&loss, (uint32_t)reason);
    release_lock();
    _pthread_cleanup_pop(&stay, 0);
    return true;
}

enum reason pool_before_fork(void)
{
    enum reason reason = REASON_LOCKED;

    if (inside)
        return REASON_REENTERED;
    inside = true;
    if (lock_acquire(&lock)) {
        if (!atomic_load(&torn))
            return REASON_NONE;
        lock_release(&lock);
        reason = REASON_POOL_UNUSABLE;
    }
    inside = false;
    return reason;
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
        unlink_idle(conn);
        conn_move(conn, CONN_CLOSED);
    }
    atomic_store(&loss, REASON_NONE);
    atomic_store(&lock.word, 0);
    inside = false;
}
