/*
 * The records of connections: their memory, their states, and the calls in flight on them.
 *
 * An atomic operation without an explicit order is seq_cst. What each pairs with is said beside
 * it or in shim/concurrency.md.
 */
#include "conn/conn.h"

#include <string.h>

#include "base/compiler.h"
#include "base/pages.h"
#include "conn/fdmap.h"
#include "conn/endpoint.h"
#include "stats/counters.h"

atomic_bool conn_ever_used;

static _Atomic(struct conn *) blocks[CONN_MAX / CONN_BLOCK];
LARGE _Atomic(struct conn *) conn_places[CONN_MAX];
static _Atomic uint32_t touched; /* records that were ever used */

/* The free list: the id of its first record, and above it a count of changes. The count
 * prevents ABA: without it a record that was taken and freed again between the load and the CAS
 * would look like an unchanged list. A successful CAS also releases next_free. */
static _Atomic uint64_t free_list;

/* The records of BLOCK; NULL if there is no memory. Two threads may reserve it at a time: one
 * gives its own back. */
static struct conn *reserve(uint32_t block)
{
    size_t size = CONN_BLOCK * sizeof(struct conn);
    struct conn *there = NULL, *fresh = pages_reserve(size);

    if (!fresh || atomic_compare_exchange_strong(&blocks[block], &there, fresh))
        return fresh;
    pages_return(fresh, size);
    return there;
}

/* Whether the records of BLOCK are there. The last place is written last, and each thread that
 * does not see it writes the same places. */
static bool has_block(uint32_t block)
{
    _Atomic(struct conn *) *places = &conn_places[(size_t)block * CONN_BLOCK];
    struct conn *records;

    if (atomic_load(&places[CONN_BLOCK - 1]))
        return true;
    records = atomic_load(&blocks[block]);
    if (!records)
        records = reserve(block);
    for (uint32_t i = 0; records && i < CONN_BLOCK; i++)
        atomic_store(&places[i], &records[i]);
    return records != NULL;
}

bool conn_start(void)
{
    return reserve(0) != NULL;
}

static void push_free(struct conn *conn)
{
    uint64_t head = atomic_load(&free_list);
    uint64_t changed;

    do {
        conn->next_free = (uint32_t)head;
        changed = (((head >> 32) + 1) << 32) | conn_id(conn);
    } while (!atomic_compare_exchange_weak(&free_list, &head, changed));
}

static struct conn *pop_free(void)
{
    uint64_t head = atomic_load(&free_list);
    uint64_t changed;
    struct conn *conn;

    do {
        conn = conn_of_word((uint32_t)head);
        if (!conn)
            return NULL;
        changed = (((head >> 32) + 1) << 32) | conn->next_free;
    } while (!atomic_compare_exchange_weak(&free_list, &head, changed));
    return conn;
}

static struct conn *touch_next(void)
{
    uint32_t n = atomic_load(&touched);

    while (n < CONN_MAX && has_block(n / CONN_BLOCK)) {
        if (atomic_compare_exchange_weak(&touched, &n, n + 1)) {
            conn_at(n)->id = n + 1;
            conn_at(n)->sends_left = STATS_SENDS;
            return conn_at(n);
        }
    }
    return NULL;
}

struct conn *conn_new(int fd, int domain)
{
    struct conn *conn = pop_free();

    if (!conn)
        conn = touch_next();
    if (!conn)
        return NULL;
    conn->domain = domain;
    conn->shadow_fd = -1;
    conn->given_up_by = 0;
    conn->sent = 0;
    conn->received = 0;
    conn->received_before = 0;
    conn->epoll_regs.count = 0;
    conn->fence = FENCE_NONE;
    conn->drained = 0;
    wire_init(&conn->wire);
    conn_renew(conn, fd);
    return conn;
}

INLINED void conn_renew(struct conn *conn, int fd)
{
    /* Relaxed: no other thread can have CONN before the caller puts it into the fd map. That
     * exchange releases these fields; see shim/concurrency.md, 1. */
    atomic_store_explicit(&conn->refusal, REASON_NONE, memory_order_relaxed);
    atomic_store_explicit(&conn->locked, false, memory_order_relaxed);
    atomic_store_explicit(&conn->has_sent, false, memory_order_relaxed);
    conn->fd = fd;
    conn->options.given = 0;
    conn->options.forced_nodelay = false;
    conn->options.bound = false;
    conn->options.keep_idle = 0;
    conn->endpoint = NULL;
    conn->sends_before = conn->sends;
    conn->rtt_pending = false;
    conn_set_answer(conn, CONN_ANSWER_KERNEL);
    conn_move_from(conn, CONN_SPARE, CONN_FRESH);
}

/* One atomic word decides which thread closes the last fd; see shim/concurrency.md, 4. */
bool conn_share(struct conn *conn)
{
    uint32_t fds = atomic_load(&conn->fds);

    while (fds > 0) {
        if (atomic_compare_exchange_weak(&conn->fds, &fds, fds + 1))
            return true;
    }
    return false;
}

bool conn_unshare(struct conn *conn)
{
    return atomic_fetch_sub(&conn->fds, 1) == 1;
}

INLINED bool conn_claim_last(struct conn *conn)
{
    uint32_t last = 1;

    return atomic_compare_exchange_strong(&conn->fds, &last, 0);
}

/* 1 for IN_USE and for the states between it and the pool, else 0. */
ALWAYS_INLINE unsigned int counts_as_use(enum conn_state state)
{
    const unsigned int all =
        1u << CONN_IN_USE | 1u << CONN_CHECKING_IN | 1u << CONN_CHECKING_OUT;

    return all >> state & 1;
}

