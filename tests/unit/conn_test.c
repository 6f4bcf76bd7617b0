/*
 * Records of connections: their states, the calls in flight on them, and the list of free
 * records.
 */
#include "conn/conn.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <sys/socket.h>

#include <criterion/criterion.h>

#include "conn/fdmap.h"
#include "conn/endpoint.h"

static void start(void)
{
    cr_assert(conn_start());
}

TestSuite(conn, .init = start);

static struct conn *mapped(int fd)
{
    struct conn *conn = conn_new(fd, AF_INET);

    cr_assert(conn);
    fdmap_exchange(fd, conn_id(conn));
    return conn;
}

Test(conn, records_are_used_again)
{
    struct conn *first = conn_new(3, AF_INET);

    conn_refuse(first, REASON_STDIO);
    conn_move(first, CONN_CLOSED);
    cr_expect(conn_new(4, AF_INET) == first);
    cr_expect(conn_refusal(first) == REASON_NONE && conn_state(first) == CONN_FRESH);
    cr_expect(conn_of_word(conn_id(first)) == first);
    cr_expect(conn_of_word(FDMAP_NONE) == NULL);
    cr_expect(conn_of_word(FDMAP_EPOLL | 1) == NULL);
}

/* Nothing of a connection is left in the record when the next one gets it. */
Test(conn, records_begin_afresh)
{
    struct endpoint endpoint = {.stats = &endpoint.early};
    struct conn *conn = conn_new(3, AF_INET);

    conn->endpoint = &endpoint;
    conn->options.given = 1;
    conn->epoll_regs.count = 2;
    conn->sent = 3;
    conn->received = 4;
    wire_sent(&conn->wire, "get a", 5);
    cr_assert(conn_trylock(conn));
    conn_move(conn, CONN_IN_USE);
    conn_move(conn, CONN_CLOSED);
    cr_assert(conn_new(5, AF_INET6) == conn);
    cr_expect(conn->fd == 5 && conn->domain == AF_INET6 && conn->endpoint == NULL);
    cr_expect(conn->options.given == 0 && conn->epoll_regs.count == 0);
    cr_expect(conn->sent == 0 && conn->received == 0);
    cr_expect(wire_refusal(&conn->wire) == REASON_UNUSED);
    cr_expect(conn_trylock(conn), "no thread holds it");
}

Test(conn, records_run_out)
{
    struct conn *last = NULL;

    for (int i = 0; i < CONN_MAX; i++) {
        last = conn_new(3, AF_INET);
        cr_assert(last);
    }
    cr_expect(conn_new(3, AF_INET) == NULL);
    conn_move(last, CONN_CLOSED);
    cr_expect(conn_new(3, AF_INET) == last);
}

Test(conn, a_call_under_way_keeps_the_record)
{
    struct conn *conn = mapped(3);

    cr_assert(conn_get(3, CONN_CALL_RECEIVE) == conn);
    cr_expect(conn_calls_in_flight(conn));
    fdmap_exchange(3, FDMAP_NONE);
    conn_move(conn, CONN_CLOSED);
    cr_expect(conn_new(4, AF_INET) != conn);
    conn_put(conn, CONN_CALL_RECEIVE);
    cr_expect(conn_new(5, AF_INET) == conn);
}

Test(conn, calls_are_counted)
{
    struct conn *conn = mapped(3);
    uint64_t begun = conn_calls_begun(conn);

    cr_expect(!conn_calls_in_flight(conn));
    conn_get(3, CONN_CALL_SEND);
    conn_put(conn, CONN_CALL_SEND);
    cr_expect(!conn_calls_in_flight(conn) && conn_calls_begun(conn) == begun + 1);
    cr_expect(conn_get(4, CONN_CALL_SEND) == NULL);
    cr_expect(conn_get(-1, CONN_CALL_SEND) == NULL);
    cr_expect(conn_get(INT_MAX, CONN_CALL_SEND) == NULL);
    fdmap_exchange(7, conn_id(conn) | FDMAP_SHADOW);
    cr_expect(conn_get(7, CONN_CALL_SEND) == NULL);
}

Test(conn, two_of_a_kind_are_too_many)
{
    struct conn *conn = mapped(3);

    conn_get(3, CONN_CALL_SEND);
    conn_get(3, CONN_CALL_RECEIVE);
    conn_get(3, CONN_CALL_OTHER);
    conn_get(3, CONN_CALL_OTHER);
    cr_expect(conn_refusal(conn) == REASON_NONE);
    conn_get(3, CONN_CALL_RECEIVE);
    cr_expect(conn_refusal(conn) == REASON_CONCURRENT);
}

