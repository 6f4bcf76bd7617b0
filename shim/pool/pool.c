/*
 * The tables of idle connections.
 */
#include "pool/pool.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <utlist.h>

#include "conn/fdmap.h"
#include "conn/fdtable.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/unwind.h"

#define MINUTE ((msec_t)60 * 1000)

static struct lock lock;
static _Thread_local bool inside __attribute__((tls_model("initial-exec")));

static const struct config *limits;
static struct endpoint *memory_of_endpoints;
static size_t endpoint_count;
static struct endpoint *endpoints;      /* the hash table */
static struct conn *idle;               /* of all endpoints, idle or owing, latest first */
static _Atomic unsigned int idle_count; /* changed under the lock only */

static _Atomic unsigned int total_most; /* idle connections the process may keep */
static _Atomic int fd_limit;
static _Atomic msec_t limits_noted;

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

static void give_back(void)
{
    lock_give(&lock);
    inside = false;
}

static void catch_up_if_due(void)
{
    if (__builtin_expect(atomic_load(&loss) != REASON_NONE, 0) && catch_up)
        catch_up();
}

static void leave(struct _pthread_cleanup_buffer *stay)
{
    give_back();
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
        lock_give(&lock);
        reason = REASON_TORN;
    }
    inside = false;
    _pthread_cleanup_pop(stay, 0);
    return reason;
}

static enum reason enter(struct _pthread_cleanup_buffer *stay)
{
    return enter_by(lock_take, stay);
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
    void *memory = mmap(NULL, POOL_ENDPOINTS * sizeof(struct endpoint), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return false;
    limits = config;
    stats_start(config, POOL_ENDPOINTS);
    memory_of_endpoints = memory;
    pool_note_limits(0, true);
    return true;
}

void pool_note_limits(msec_t now, bool force)
{
    struct rlimit limit;
    rlim_t numbers;
    int saved = errno;

    if (!force && now - atomic_load(&limits_noted) < 1000)
        return;
    atomic_store(&limits_noted, now);
    numbers = getrlimit(RLIMIT_NOFILE, &limit) == 0 ? limit.rlim_cur : 0;
    errno = saved;
    atomic_store(&total_most, numbers / 4 < limits->max_idle_total ? (unsigned int)(numbers / 4)
                                                                   : limits->max_idle_total);
    atomic_store(&fd_limit, numbers < FDTABLE_MOST ? (int)numbers : FDTABLE_MOST);
}

bool pool_may_keep(unsigned int others)
{
    return atomic_load_explicit(&idle_count, memory_order_relaxed) + others <
           atomic_load_explicit(&total_most, memory_order_relaxed);
}

unsigned int pool_idle(void)
{
    return atomic_load_explicit(&idle_count, memory_order_relaxed);
}

int pool_fd_limit(void)
{
    return atomic_load(&fd_limit);
}

/* An endpoint that nobody uses and nothing idles at makes room for a new one. */
static struct endpoint *new_endpoint(void)
{
    struct endpoint *endpoint, *next;

    if (endpoint_count < POOL_ENDPOINTS)
        return &memory_of_endpoints[endpoint_count++];
    HASH_ITER(hh, endpoints, endpoint, next)
    {
        if (endpoint->idle_count == 0 && atomic_load(&endpoint->in_use) == 0) {
            HASH_DELETE(hh, endpoints, endpoint);
            return endpoint;
        }
    }
    return NULL;
}

static struct endpoint *add_endpoint(const struct address *address, msec_t now)
{
    struct endpoint *endpoint = new_endpoint();
    bool out_of_memory = false;

    if (!endpoint)
        return NULL;
    memset(endpoint, 0, sizeof(*endpoint));
    endpoint->stats = &endpoint->early;
    endpoint->address = *address;
    address_text(address, endpoint->text);
    endpoint->peak_since = now;
    HASH_ADD_KEYPTR(hh, endpoints, &endpoint->address, sizeof(*address), endpoint);
    if (!out_of_memory)
        return endpoint;
    /* One that had been another's before stays unused; it need not be the last. */
    if (endpoint == &memory_of_endpoints[endpoint_count - 1])
        endpoint_count--;
    return NULL;
}

static struct endpoint *find_endpoint(const struct address *address, msec_t now)
{
    struct endpoint *endpoint;

    HASH_FIND(hh, endpoints, address, sizeof(*address), endpoint);
    return endpoint ? endpoint : add_endpoint(address, now);
}

static void note_peak(struct endpoint *endpoint, msec_t now)
{
    unsigned int in_use = atomic_load(&endpoint->in_use);

    if (now - endpoint->peak_since >= MINUTE) {
        endpoint->last_peak = now - endpoint->peak_since < 2 * MINUTE ? endpoint->peak : 0;
        endpoint->peak = 0;
        endpoint->peak_since = now;
    }
    if (in_use > endpoint->peak)
        endpoint->peak = in_use;
}

/* As many as were in use at once lately are worth keeping: a smaller cap would close and reopen
 * the difference at every wave. */
static unsigned int endpoint_most(const struct endpoint *endpoint)
{
    unsigned int most = limits->max_idle;

    if (endpoint->peak > most)
        most = endpoint->peak;
    if (endpoint->last_peak > most)
        most = endpoint->last_peak;
    return most;
}

enum reason pool_enlist(struct conn *conn, const struct address *address, msec_t now)
{
    struct endpoint *endpoint;
    struct _pthread_cleanup_buffer stay;
    enum reason reason = enter(&stay);

