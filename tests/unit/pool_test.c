/*
 * The pool with an injected clock: order, bounds, ages, families, endpoints.
 */
#include "pool.h"

#include <pthread.h>
#include <string.h>

#include <criterion/criterion.h>

#include "process.h"

#define SECOND 1000
#define MINUTE (60 * SECOND)

static struct config config;
static struct victims victims;

static void set_up_with(unsigned int max_idle, unsigned int max_idle_total)
{
    char *environment[] = {NULL};

    config_read(&config, environment);
    config.max_idle = max_idle;
    config.max_idle_total = max_idle_total;
    config.idle_timeout = 55 * SECOND;
    cr_assert(conn_start() && pool_start(&config));
    victims.count = 0;
}

static void set_up(void)
{
    set_up_with(32, 256);
}

static struct address address_of(uint16_t port)
{
    struct address address = {.kind = ADDRESS_INET, .port = port};

    return address;
}

/* A connection in use, to PORT. */
static struct conn *connect_at(uint16_t port, msec_t now)
{
    struct address address = address_of(port);
    struct conn *conn = conn_new(3, AF_INET);

    cr_assert(conn);
    conn->children = process_children;
    cr_assert(pool_enlist(conn, &address, now) == REASON_NONE);
    return conn;
}

static void put(struct conn *conn, msec_t now)
{
    conn_move(conn, CONN_LEAVING);
    cr_assert(pool_put(conn, now, &victims) == REASON_NONE);
}

/* What a connect() at NOW would be lent; it is in use then. */
static struct conn *take(uint16_t port, msec_t now)
{
    struct conn *fresh = connect_at(port, now);
    struct conn *conn = pool_take(fresh, now, &victims);

    conn_move(fresh, CONN_CLOSED);
    if (conn)
        conn_move(conn, CONN_IN_USE);
    return conn;
}

TestSuite(pool, .init = set_up);

Test(pool, last_in_first_out)
{
    struct conn *conns[3];

    for (int i = 0; i < 3; i++)
        conns[i] = connect_at(1, 0);
    for (int i = 0; i < 3; i++)
        put(conns[i], i);
    for (int i = 2; i >= 0; i--)
        cr_expect(take(1, 10) == conns[i]);
    cr_expect(take(1, 10) == NULL);
}

Test(pool, endpoints_are_apart)
{
    struct conn *conn = connect_at(1, 0);

    put(conn, 0);
    cr_expect(take(2, 0) == NULL);
    cr_expect(take(1, 0) == conn);
}