Test(conn, the_first_reason_stays)
{
    struct conn *conn = conn_new(3, AF_INET);

    conn_refuse(conn, REASON_STDIO);
    conn_refuse(conn, REASON_PASSED);
    cr_expect(conn_refusal(conn) == REASON_STDIO);
}

Test(conn, hold_never_waits)
{
    struct conn *conn = conn_new(3, AF_INET);

    cr_expect(conn_trylock(conn));
    cr_expect(!conn_trylock(conn) && conn_refusal(conn) == REASON_CONCURRENT);
    conn_unlock(conn);
    cr_expect(conn_trylock(conn));
}

/* Opens, uses and closes records of a few fds, the same as other threads. */
static void *hammer(void *argument)
{
    unsigned int seed = (unsigned int)(size_t)argument;

    for (int i = 0; i < 20000; i++) {
        int fd = rand_r(&seed) % 4;
        struct conn *conn = conn_get(fd, CONN_CALL_SEND);
        uint32_t word = fdmap_get(fd);

        if (conn)
            conn_put(conn, CONN_CALL_SEND);
        if (word == FDMAP_NONE) {
            conn = conn_new(fd, AF_INET);
            if (!fdmap_replace(fd, FDMAP_NONE, conn_id(conn)))
                conn_move(conn, CONN_CLOSED);
        } else if (fdmap_replace(fd, word, FDMAP_NONE)) {
            conn_move(conn_of_word(word), CONN_CLOSED);
        }
    }
    return NULL;
}