    if (reason != REASON_NONE)
        return reason;
    endpoint = find_endpoint(address, now);
    if (endpoint) {
        conn->endpoint = endpoint;
        conn_move(conn, CONN_IN_USE);
        note_peak(endpoint, now);
    }
    leave(&stay);
    return endpoint ? REASON_NONE : REASON_NO_ROOM;
}

static struct conn **list_of(struct endpoint *endpoint, enum conn_state state)
{
    return state == CONN_OWING ? &endpoint->owing : &endpoint->idle;
}

static void note_idle(struct endpoint *endpoint)
{
    stats_set(&endpoint->stats->idle, endpoint->idle_count);
}

static void count_idle(int more)
{
    atomic_store_explicit(&idle_count,
                          atomic_load_explicit(&idle_count, memory_order_relaxed) +
                              (unsigned int)more,
                          memory_order_relaxed);
}

static void link_idle(struct conn *conn, enum conn_state to)
{
    struct conn **list = list_of(conn->endpoint, to);

    conn_move(conn, to);
    DL_PREPEND2(*list, conn, prev, next);
    DL_PREPEND2(idle, conn, newer, older);
    conn->endpoint->idle_count++;
    count_idle(1);
    note_idle(conn->endpoint);
}

static void unlink_idle(struct conn *conn)
{
    struct conn **list = list_of(conn->endpoint, conn_state(conn));

    DL_DELETE2(*list, conn, prev, next);
    DL_DELETE2(idle, conn, newer, older);
    conn->endpoint->idle_count--;
    count_idle(-1);
    note_idle(conn->endpoint);
}

static void take_out(struct conn *conn, enum reason reason, struct victims *victims)
{
    unlink_idle(conn);
    conn_move(conn, CONN_DOOMED);
    victims->conn[victims->count] = conn;
    victims->reason[victims->count++] = reason;
}

/* A few at a time, so that no call pays for a crowd. The oldest stands behind the newest. */
static void take_out_expired(msec_t now, struct victims *victims)
{
    while (idle && victims->count < POOL_VICTIMS / 2 &&
           now - idle->newer->idle_since > limits->idle_timeout)
        take_out(idle->newer, REASON_IDLE_TIMEOUT, victims);
}

static bool can_serve(const struct conn *found, const struct conn *conn,
                      enum wire_protocol protocol)
{
    return found->domain == conn->domain && options_fit(&found->options, &conn->options) &&
           (protocol == WIRE_UNDECIDED || wire_protocol(&found->wire) == protocol);
}

static void lend(struct conn *found)
{
    if (!found)
        return;
    unlink_idle(found);
    conn_move(found, CONN_LENDING);
}

struct conn *pool_take(const struct conn *conn, enum wire_protocol protocol, msec_t now,
                       struct victims *victims)
{
    struct conn *found;
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return NULL;
    take_out_expired(now, victims);
    DL_FOREACH2(conn->endpoint->idle, found, next)
    {
        if (now - found->idle_since <= limits->idle_timeout && can_serve(found, conn, protocol))
            break;
    }
    lend(found);
    leave(&stay);
    return found;
}

/* The oldest stands behind the newest. */
struct conn *pool_take_owing(const struct conn *conn, enum wire_protocol protocol, msec_t now,
                             struct victims *victims)
{
    struct conn *found = NULL, *at, *next;
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return NULL;
    DL_FOREACH_SAFE2(conn->endpoint->owing, at, next, next)
    {
        if (now - at->idle_since > POOL_OWING_TIMEOUT) {
            if (victims->count < POOL_VICTIMS)
                take_out(at, REASON_LATE, victims);
        } else if (can_serve(at, conn, protocol)) {
            found = at;
        }
    }
    lend(found);
    leave(&stay);
    return found;
}

bool pool_put_back(struct conn *conn)
{
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return false;
    link_idle(conn, CONN_OWING);
    leave(&stay);
    return true;
}

/* What is not proven yet never takes the place of what is. */
static bool make_room_at(const struct endpoint *endpoint, enum conn_state to,
                         struct victims *victims)
{
    if (endpoint->idle_count < endpoint_most(endpoint))
        return true;
    if (endpoint->owing)
        take_out(endpoint->owing->prev, REASON_ENDPOINT_FULL, victims);
    else if (to == CONN_IDLE)
        take_out(endpoint->idle->prev, REASON_ENDPOINT_FULL, victims);
    else
        return false;
    return true;
}

static bool make_room(struct victims *victims)
{
    while (idle_count >= atomic_load(&total_most) && idle && victims->count < POOL_VICTIMS)
        take_out(idle->newer, REASON_POOL_FULL, victims);
    return idle_count < atomic_load(&total_most);
}

enum reason pool_put(struct conn *conn, enum conn_state to, msec_t now, struct victims *victims)
{
    struct endpoint *endpoint = conn->endpoint;
    struct _pthread_cleanup_buffer stay;
    enum reason reason = enter(&stay);