Test(pool, families_and_fixed_options_are_apart)
{
    struct conn *conn = connect_at(1, 0);
    struct conn *fresh = connect_at(1, 0);
    int size = 4096;

    put(conn, 0);
    fresh->domain = AF_INET6;
    cr_expect(pool_take(fresh, 0, &victims) == NULL);
    fresh->domain = AF_INET;
    cr_assert(options_note(&fresh->options, false, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
    cr_expect(pool_take(fresh, 0, &victims) == NULL);
    fresh->options.given = 0;
    cr_expect(pool_take(fresh, 0, &victims) == conn);
}

Test(pool, idle_timeout)
{
    struct conn *conn = connect_at(1, 0);

    put(conn, 0);
    cr_expect(take(1, 55 * SECOND) == conn, "exactly the timeout is not longer");
    put(conn, 60 * SECOND);
    cr_expect(take(1, 60 * SECOND + 55 * SECOND + 1) == NULL);
    cr_expect(victims.count == 1 && victims.conn[0] == conn);
    cr_expect(victims.reason[0] == REASON_IDLE_TIMEOUT);
    cr_expect(conn_state(conn) == CONN_DOOMED);
}

Test(pool, expiry_takes_a_few_at_a_time)
{
    struct conn *conns[20];

    for (int i = 0; i < 20; i++)
        conns[i] = connect_at(1, 0);
    for (int i = 0; i < 20; i++)
        put(conns[i], 0);
    cr_expect(take(1, 10 * MINUTE) == NULL,
              "an expired one is not lent though it still lies there");
    cr_expect(victims.count > 0 && victims.count <= POOL_VICTIMS);
}

Test(pool, endpoint_bound, .init = NULL)
{
    struct conn *conns[3];

    set_up_with(2, 256);
    /* One at a time, so that the peak of use stays below the bound. */
    for (int i = 0; i < 3; i++) {
        conns[i] = connect_at(1, i);
        conns[i]->domain = i;
        put(conns[i], i);
    }
    cr_expect(victims.count == 1 && victims.conn[0] == conns[0]);
    cr_expect(victims.reason[0] == REASON_ENDPOINT_FULL);
}

Test(pool, total_bound, .init = NULL)
{
    set_up_with(32, 2);
    for (uint16_t port = 1; port <= 3; port++)
        put(connect_at(port, port), port);
    cr_expect(victims.count == 1 && victims.reason[0] == REASON_POOL_FULL);
    cr_expect(take(1, 4) == NULL, "the oldest of all endpoints made room");
    cr_expect(take(3, 4) != NULL);
}

static void crowd(int n, msec_t now)
{
    struct conn *conns[64];

    for (int i = 0; i < n; i++) {
        conns[i] = take(1, now);
        if (!conns[i])
            conns[i] = connect_at(1, now);
    }
    for (int i = 0; i < n; i++) {
        victims.count = 0;
        put(conns[i], now);
    }
}

Test(pool, keeps_the_peak_of_the_last_minute, .init = NULL)
{
    struct conn *conns[10];
    int n = 0;

    set_up_with(2, 256);
    config.idle_timeout = 24 * 60 * MINUTE;
    crowd(10, 0);
    for (; n < 10 && (conns[n] = take(1, 59 * SECOND)) != NULL; n++)
        ;
    cr_expect(n == 10, "%d of 10 were kept", n);
    for (int i = 0; i < n; i++)
        put(conns[i], 59 * SECOND);
    /* Minutes later, with one in use at a time, the crowd is forgotten. */
    for (int minute = 2; minute < 10; minute++) {
        struct conn *conn = take(1, minute * MINUTE);

        victims.count = 0;
        put(conn, minute * MINUTE);
    }
    for (n = 0; n < 10 && (conns[n] = take(1, 10 * MINUTE)) != NULL; n++)
        ;
    cr_expect(n < 10, "the bound never came down");
}

Test(pool, counts_what_is_in_use)
{
    struct conn *conn = connect_at(1, 0);
    struct endpoint *endpoint = conn->endpoint;

    cr_expect(endpoint->in_use == 1);
    conn_move(conn, CONN_LEAVING);
    cr_expect(endpoint->in_use == 1);
    cr_assert(pool_put(conn, 0, &victims) == REASON_NONE);
    cr_expect(endpoint->in_use == 0 && endpoint->idle_count == 1);
    cr_expect(take(1, 0) == conn);
    cr_expect(endpoint->in_use == 1 && endpoint->idle_count == 0);
    conn_move(conn, CONN_CLOSED);
    cr_expect(endpoint->in_use == 0);
}

Test(pool, a_child_made_meanwhile)
{
    struct conn *conn = connect_at(1, 0);

    conn_move(conn, CONN_LEAVING);
    process_children++;
    cr_expect(pool_put(conn, 0, &victims) == REASON_FORKED);
}

Test(pool, flush_takes_all_in_portions)
{
    struct conn *conns[20];
    int n = 0;

    for (int i = 0; i < 20; i++)
        conns[i] = connect_at(1, 0);
    for (int i = 0; i < 20; i++)
        put(conns[i], 0);
    do {
        victims.count = 0;
        pool_flush(REASON_IDENTITY, &victims);
        n += (int)victims.count;
    } while (victims.count == POOL_VICTIMS);
    cr_expect(n == 20 && take(1, 0) == NULL);
}

Test(pool, private_number_closed_by_the_program)
{
    struct conn *conn = connect_at(1, 0);

    cr_expect(pool_take_private(conn, 3) == NULL, "in use, not idle");
    put(conn, 0);
    cr_expect(pool_take_private(conn, 4) == NULL, "another number");
    cr_expect(pool_take_private(conn, 3) == conn);
    cr_expect(pool_take_private(conn, 3) == NULL);
    cr_expect(take(1, 0) == NULL);
}

Test(pool, endpoints_run_out_and_are_used_again)
{
    struct address address;
    struct conn *conn = conn_new(3, AF_INET);
    struct conn *conns[POOL_ENDPOINTS];

    for (uint16_t i = 0; i < POOL_ENDPOINTS; i++)
        conns[i] = connect_at((uint16_t)(i + 1), 0);
    address = address_of(9999);
    cr_expect(pool_enlist(conn, &address, 0) == REASON_NO_ROOM);
    cr_expect(conn_state(conn) == CONN_FRESH);
    put(conns[5], 0);
    cr_expect(pool_enlist(conn, &address, 0) == REASON_NO_ROOM, "something idles there");
    conn_move(conns[7], CONN_CLOSED);
    cr_expect(pool_enlist(conn, &address, 0) == REASON_NONE);
    cr_expect(take(6, 0) == conns[5]);
    for (int i = 0; i < 2000; i++) {
        conn_move(conn, CONN_CLOSED);
        conn = connect_at((uint16_t)(10000 + i), 0);
    }
}

static void *enter_from_another_thread(void *argument)
{
    (void)argument;
    put(connect_at(1, 0), 0);
    return NULL;
}

/* What a signal handler under the lock meets; the lock held over a fork stands in for it. */
Test(pool, turned_away_inside_and_free_after)
{
    struct conn *conn = connect_at(1, 0);
    struct address address = address_of(1);
    pthread_t thread;

    cr_assert(pool_before_fork());
    cr_expect(pool_enlist(conn_new(4, AF_INET), &address, 0) == REASON_REENTERED);
    conn_move(conn, CONN_LEAVING);
    cr_expect(pool_put(conn, 0, &victims) == REASON_REENTERED);
    cr_expect(pool_take(conn, 0, &victims) == NULL);
    cr_expect(!pool_before_fork());
    pool_after_fork_in_parent();
    cr_assert(pthread_create(&thread, NULL, enter_from_another_thread, NULL) == 0);
    pthread_join(thread, NULL);
    cr_expect(take(1, 0) != NULL);
}

Test(pool, empty_in_the_child)
{
    put(connect_at(1, 0), 0);
    put(connect_at(2, 0), 0);
    cr_assert(pool_before_fork());
    pool_after_fork_in_child();
    cr_expect(take(1, 0) == NULL && take(2, 0) == NULL);
    put(connect_at(1, 0), 0);
    cr_expect(take(1, 0) != NULL);
}

static void *churn(void *argument)
{
    uint16_t port = (uint16_t)(size_t)argument;
    struct victims mine = {.count = 0};

    for (int i = 0; i < 5000; i++) {
        struct address address = address_of(port);
        struct conn *fresh = conn_new(3, AF_INET);
        struct conn *conn;

        fresh->children = process_children;
        if (pool_enlist(fresh, &address, i) != REASON_NONE)
            return argument;
        conn = pool_take(fresh, i, &mine);
        if (conn) {
            conn_move(conn, CONN_IN_USE);
            conn_move(fresh, CONN_CLOSED);
        } else {
            conn = fresh;
        }
        conn_move(conn, CONN_LEAVING);
        if (pool_put(conn, i, &mine) != REASON_NONE)
            conn_move(conn, CONN_CLOSED);
        for (size_t v = 0; v < mine.count; v++)
            conn_move(mine.conn[v], CONN_CLOSED);
        mine.count = 0;
    }
    return NULL;
}

Test(pool, four_threads_keep_the_counts)
{
    pthread_t threads[4];
    struct conn *conn;
    int n = 0;

    for (size_t i = 0; i < 4; i++)
        cr_assert(pthread_create(&threads[i], NULL, churn, (void *)(i / 2 + 1)) == 0);
    for (size_t i = 0; i < 4; i++) {
        void *failed;

        pthread_join(threads[i], &failed);
        cr_expect(!failed);
    }
    conn = take(1, 5000);
    cr_assert(conn);
    cr_expect(conn->endpoint->in_use == 1);
    conn_move(conn, CONN_CLOSED);
    while ((conn = take(1, 5000)) != NULL && ++n < 10)
        conn_move(conn, CONN_CLOSED);
    cr_expect(n < 4, "more than were ever in use at once");
}