Test(conn, four_threads_lose_no_record)
{
    pthread_t threads[4];
    int n = 0;

    for (size_t i = 0; i < 4; i++)
        cr_assert(pthread_create(&threads[i], NULL, hammer, (void *)(i + 1)) == 0);
    for (size_t i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    for (int fd = 0; fd < 4; fd++) {
        uint32_t word = fdmap_exchange(fd, FDMAP_NONE);

        if (word != FDMAP_NONE)
            conn_move(conn_of_word(word), CONN_CLOSED);
    }
    while (conn_new(3, AF_INET))
        n++;
    cr_expect(n == CONN_MAX, "%d of %d are left", n, CONN_MAX);
}

static int visited;

static void visit(struct conn *conn, int argument)
{
    cr_expect(conn_state(conn) == CONN_FRESH || conn_state(conn) == CONN_IN_USE);
    visited += argument;
}

/* A walk visits what the application has open: no idle connections, no free records. */
Test(conn, walk)
{
    struct endpoint endpoint = {.stats = &endpoint.early};
    struct conn *fresh = conn_new(3, AF_INET), *used = conn_new(4, AF_INET);
    struct conn *idle = conn_new(5, AF_INET), *gone = conn_new(6, AF_INET);

    used->endpoint = idle->endpoint = &endpoint;
    conn_move(used, CONN_IN_USE);
    conn_move(idle, CONN_IDLE);
    conn_move(gone, CONN_CLOSED);
    conn_for_each_open(visit, 10);
    cr_expect(visited == 20);
    conn_move(fresh, CONN_CLOSED);
    conn_move(used, CONN_CLOSED);
    conn_for_each_open(visit, 10);
    cr_expect(visited == 20);
}

/* Every move between states counts once, whatever state lies between. */
Test(conn, states_in_use)
{
    static const struct {
        enum conn_state state;
        uint32_t in_use;
    } way[] = {{CONN_IN_USE, 1},       {CONN_CHECKING_IN, 1}, {CONN_IDLE, 0},
               {CONN_CHECKING_OUT, 1}, {CONN_IN_USE, 1},      {CONN_CHECKING_IN, 1},
               {CONN_IDLE, 0},         {CONN_EVICTED, 0},     {CONN_CLOSED, 0}};
    struct endpoint endpoint = {.stats = &endpoint.early};
    struct conn *conn = conn_new(3, AF_INET);

    conn->endpoint = &endpoint;
    for (size_t i = 0; i < sizeof(way) / sizeof(way[0]); i++) {
        conn_move(conn, way[i].state);
        cr_expect(endpoint.in_use == way[i].in_use, "step %zu: %u", i, endpoint.in_use);
    }
}

/* The close that marks the word first lets calls in flight find their connection. */
Test(conn, closing_is_still_found)
{
    struct conn *conn = mapped(3);

    cr_assert(fdmap_replace(3, conn_id(conn), conn_id(conn) | FDMAP_CLOSING));
    cr_expect(conn_get(3, CONN_CALL_SEND) == conn);
    conn_put(conn, CONN_CALL_SEND);
}

/* The count of calls begun is in the top bits of the word. When it overflows it must not change
 * the other bits. */
Test(conn, calls_begun_may_run_over)
{
    struct conn *conn = mapped(3);

    atomic_store(&conn->inflight, ~UINT64_C(0) << 40);
    cr_expect(!conn_calls_in_flight(conn));
    cr_assert(conn_get(3, CONN_CALL_OTHER) == conn);
    cr_expect(conn_calls_in_flight(conn) && conn_calls_begun(conn) == 0);
    conn_put(conn, CONN_CALL_OTHER);
    cr_expect(!conn_calls_in_flight(conn) && conn_refusal(conn) == REASON_NONE);
}

Test(conn, calls_of_different_kinds_are_apart)
{
    struct conn *conn = mapped(3);

    conn_get(3, CONN_CALL_OTHER);
    conn_get(3, CONN_CALL_RECEIVE);
    conn_get(3, CONN_CALL_SEND);
    conn_put(conn, CONN_CALL_RECEIVE);
    cr_expect(conn_calls_in_flight(conn));
    conn_get(3, CONN_CALL_RECEIVE);
    cr_expect(conn_refusal(conn) == REASON_NONE);
    conn_put(conn, CONN_CALL_SEND);
    conn_put(conn, CONN_CALL_RECEIVE);
    conn_put(conn, CONN_CALL_OTHER);
    cr_expect(!conn_calls_in_flight(conn) && conn_calls_begun(conn) == 4);
}

static int guarded;

static void *hold_and_count(void *argument)
{
    struct conn *conn = argument;
    size_t held = 0;

    for (int i = 0; i < 20000; i++) {
        if (!conn_trylock(conn))
            continue;
        guarded++;
        held++;
        conn_unlock(conn);
    }
    return (void *)held;
}

/* The guarded variable is an ordinary one, so a lost count or ThreadSanitizer shows a broken
 * lock. */
Test(conn, hold_excludes_other_threads)
{
    struct conn *conn = conn_new(3, AF_INET);
    pthread_t threads[4];
    size_t all = 0;

    for (size_t i = 0; i < 4; i++)
        cr_assert(pthread_create(&threads[i], NULL, hold_and_count, conn) == 0);
    for (size_t i = 0; i < 4; i++) {
        void *held;

        pthread_join(threads[i], &held);
        all += (size_t)held;
    }
    cr_expect((size_t)guarded == all, "%d of %zu", guarded, all);
}

/* One thread opens and closes fd 3 all the time; the others make calls on it. */
static atomic_bool stop_calling;

static void *call(void *argument)
{
    size_t *calls = argument;

    while (!atomic_load(&stop_calling)) {
        struct conn *conn = conn_get(3, CONN_CALL_OTHER);

        if (conn) {
            if (conn->fd != 3 || conn_state(conn) == CONN_FREE)
                return NULL;
            (*calls)++;
            conn_put(conn, CONN_CALL_OTHER);
        }
    }
    return argument;
}

/* During a call the record stays the same, though its connection is closed meanwhile. In the
 * end no record is lost. */
Test(conn, calls_race_with_close)
{
    pthread_t threads[2];
    size_t calls[2] = {0};
    int n = 0;

    for (size_t i = 0; i < 2; i++)
        cr_assert(pthread_create(&threads[i], NULL, call, &calls[i]) == 0);
    for (int i = 0; i < 50000; i++) {
        struct conn *conn = mapped(3);

        fdmap_exchange(3, FDMAP_NONE);
        conn_move(conn, CONN_CLOSED);
    }
    atomic_store(&stop_calling, true);
    for (size_t i = 0; i < 2; i++) {
        void *result;

        pthread_join(threads[i], &result);
        cr_expect(result, "a record changed under a call");
    }
    while (conn_new(3, AF_INET))
        n++;
    cr_expect(n == CONN_MAX, "%d of %d are left", n, CONN_MAX);
}

/* Changes the guarded variable, as the walk for a closed epoll set does. */
static void change(struct conn *conn, int argument)
{
    (void)argument;
    if (!conn_trylock(conn))
        return;
    if (conn->epoll_regs.count > 0)
        conn->epoll_regs.count--;
    if (conn_state(conn) == CONN_FREE)
        visited++;
    conn_unlock(conn);
}

static void *walk(void *argument)
{
    while (!atomic_load(&stop_calling))
        conn_for_each_open(change, 0);
    return argument;
}

/* A record also stays the same during a walk. */
Test(conn, walk_races_with_close)
{
    pthread_t thread;

    cr_assert(pthread_create(&thread, NULL, walk, NULL) == 0);
    for (int i = 0; i < 100000; i++) {
        struct conn *conn = conn_new(3, AF_INET);

        if (conn_trylock(conn)) {
            conn->epoll_regs.count = 1;
            conn_unlock(conn);
        }
        conn_move(conn, CONN_CLOSED);
    }
    atomic_store(&stop_calling, true);
    pthread_join(thread, NULL);
    cr_expect(visited == 0, "%d times a free record was visited", visited);
}
