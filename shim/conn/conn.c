/*
 * Records of connections: their memory, their states, the calls under way on them.
 */
#include "conn/conn.h"

#include <string.h>
#include <sys/mman.h>

#include "conn/fdmap.h"
#include "conn/endpoint.h"

/*
 * The word `traffic`: calls under way by kind, then the count of all calls ever begun. One
 * addition changes both. It is never reset, as a thread that came late may still be subtracting
 * its call.
 */
static const struct {
    unsigned int shift;
    uint64_t mask;
} calls[] = {
    [CONN_CALL_SEND] = {0, 0x3fff},
    [CONN_CALL_RECEIVE] = {14, 0x3fff},
    [CONN_CALL_OTHER] = {28, 0xfff},
};
#define BEGUN_SHIFT 40
#define UNDER_WAY   ((UINT64_C(1) << BEGUN_SHIFT) - 1)

atomic_bool conn_ever_used;

struct conn *conn_records;
static _Atomic uint32_t touched; /* records that were ever used */

/* The free list: index + 1 of its first record, and a count of changes above it, so that a
 * record that was taken and given back meanwhile is not mistaken for an unchanged list. */
static _Atomic uint64_t free_list;

bool conn_start(void)
{
    void *memory = mmap(NULL, CONN_MAX * sizeof(struct conn), PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    if (memory == MAP_FAILED)
        return false;
    conn_records = memory;
    return true;
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

    while (n < CONN_MAX) {
        if (atomic_compare_exchange_weak(&touched, &n, n + 1)) {
            conn_records[n].id = n + 1;
            return &conn_records[n];
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
    conn->sent = 0;
    conn->received = 0;
    conn->epoll_regs.count = 0;
    conn->fence = FENCE_NONE;
    conn->drained = 0;
    wire_init(&conn->wire);
    conn_renew(conn, fd);
    return conn;
}

void conn_renew(struct conn *conn, int fd)
{
    /* Nobody else can have it before it is in the map. */
    atomic_store_explicit(&conn->refusal, REASON_NONE, memory_order_relaxed);
    atomic_store_explicit(&conn->locked, false, memory_order_relaxed);
    atomic_store_explicit(&conn->has_sent, false, memory_order_relaxed);
    conn->fd = fd;
    conn->options.given = 0;
    conn->options.forced_nodelay = false;
    conn->options.bound = false;
    conn->endpoint = NULL;
    conn->rtt_pending = false;
    conn_set_answer(conn, CONN_ANSWER_KERNEL);
    conn_move(conn, CONN_FRESH);
}

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

bool conn_claim_last(struct conn *conn)
{
    uint32_t last = 1;

    return atomic_compare_exchange_strong(&conn->fds, &last, 0);
}

/* 1 for a state in which the program has the connection, or is about to get or give it. */
static unsigned int counts_as_use(enum conn_state state)
{
    const unsigned int all =
        1u << CONN_IN_USE | 1u << CONN_CHECKING_IN | 1u << CONN_CHECKING_OUT;

    return all >> state & 1;
}

/* How often the record was closed stands in the state: a thread that was slow to free the
 * record of one connection must not free that of the next, which may be CLOSED as well and in
 * use. */
static uint32_t closed_state(struct conn *conn)
{
    return ++conn->closed * (CONN_STATE_MASK + 1) | CONN_CLOSED;
}

/* The thread that finds the record closed and without calls, closer or last caller, frees it.
 * The state is read before the calls are looked at; see concurrency.md, 2. */
static void free_if_unused(struct conn *conn)
{
    uint32_t closed = atomic_load(&conn->state);

    if ((closed & CONN_STATE_MASK) == CONN_CLOSED && !conn_calls_in_flight(conn) &&
        atomic_compare_exchange_strong(&conn->state, &closed, CONN_FREE))
        push_free(conn);
}

static void note_use(struct conn *conn, uint32_t more)
{
    struct endpoint *endpoint = conn->endpoint;

    atomic_store_explicit(&conn_ever_used, true, memory_order_relaxed);
    endpoint_note_in_use(
        endpoint,
        atomic_fetch_add_explicit(&endpoint->in_use, more, memory_order_relaxed) + more);
}

/* TO is a constant wherever this is called: inlined by the linker, little of it is left. */
__attribute__((always_inline)) inline void conn_move(struct conn *conn, enum conn_state to)
{
    uint32_t more = counts_as_use(to) - counts_as_use(conn_state(conn));

    if (to == CONN_FRESH || to == CONN_IN_USE)
        atomic_store_explicit(&conn->fds, 1, memory_order_relaxed);
    if (more != 0)
        note_use(conn, more);
    /* Before a look at the calls (CLOSED) or at the map (the other two); see concurrency.md, 2
     * and 3. */
    if (to == CONN_CLOSED) {
        atomic_store(&conn->state, closed_state(conn));
        free_if_unused(conn);
    } else if (to == CONN_CHECKING_IN || to == CONN_CHECKING_OUT) {
        atomic_store(&conn->state, (uint32_t)to);
    } else {
        atomic_store_explicit(&conn->state, (uint32_t)to, memory_order_release);
    }
}

/* Returns what was under way before. */
static uint64_t begin_call(struct conn *conn, enum conn_call call)
{
    return atomic_fetch_add(&conn->inflight,
                            (UINT64_C(1) << BEGUN_SHIFT) | (UINT64_C(1) << calls[call].shift));
}

struct conn *conn_get_at(int fd, uint32_t word, enum conn_call call)
{
    struct conn *conn = conn_of_word(word);
    uint64_t before;

    if (!conn || word & FDMAP_SHADOW)
        return NULL;
    before = begin_call(conn, call);
    if (!fdmap_holds(fd, word)) {
        conn_put(conn, call);
        return NULL;
    }
    if (call != CONN_CALL_OTHER && ((before >> calls[call].shift) & calls[call].mask) != 0)
        conn_refuse(conn, REASON_CONCURRENT);
    return conn;
}

void conn_put(struct conn *conn, enum conn_call call)
{
    atomic_fetch_sub(&conn->inflight, UINT64_C(1) << calls[call].shift);
    if (conn_state(conn) == CONN_CLOSED)
        free_if_unused(conn);
}

uint64_t conn_calls_begun(const struct conn *conn)
{
    return atomic_load(&conn->inflight) >> BEGUN_SHIFT;
}

bool conn_calls_in_flight(const struct conn *conn)
{
    return (atomic_load(&conn->inflight) & UNDER_WAY) != 0;
}

bool conn_is_only_call(const struct conn *conn)
{
    return (atomic_load(&conn->inflight) & UNDER_WAY) == UINT64_C(1)
                                                             << calls[CONN_CALL_OTHER].shift;
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

static bool program_has(const struct conn *conn)
{
    enum conn_state state = conn_state(conn);

    return state == CONN_FRESH || state == CONN_IN_USE;
}

/* A call of the walk's own keeps the record from becoming another connection's meanwhile. */
void conn_for_each_open(void (*visit)(struct conn *conn, int argument), int argument)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        struct conn *conn = &conn_records[i];

        if (!program_has(conn))
            continue;
        begin_call(conn, CONN_CALL_OTHER);
        if (program_has(conn))
            visit(conn, argument);
        conn_put(conn, CONN_CALL_OTHER);
    }
}

bool conn_any_silent(void)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        if (conn_state(&conn_records[i]) == CONN_IN_USE &&
            !atomic_load(&conn_records[i].has_sent))
            return true;
    }
    return false;
}

bool conn_others_in_transit(const struct conn *conn)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        enum conn_state state = conn_state(&conn_records[i]);

        if (&conn_records[i] != conn &&
            (state == CONN_CHECKING_IN || state == CONN_CHECKING_OUT))
            return true;
    }
    return false;
}

void conn_forget_other_threads(void)
{
    uint32_t n = atomic_load(&touched);

    for (uint32_t i = 0; i < n; i++) {
        atomic_store(&conn_records[i].inflight, 0);
        atomic_store(&conn_records[i].locked, false);
        free_if_unused(&conn_records[i]);
    }
}