    if (reason != REASON_NONE)
        return reason;
    take_out_expired(now, victims);
    note_peak(endpoint, now);
    /* The lock is held over a fork, so that this comparison and the child's view of the lists
     * agree. */
    if (conn->children != atomic_load(&process_children))
        reason = REASON_FORKED;
    else if (!make_room_at(endpoint, to, victims))
        reason = REASON_ENDPOINT_FULL;
    else if (!make_room(victims))
        reason = REASON_POOL_FULL;
    if (reason == REASON_NONE) {
        conn->idle_since = now;
        link_idle(conn, to);
    }
    leave(&stay);
    return reason;
}

bool pool_flush(enum reason reason, struct victims *victims)
{
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE)
        return false;
    while (idle && victims->count < POOL_VICTIMS)
        take_out(idle->newer, reason, victims);
    leave(&stay);
    return true;
}

struct conn *pool_take_private(struct conn *conn, int fd)
{
    struct _pthread_cleanup_buffer stay;

    if (enter(&stay) != REASON_NONE) {
        pool_note_lost(REASON_SWEPT);
        return NULL;
    }
    if ((conn_state(conn) != CONN_IDLE && conn_state(conn) != CONN_OWING) || conn->fd != fd) {
        conn = NULL;
    } else {
        unlink_idle(conn);
        conn_move(conn, CONN_DOOMED);
    }
    leave(&stay);
    return conn;
}

/* The map does not say any more that their fds are theirs. */
static void take_out_lost(enum reason reason, struct victims *victims)
{
    struct conn *conn, *next;

    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        if (victims->count < POOL_VICTIMS && conn->fd >= 0 &&
            fdmap_get(conn->fd) != (conn_slot(conn) | FDMAP_PRIVATE))
            take_out(conn, reason, victims);
    }
}

bool pool_take_lost(struct victims *victims)
{
    struct _pthread_cleanup_buffer stay;
    enum reason reason;

    if (atomic_load(&loss) == REASON_NONE || enter_by(lock_try, &stay) != REASON_NONE)
        return false;
    reason = (enum reason)atomic_exchange(&loss, REASON_NONE);
    take_out_lost(reason, victims);
    if (victims->count == POOL_VICTIMS)
        atomic_store(&loss, (uint32_t)reason);
    give_back();
    _pthread_cleanup_pop(&stay, 0);
    return true;
}

void pool_publish_slow(struct endpoint *endpoint)
{
    size_t slot = (size_t)(endpoint - memory_of_endpoints);
    struct stats *published;

    if (!stats_begin())
        return;
    if (!atomic_exchange(&endpoint->published, true)) {
        published = stats_publish(slot, endpoint->text);
        if (published) {
            atomic_store(&endpoint->stats, published);
            stats_move(published, &endpoint->early);
        }
    }
    stats_end();
}

void pool_for_each_endpoint(void (*visit)(struct endpoint *endpoint))
{
    /* A signal handler may have jumped out of add_endpoint(): that endpoint counts nothing. */
    for (size_t i = 0; i < endpoint_count; i++)
        if (memory_of_endpoints[i].stats)
            visit(&memory_of_endpoints[i]);
}

enum reason pool_before_fork(void)
{
    enum reason reason = REASON_LOCKED;

    if (inside)
        return REASON_REENTERED;
    inside = true;
    if (lock_take(&lock)) {
        if (!atomic_load(&torn))
            return REASON_NONE;
        lock_give(&lock);
        reason = REASON_TORN;
    }
    inside = false;
    return reason;
}

void pool_after_fork_in_parent(void)
{
    give_back();
    catch_up_if_due();
}

/* The child counts what it does itself, in memory of its own. */
static void count_anew(struct endpoint *endpoint)
{
    memset((void *)&endpoint->early, 0, sizeof(endpoint->early));
    endpoint->stats = &endpoint->early;
    endpoint->published = false;
    pool_note_in_use(endpoint, atomic_load(&endpoint->in_use));
}

void pool_after_fork_in_child(void)
{
    struct conn *conn, *next;

    for (size_t i = 0; i < endpoint_count; i++)
        count_anew(&memory_of_endpoints[i]);
    DL_FOREACH_SAFE2(idle, conn, next, older)
    {
        unlink_idle(conn);
        conn_move(conn, CONN_CLOSED);
    }
    atomic_store(&loss, REASON_NONE);
    atomic_store(&lock.word, 0);
    inside = false;
}