/* CLOSED with a new generation above it. A thread that is slow to free the record must not free
 * it for the next connection, which may be CLOSED as well while a call still uses it: the
 * generation makes the CAS of the slow thread fail. */
static uint32_t closed_state(struct conn *conn)
{
    return ++conn->generation * (CONN_STATE_MASK + 1) | CONN_CLOSED;
}

/* The closing thread and the thread
 * of the last call both try; the CAS lets one succeed. The state is loaded before the calls;
 * see shim/concurrency.md, 2. */
void conn_free_if_unused(struct conn *conn)
{
    uint32_t closed = atomic_load(&conn->state);

    if ((closed & CONN_STATE_MASK) == CONN_CLOSED && !conn_calls_in_flight(conn) &&
        atomic_compare_exchange_strong(&conn->state, &closed, CONN_FREE))
        push_free(conn);
}

/* Adds MORE, 1 or -1, to the endpoint's connections in use. Relaxed: in_use is a gauge. */
ALWAYS_INLINE void note_use(struct conn *conn, uint32_t more)
{
    struct endpoint *endpoint = conn->endpoint;

    endpoint_note_in_use(
        endpoint,
        atomic_fetch_add_explicit(&endpoint->in_use, more, memory_order_relaxed) + more);
}

/* Every caller passes a constant for TO, and some for FROM: inlined, at link time, only their
 * branch is left. Where the connection comes from the pool or goes there, the caller counts
 * that afterwards. Relaxed: conn_ever_used is a hint. */
INLINED void conn_move_from(struct conn *conn, enum conn_state from, enum conn_state to)
{
    uint32_t more = counts_as_use(to) - counts_as_use(from);

    /* Relaxed: the store of the state, or the word in the fd map, releases it. */
    if (to == CONN_FRESH || to == CONN_IN_USE)
        atomic_store_explicit(&conn->fds, 1, memory_order_relaxed);
    if (more != 0)
        note_use(conn, more);
    if (more != 0 && (to == CONN_IN_USE || to == CONN_CLOSED)) {
        atomic_store_explicit(&conn_ever_used, true, memory_order_relaxed);
        stats_changed();
    }
    if (to == CONN_CLOSED) {
        /* Pairs with conn_put(): either the look at the calls here finds none in flight, or the
         * last conn_put() sees CLOSED; see shim/concurrency.md, 2. */
        atomic_store(&conn->state, closed_state(conn));
        conn_free_if_unused(conn);
    } else if (to == CONN_CHECKING_IN || to == CONN_CHECKING_OUT) {
        /* Pairs with conn_others_in_transit(). The caller looks at the fd map after it; see
         * shim/concurrency.md, 3. */
        atomic_store(&conn->state, (uint32_t)to);
    } else {
        /* Release: pairs with conn_state(), so the fields are visible before the state. */
        atomic_store_explicit(&conn->state, (uint32_t)to, memory_order_release);
    }
}

INLINED void conn_move(struct conn *conn, enum conn_state to)
{
    conn_move_from(conn, conn_state(conn), to);
}

/* These three loads pair with conn_begin_call() and conn_put(); see shim/concurrency.md, 2
 * and 4. */
uint64_t conn_calls_begun(const struct conn *conn)
{
    return atomic_load(&conn->inflight) >> CONN_CALLS_BEGUN;
}

bool conn_calls_in_flight(const struct conn *conn)
{
    return (atomic_load(&conn->inflight) & CONN_CALLS_IN_FLIGHT) != 0;
}

bool conn_is_only_call(const struct conn *conn)
{
    return (atomic_load(&conn->inflight) & CONN_CALLS_IN_FLIGHT) == conn_one(CONN_CALL_OTHER);
}

bool conn_finish_connecting(struct conn *conn)
{
    uint8_t connecting = CONN_ANSWER_CONNECTING;

    return atomic_compare_exchange_strong(&conn->answer, &connecting, CONN_ANSWER_CONNECTED);
}

void conn_refuse(struct conn *conn, enum reason reason)
{
    uint32_t none = REASON_NONE;

    atomic_compare_exchange_strong(&conn->refusal, &none, (uint32_t)reason);
}

/* The acquire here and the release of conn_unlock() pair with each other. */
bool conn_trylock(struct conn *conn)
{
    if (!atomic_exchange_explicit(&conn->locked, true, memory_order_acquire))
        return true;
    conn_refuse(conn, REASON_CONCURRENT);
    return false;
}

void conn_unlock(struct conn *conn)
{
    atomic_store_explicit(&conn->locked, false, memory_order_release);
}

static bool is_open(const struct conn *conn)
{
    enum conn_state state = conn_state(conn);

    return state == CONN_FRESH || state == CONN_IN_USE;
}

/* The walk begins a call on each record, so that the record cannot become another connection's
 * while VISIT has it. The state is looked at again after that; see shim/concurrency.md, 2. */
void conn_for_each_open(void (*visit)(struct conn *conn, int argument), int argument)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        struct conn *conn = conn_at(i);

        if (!is_open(conn))
            continue;
        conn_begin_call(conn, CONN_CALL_OTHER);
        if (is_open(conn))
            visit(conn, argument);
        conn_put(conn, CONN_CALL_OTHER);
    }
}

bool conn_any_silent(void)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        if (conn_state(conn_at(i)) == CONN_IN_USE && !atomic_load(&conn_at(i)->has_sent))
            return true;
    }
    return false;
}

bool conn_others_in_transit(const struct conn *conn)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        enum conn_state state = conn_state(conn_at(i));

        if (conn_at(i) != conn && (state == CONN_CHECKING_IN || state == CONN_CHECKING_OUT))
            return true;
    }
    return false;
}
