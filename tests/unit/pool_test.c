/*
 * The pool with an injected clock: order, bounds, ages, families and endpoints.
 */
#include "pool/pool.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/owner.h"
#include "conn/limits.h"
#include "pool/custody.h"
#include "stats/mode.h"

#define SECOND 1000
#define MINUTE (60 * SECOND)

static struct config config;
static struct evicted evicted;
static bool covered;

static void set_up_with(unsigned int max_idle, unsigned int max_idle_total)
{
    char *environment[] = {NULL};

    config_read(&config, environment);
    config.max_idle = max_idle;
    config.max_idle_total = max_idle_total;
    config.idle_timeout = 55 * SECOND;
    cr_assert(conn_start() && pool_start(&config));
    evicted.count = 0;
}

static void set_up(void)
{
    set_up_with(32, 256);
}

static struct address address_of(uint16_t port)
{
    struct address address = {.port = port};

    return address;
}

/* On a busy machine another thread may sleep inside the pool for longer than a call waits for
 * the lock. */
#define UNTIL_UNLOCKED(call)                                                                   \
    ({                                                                                         \
        enum reason reason_ = (call);                                                          \
                                                                                               \
        for (int tries_ = 0; tries_ < 1000 && reason_ == REASON_LOCKED; tries_++) {            \
            usleep(1000);                                                                      \
            reason_ = (call);                                                                  \
        }                                                                                      \
        reason_;                                                                               \
    })

/* Binds CONN to the endpoint at ADDRESS. Nothing that idles there is reused. */
static enum reason bind_to(struct conn *conn, const struct address *address, msec_t now)
{
    struct destination target = {.v4 = 0, .address = *address};
    struct conn *none;

    return pool_bind(conn, &target, now, false, &none, NULL);
}

/* A connection in use, to PORT. */
static struct conn *connect_at(uint16_t port, msec_t now)
{
    struct address address = address_of(port);
    struct conn *conn = conn_new(3, AF_INET);

    cr_assert(conn);
    conn->fork_epoch = fork_epoch;
    conn->expires_at = INT64_MAX;
    cr_assert(UNTIL_UNLOCKED(bind_to(conn, &address, now)) == REASON_NONE);
    return conn;
}

static void put(struct conn *conn, msec_t now)
{
    conn_move(conn, CONN_CHECKING_IN);
    if (pool_is_dry_run())
        conn->fd = -1; /* nothing is kept open */
    cr_assert(UNTIL_UNLOCKED(pool_check_in(conn, CONN_IDLE, now, &evicted, &covered)) ==
              REASON_NONE);
}

/* The connection that a connect() at NOW would reuse; it is in use afterwards. */
static struct conn *take(uint16_t port, msec_t now)
{
    struct conn *fresh = connect_at(port, now);
    struct conn *conn = pool_check_out(fresh, WIRE_UNDECIDED, now, &evicted);

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
    cr_expect(pool_check_out(fresh, WIRE_UNDECIDED, 0, &evicted) == NULL);
    fresh->domain = AF_INET;
    cr_assert(
        sockopts_note(&fresh->options, false, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
    cr_expect(pool_check_out(fresh, WIRE_UNDECIDED, 0, &evicted) == NULL);
    fresh->options.given = 0;
    cr_expect(pool_check_out(fresh, WIRE_UNDECIDED, 0, &evicted) == conn);
}

/* A connect() binds its socket and takes out what idles there, in one step. */
Test(pool, binds_and_finds_at_once)
{
    struct destination there = {.v4 = 0, .address = address_of(1)};
    struct conn *conn = connect_at(1, 0), *fresh = conn_new(4, AF_INET), *found = fresh;
    struct endpoint *endpoint = conn->endpoint;

    put(conn, 0);
    cr_expect(endpoint->in_use == 0);
    cr_assert(UNTIL_UNLOCKED(pool_bind(fresh, &there, 0, true, &found, &evicted)) ==
              REASON_NONE);
    cr_expect(found == conn && conn_state(conn) == CONN_CHECKING_OUT);
    cr_expect(conn_state(fresh) == CONN_FRESH && fresh->endpoint == endpoint);
    cr_expect(endpoint->in_use == 1, "what was found counts in place of the socket");
    conn_move(fresh, CONN_IN_USE);
    conn_move(conn, CONN_CLOSED);
    cr_expect(endpoint->in_use == 1, "and the socket when that is given up");
}

Test(pool, binds_where_nothing_is_found)
{
    struct destination there = {.v4 = 0, .address = address_of(1)};
    struct conn *conn = connect_at(1, 0), *fresh = conn_new(4, AF_INET), *found = fresh;

    cr_assert(UNTIL_UNLOCKED(pool_bind(fresh, &there, 0, true, &found, &evicted)) ==
              REASON_NONE);
    cr_expect(!found && conn_state(fresh) == CONN_IN_USE && conn->endpoint->in_use == 2);
    put(conn, 0);
    fresh = conn_new(5, AF_INET);
    cr_assert(UNTIL_UNLOCKED(pool_bind(fresh, &there, 0, false, &found, &evicted)) ==
              REASON_NONE);
    cr_expect(!found && conn_state(fresh) == CONN_IN_USE, "it is not to be replaced");
    cr_expect(conn_state(conn) == CONN_IDLE);
}

/* An IPv4 address has one endpoint in either form, and no other address has that one. */
Test(pool, both_forms_of_an_address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons(11211)};
    struct destination quick, slow = {.v4 = 0};
    struct conn *conn = conn_new(3, AF_INET), *other = conn_new(4, AF_INET), *found;

    in.sin_addr.s_addr = htonl(0x7f000001);
    cr_assert(address_from(&slow.address, (const void *)&in, sizeof(in)));
    memcpy(&quick.v4, &in, sizeof(quick.v4));
    cr_expect(address_v4(&slow.address) == quick.v4);
    address_from_v4(&quick.address, quick.v4);
    cr_expect(address_equal(&quick.address, &slow.address));
    memset(&quick.address, 0xff, sizeof(quick.address));
    for (int i = 0; i < 2; i++) {
        cr_assert(pool_bind(conn, &slow, 0, false, &found, NULL) == REASON_NONE);
        cr_assert(pool_bind(other, &quick, 0, false, &found, NULL) == REASON_NONE);
        cr_expect(conn->endpoint == other->endpoint && conn->endpoint->v4 == quick.v4);
        cr_expect(address_equal(&conn->endpoint->address, &slow.address));
    }
    slow.address.scope = 1;
    cr_expect(address_v4(&slow.address) == 0);
    cr_assert(pool_bind(conn, &slow, 0, false, &found, NULL) == REASON_NONE);
    cr_expect(conn->endpoint != other->endpoint && conn->endpoint->v4 == 0);
}

/* An endpoint that has given up its place is not found where it was. */
Test(pool, place_of_another_address)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct destination there = {.v4 = 0};
    struct conn *conn, *found;

    for (uint32_t i = 0; i <= POOL_ENDPOINTS; i++) {
        in.sin_addr.s_addr = htonl(i);
        memcpy(&there.v4, &in, sizeof(there.v4));
        conn = conn_new(3, AF_INET);
        cr_assert(conn && pool_bind(conn, &there, 0, false, &found, NULL) == REASON_NONE);
        cr_expect(conn->endpoint->v4 == there.v4);
        conn_move(conn, CONN_CLOSED);
    }
    in.sin_addr.s_addr = 0;
    memcpy(&there.v4, &in, sizeof(there.v4));
    conn = conn_new(3, AF_INET);
    cr_assert(pool_bind(conn, &there, 0, false, &found, NULL) == REASON_NONE);
    cr_expect(conn->endpoint->v4 == there.v4);
}

/* A connection that was on its way into the pool when an operator switched it off, or made or
 * ended a dry run. */
Test(pool, nothing_is_kept_in_another_mode)
{
    static const struct {
        enum mode mode;
        int fd;
        enum reason reason;
    } cases[] = {
        {MODE_ON, 3, REASON_NONE},      {MODE_ON, -1, REASON_SWITCHED},
        {MODE_DRY, 3, REASON_SWITCHED}, {MODE_DRY, -1, REASON_NONE},
        {MODE_OFF, 3, REASON_SWITCHED}, {MODE_OFF, -1, REASON_SWITCHED},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct conn *conn = connect_at(1, 1);

        conn->fd = cases[i].fd;
        conn->connected_at = 1;
        conn_move(conn, CONN_CHECKING_IN);
        mode_word = cases[i].mode | MODE_CHANGED;
        cr_expect(pool_check_in(conn, CONN_IDLE, 1, &evicted, &covered) == cases[i].reason,
                  "%zu", i);
        cr_expect(pool_is_dry_run() == (cases[i].mode == MODE_DRY));
    }
}

Test(pool, a_draining_one_does_not_go_back_after_off)
{
    struct conn *conn = connect_at(1, 1), *fresh = connect_at(1, 1);

    conn->connected_at = 1;
    conn_move(conn, CONN_CHECKING_IN);
    cr_assert(pool_check_in(conn, CONN_DRAINING, 1, &evicted, &covered) == REASON_NONE);
    cr_assert(pool_check_out_draining(fresh, WIRE_UNDECIDED, 1 + POOL_SPARED, &evicted) ==
              conn);
    mode_word = MODE_OFF | MODE_CHANGED;
    cr_expect(!pool_return(conn));
    mode_word = MODE_ON;
    cr_expect(pool_return(conn));
}

Test(pool, a_flush_is_for_one_endpoint_and_for_what_is_older)
{
    struct conn *conns[POOL_EVICTED_MAX + 1], *other = connect_at(2, 1), *held, *later;

    for (int i = 0; i <= POOL_EVICTED_MAX; i++) {
        conns[i] = connect_at(1, 1);
        conns[i]->connected_at = 1;
    }
    held = connect_at(1, 1);
    held->connected_at = other->connected_at = 1;
    for (int i = 0; i <= POOL_EVICTED_MAX; i++)
        put(conns[i], 2);
    put(other, 2);
    mode_word = MODE_CHANGED;
    cr_expect(pool_flush_older(held->endpoint->text, 3, &evicted));
    cr_assert(evicted.count == POOL_EVICTED_MAX && evicted.reason[0] == REASON_FLUSHED);
    evicted.count = 0;
    cr_expect(pool_flush_older(held->endpoint->text, 3, &evicted));
    cr_expect(evicted.count == 1);
    conn_move(held, CONN_CHECKING_IN);
    cr_expect(pool_check_in(held, CONN_IDLE, 4, &evicted, &covered) == REASON_FLUSHED);
    later = connect_at(1, 4);
    later->connected_at = 4;
    put(later, 5);
    cr_expect(take(1, 6) == later && take(2, 6) == other);
    evicted.count = 0;
    conn_move(other, CONN_CHECKING_IN);
    conn_move(later, CONN_CHECKING_IN);
    cr_expect(pool_flush_older("", 7, &evicted));
    cr_expect(pool_check_in(other, CONN_IDLE, 8, &evicted, &covered) == REASON_FLUSHED);
    cr_expect(pool_check_in(later, CONN_IDLE, 8, &evicted, &covered) == REASON_FLUSHED);
}

Test(pool, idle_timeout)
{
    struct conn *conn = connect_at(1, 0);

    put(conn, 0);
    cr_expect(take(1, 55 * SECOND) == conn, "exactly the timeout is not longer");
    put(conn, 60 * SECOND);
    cr_expect(take(1, 60 * SECOND + 55 * SECOND + 1) == NULL);
    cr_expect(evicted.count == 1 && evicted.conn[0] == conn);
    cr_expect(evicted.reason[0] == REASON_IDLE_TIMEOUT);
    cr_expect(conn_state(conn) == CONN_EVICTED);
}

/* Also of one that is young enough when it is checked in. */
Test(pool, too_old_to_be_reused)
{
    struct conn *old = connect_at(1, 0), *young = connect_at(1, 0);

    old->expires_at = 10 * SECOND;
    put(young, 0);
    put(old, SECOND);
    cr_expect(take(1, 10 * SECOND - 1) == old);
    put(old, 10 * SECOND - 1);
    cr_expect(take(1, 10 * SECOND) == young);
    cr_expect(evicted.count == 1 && evicted.conn[0] == old);
    cr_expect(evicted.reason[0] == REASON_TOO_OLD);
}

Test(pool, waits_close_what_is_too_old)
{
    struct conn *conn = connect_at(1, 0);

    conn->expires_at = 10 * SECOND;
    put(conn, 5 * SECOND);
    cr_expect(pool_due == 10 * SECOND);
    cr_assert(pool_evict_due(10 * SECOND, false, &evicted));
    cr_expect(evicted.count == 1 && evicted.reason[0] == REASON_TOO_OLD);
}

Test(pool, expiry_takes_a_few_at_a_time)
{
    struct conn *conns[20];

    for (int i = 0; i < 20; i++)
        conns[i] = connect_at(1, 0);
    for (int i = 0; i < 20; i++)
        put(conns[i], 0);
    cr_expect(take(1, 10 * MINUTE) == NULL,
              "an expired one is not reused though it still lies there");
    cr_expect(evicted.count > 0 && evicted.count <= POOL_EVICTED_MAX);
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
    cr_expect(evicted.count == 1 && evicted.conn[0] == conns[0]);
    cr_expect(evicted.reason[0] == REASON_ENDPOINT_FULL);
}

Test(pool, total_bound, .init = NULL)
{
    set_up_with(32, 2);
    for (uint16_t port = 1; port <= 3; port++)
        put(connect_at(port, port), port);
    cr_expect(evicted.count == 1 && evicted.reason[0] == REASON_POOL_FULL);
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
        evicted.count = 0;
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
    /* Minutes later, with one connection in use at a time, the crowd is forgotten. */
    for (int minute = 2; minute < 10; minute++) {
        struct conn *conn = take(1, minute * MINUTE);

        evicted.count = 0;
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
    conn_move(conn, CONN_CHECKING_IN);
    cr_expect(endpoint->in_use == 1);
    cr_assert(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_NONE);
    cr_expect(endpoint->in_use == 0 && endpoint->idle_count == 1);
    cr_expect(take(1, 0) == conn);
    cr_expect(endpoint->in_use == 1 && endpoint->idle_count == 0);
    conn_move(conn, CONN_CLOSED);
    cr_expect(endpoint->in_use == 0);
}

Test(pool, a_child_made_meanwhile)
{
    struct conn *conn = connect_at(1, 0);

    conn_move(conn, CONN_CHECKING_IN);
    fork_epoch++;
    cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_FORKED);
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
        evicted.count = 0;
        pool_flush(REASON_IDENTITY, &evicted);
        n += (int)evicted.count;
    } while (evicted.count == POOL_EVICTED_MAX);
    cr_expect(n == 20 && take(1, 0) == NULL);
}

Test(pool, shadow_fd_closed_by_the_program)
{
    struct conn *conn = connect_at(1, 0);

    cr_expect(pool_claim_shadow(conn, 3) == NULL, "in use, not idle");
    put(conn, 0);
    cr_expect(pool_claim_shadow(conn, 4) == NULL, "another number");
    cr_expect(pool_claim_shadow(conn, 3) == conn);
    cr_expect(pool_claim_shadow(conn, 3) == NULL);
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
    cr_expect(bind_to(conn, &address, 0) == REASON_NO_ROOM);
    cr_expect(conn_state(conn) == CONN_FRESH);
    put(conns[5], 0);
    cr_expect(bind_to(conn, &address, 0) == REASON_NO_ROOM, "something idles there");
    conn_move(conns[7], CONN_CLOSED);
    cr_expect(bind_to(conn, &address, 0) == REASON_NONE);
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

/* What a signal handler meets that interrupts the lock's holder. The lock held over a fork
 * stands in for it. */
Test(pool, turned_away_inside_and_free_after)
{
    struct conn *conn = connect_at(1, 0);
    struct address address = address_of(1);
    pthread_t thread;

    cr_assert(pool_before_fork() == REASON_NONE);
    cr_expect(bind_to(conn_new(4, AF_INET), &address, 0) == REASON_REENTERED);
    conn_move(conn, CONN_CHECKING_IN);
    cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_REENTERED);
    cr_expect(pool_check_out(conn, WIRE_UNDECIDED, 0, &evicted) == NULL);
    cr_expect(pool_before_fork() == REASON_REENTERED);
    pool_after_fork_in_parent();
    cr_assert(pthread_create(&thread, NULL, enter_from_another_thread, NULL) == 0);
    pthread_join(thread, NULL);
    cr_expect(take(1, 0) != NULL);
}

static atomic_int holding; /* 0: not yet, 1: a thread has the lock, 2: it is to unlock */

static void *hold_the_lock(void *argument)
{
    (void)argument;
    cr_assert(pool_before_fork() == REASON_NONE);
    atomic_store(&holding, 1);
    while (atomic_load(&holding) != 2)
        usleep(1000);
    pool_after_fork_in_parent();
    return NULL;
}

/* A thread that takes the lock and keeps it. */
static pthread_t stop_a_thread(void)
{
    pthread_t thread;

    atomic_store(&holding, 0);
    cr_assert(pthread_create(&thread, NULL, hold_the_lock, NULL) == 0);
    while (atomic_load(&holding) != 1)
        usleep(1000);
    return thread;
}

static void let_it_go_on(pthread_t thread)
{
    atomic_store(&holding, 2);
    pthread_join(thread, NULL);
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

/* The first call waits 10 ms, those after it do not wait: 1,000 calls that waited would take 10
 * s. */
Test(pool, no_thread_waits_for_a_stopped_one, .timeout = 60)
{
    struct conn *conn = connect_at(1, 0), *fresh = conn_new(4, AF_INET);
    struct address address = address_of(1);
    pthread_t thread;
    double began;

    put(connect_at(1, 0), 0);
    conn_move(conn, CONN_CHECKING_IN);
    thread = stop_a_thread();
    began = seconds();
    for (int i = 0; i < 1000; i++) {
        cr_expect(bind_to(fresh, &address, 0) == REASON_LOCKED);
        cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_LOCKED);
        cr_expect(pool_check_out(conn, WIRE_UNDECIDED, 0, &evicted) == NULL);
        cr_expect(pool_before_fork() == REASON_LOCKED);
    }
    cr_expect(seconds() - began < 5, "%f s", seconds() - began);
    let_it_go_on(thread);
    cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_NONE);
    cr_expect(take(1, 0) == conn);
}

static void on_nothing(int signal)
{
    (void)signal;
}

/* Signals that arrive all the time do not make the wait longer. */
Test(pool, interrupted_waits_end, .timeout = 60)
{
    struct itimerval often = {{0, 1000}, {0, 1000}}, never = {{0, 0}, {0, 0}};
    struct address address = address_of(1);
    pthread_t thread = stop_a_thread();

    signal(SIGALRM, on_nothing);
    setitimer(ITIMER_REAL, &often, NULL);
    cr_expect(bind_to(conn_new(4, AF_INET), &address, 0) == REASON_LOCKED);
    setitimer(ITIMER_REAL, &never, NULL);
    let_it_go_on(thread);
}

static struct evicted lost;
static pthread_t taken_by;

static void take_lost(void)
{
    taken_by = pthread_self();
    while (pool_claim_lost(&lost))
        continue;
}

static struct conn *put_at(int fd)
{
    struct conn *conn = connect_at(1, 0);

    conn->fd = fd;
    fdmap_exchange(fd, conn_id(conn) | FDMAP_SHADOW);
    put(conn, 0);
    return conn;
}

/* The lists belong to the thread that has the lock. */
Test(pool, what_is_lost_while_a_thread_is_stopped, .timeout = 60)
{
    struct conn *conns[] = {put_at(1000), put_at(1001), put_at(1002)};
    pthread_t thread;

    lost.count = 0;
    pool_when_lost(take_lost);
    thread = stop_a_thread();
    cr_expect(!pool_flush(REASON_IDENTITY, &evicted) && evicted.count == 0);
    fdmap_exchange(1000, FDMAP_NONE);
    cr_expect(pool_claim_shadow(conns[0], 1000) == NULL);
    fdmap_exchange(1001, FDMAP_NONE);
    pool_note_lost(REASON_IDENTITY);
    cr_expect(lost.count == 0);
    let_it_go_on(thread);
    cr_assert(lost.count == 2);
    cr_expect(pthread_equal(taken_by, thread));
    for (int i = 0; i < 2; i++) {
        cr_expect(lost.conn[i] == conns[1 - i] && lost.reason[i] == REASON_IDENTITY);
        cr_expect(conn_state(conns[i]) == CONN_EVICTED);
    }
    cr_expect(take(1, 0) == conns[2]);
    cr_expect(take(1, 0) == NULL);
}

/* When no thread has the lock, the thread that closed the fds takes the connections off the
 * lists. */
Test(pool, what_is_lost_while_no_thread_is_stopped, .timeout = 60)
{
    struct conn *conn = put_at(1000);

    lost.count = 0;
    pool_when_lost(take_lost);
    fdmap_exchange(1000, FDMAP_NONE);
    pool_note_lost(REASON_CLOSED_IN_BULK);
    cr_assert(lost.count == 1);
    cr_expect(lost.conn[0] == conn);
    cr_expect(!pool_claim_lost(&lost));
}

Test(pool, empty_in_the_child)
{
    put(connect_at(1, 0), 0);
    put(connect_at(2, 0), 0);
    cr_assert(pool_before_fork() == REASON_NONE);
    pool_after_fork_in_child();
    cr_expect(take(1, 0) == NULL && take(2, 0) == NULL);
    put(connect_at(1, 0), 0);
    cr_expect(take(1, 0) != NULL);
}

static void *churn(void *argument)
{
    uint16_t port = (uint16_t)(size_t)argument;
    struct evicted mine = {.count = 0};
    bool is_covered = false;

    for (int i = 0; i < 5000; i++) {
        struct address address = address_of(port);
        struct conn *fresh = conn_new(3, AF_INET);
        struct conn *conn;

        fresh->fork_epoch = fork_epoch;
        fresh->expires_at = INT64_MAX;
        if (UNTIL_UNLOCKED(bind_to(fresh, &address, i)) != REASON_NONE)
            return argument;
        conn = pool_check_out(fresh, WIRE_UNDECIDED, i, &mine);
        if (conn) {
            conn_move(conn, CONN_IN_USE);
            conn_move(fresh, CONN_CLOSED);
        } else {
            conn = fresh;
        }
        conn_move(conn, CONN_CHECKING_IN);
        if (UNTIL_UNLOCKED(pool_check_in(conn, CONN_IDLE, i, &mine, &is_covered)) !=
            REASON_NONE)
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

/* Those of all endpoints, as many as one call has room for at a time, until none is left. */
Test(pool, expiry_goes_on_at_the_next_call)
{
    struct conn *conns[10];
    struct conn *other = connect_at(99, 10 * MINUTE);

    for (uint16_t i = 0; i < 10; i++)
        conns[i] = connect_at((uint16_t)(i % 3 + 1), 0);
    for (int i = 0; i < 10; i++)
        put(conns[i], i);
    for (int out = 0; out < 10; out += POOL_EVICTED_MAX / 2) {
        evicted.count = 0;
        put(other, 10 * MINUTE);
        cr_expect(evicted.count == (out < 8 ? POOL_EVICTED_MAX / 2 : 2), "%zu", evicted.count);
        cr_expect(take(99, 10 * MINUTE) == other);
    }
    evicted.count = 0;
    put(other, 10 * MINUTE);
    cr_expect(evicted.count == 0);
}

/* Whatever is evicted fits into one call's list: expired connections, the endpoint's oldest,
 * and the oldest of all. */
Test(pool, evicted_ones_never_overflow)
{
    struct conn *conns[40];

    for (int i = 0; i < 40; i++)
        conns[i] = connect_at(1, 0);
    for (int i = 0; i < 40; i++)
        put(conns[i], i < 20 ? 0 : MINUTE - 20 * SECOND);
    config.max_idle_total = 1;
    limits_read(0);
    for (int i = 0; i < 10; i++) {
        struct conn *conn = connect_at(2, MINUTE);

        evicted.count = 0;
        conn_move(conn, CONN_CHECKING_IN);
        pool_check_in(conn, CONN_IDLE, MINUTE, &evicted, &covered);
        cr_expect(evicted.count <= POOL_EVICTED_MAX, "%zu", evicted.count);
    }
}

Test(pool, a_call_has_room_for_what_it_takes_out, .init = NULL)
{
    struct conn *conn;

    set_up_with(1, 256);
    config.idle_timeout = MINUTE;
    for (uint16_t port = 1; port <= 30; port++)
        put(connect_at(port, 0), 0);
    config.max_idle_total = 4;
    limits_read(0);
    conn = connect_at(1, 1);
    conn_move(conn, CONN_CHECKING_IN);
    evicted.count = 0;
    cr_expect(pool_check_in(conn, CONN_IDLE, 1, &evicted, &covered) == REASON_POOL_FULL,
              "30 cannot go at once");
    cr_expect(evicted.count == POOL_EVICTED_MAX);
    cr_expect(evicted.reason[0] == REASON_ENDPOINT_FULL);
    cr_expect(evicted.reason[7] == REASON_POOL_FULL);
}

/* A connection that a child may have open is not kept. */
Test(pool, put_after_a_child)
{
    struct conn *conn = connect_at(1, 0);

    fork_epoch++;
    conn_move(conn, CONN_CHECKING_IN);
    cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_FORKED);
    cr_expect(conn_state(conn) == CONN_CHECKING_IN && conn->endpoint->idle_count == 0);
    cr_expect(take(1, 0) == NULL);
    put(connect_at(1, 0), 0);
    cr_expect(take(1, 0) != NULL);
}

static void limit_fds(rlim_t n)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = n;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
}

static int idle_after_crowd(int n, msec_t now)
{
    int kept = 0;

    crowd(n, now);
    while (take(1, now))
        kept++;
    return kept;
}

Test(pool, a_quarter_of_the_fds)
{
    limit_fds(100);
    config.max_idle_total = 30;
    limits_read(0);
    cr_expect(limits_fds() == 100);
    cr_expect(idle_after_crowd(40, 0) == 25);
}

Test(pool, limits_are_read_once_a_second)
{
    limit_fds(400);
    limits_read(5000);
    cr_expect(limits_fds() == 400);
    limit_fds(200);
    limits_note(5999);
    cr_expect(limits_fds() == 400);
    limits_note(6000);
    cr_expect(limits_fds() == 200);
    limit_fds(400);
    limits_read(6001);
    cr_expect(limits_fds() == 400);
}

Test(pool, shadow_fds_stay_low)
{
    struct rlimit limit;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    if (limit.rlim_max < 8192)
        cr_skip_test("the hard limit of descriptors is too low");
    limit_fds(8192);
    limits_read(0);
    cr_expect(limits_fds() == 8192);
    limit_fds(limit.rlim_max);
    limits_read(0);
    cr_expect(limits_fds() == 8192);
}

Test(pool, too_few_fds_to_keep_any)
{
    struct conn *conn = connect_at(1, 0);

    limit_fds(3);
    limits_read(0);
    conn_move(conn, CONN_CHECKING_IN);
    cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_POOL_FULL &&
              evicted.count == 0);
    limit_fds(1024);
}

/* The peak raises its own endpoint's bound, not another's, and never the process's. */
Test(pool, the_peak_is_the_endpoint_s_own, .init = NULL)
{
    struct conn *conns[3];

    set_up_with(2, 8);
    cr_expect(idle_after_crowd(6, 0) == 6);
    for (int i = 0; i < 3; i++) {
        conns[i] = connect_at(2, 0);
        conns[i]->domain = i;
        put(conns[i], 0);
    }
    cr_expect(conns[0]->endpoint->idle_count == 2);
    cr_expect(idle_after_crowd(20, 1) == 8);
}

static size_t evicted_for(enum reason reason)
{
    size_t n = 0;

    for (size_t i = 0; i < evicted.count; i++)
        n += evicted.reason[i] == reason;
    return n;
}

/* A crowd counts in its own minute, and in the next one if that follows at once. */
Test(pool, the_peak_lasts_into_the_next_minute, .init = NULL)
{
    static const struct {
        msec_t later;
        unsigned int last_peak;
        size_t too_many;
    } cases[] = {{MINUTE - 1, 0, 0},
                 {MINUTE, 10, 0},
                 {2 * MINUTE - 1, 10, 0},
                 {2 * MINUTE, 0, 1},
                 {9 * MINUTE, 0, 1}};
    const struct endpoint *endpoint;

    set_up_with(1, 256);
    config.idle_timeout = 24 * 60 * MINUTE;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        msec_t start = (msec_t)(i + 1) * 100 * MINUTE;
        struct conn *conn = connect_at(1, start);

        endpoint = conn->endpoint;
        conn_move(conn, CONN_CLOSED);
        crowd(10, start);
        cr_expect(endpoint->idle_count == 10 && endpoint->peak == 10);
        conn = take(1, start + cases[i].later);
        cr_expect(endpoint->last_peak == cases[i].last_peak, "case %zu: %u", i,
                  endpoint->last_peak);
        evicted.count = 0;
        put(conn, start + cases[i].later);
        cr_expect(evicted_for(REASON_ENDPOINT_FULL) == cases[i].too_many, "case %zu", i);
    }
}

/* Peaks of a minute come and go; the most that was ever in use at once stays known. */
Test(pool, the_most_in_use_is_never_forgotten, .init = NULL)
{
    static const struct {
        int crowd;
        msec_t at;
        unsigned int most;
    } cases[] = {
        {1, 0, 1}, {7, 1, 7}, {3, 5 * MINUTE, 7}, {7, 20 * MINUTE, 7}, {8, 40 * MINUTE, 8}};
    struct conn *conn;

    set_up_with(1, 256);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        crowd(cases[i].crowd, cases[i].at);
        conn = take(1, cases[i].at);
        cr_expect(stats_read(&conn->endpoint->stats->most_in_use) == cases[i].most, "case %zu",
                  i);
        put(conn, cases[i].at);
    }
}

Test(pool, flush_takes_the_oldest_of_all)
{
    struct conn *conns[20];
    size_t out = 0;

    for (uint16_t i = 0; i < 20; i++) {
        conns[i] = connect_at((uint16_t)(i % 3 + 1), 0);
        put(conns[i], i);
    }
    do {
        evicted.count = 0;
        pool_flush(REASON_IDENTITY, &evicted);
        for (size_t i = 0; i < evicted.count; i++, out++) {
            cr_expect(evicted.conn[i] == conns[out] && evicted.reason[i] == REASON_IDENTITY);
            cr_expect(conn_state(conns[out]) == CONN_EVICTED);
        }
    } while (evicted.count == POOL_EVICTED_MAX);
    cr_expect(out == 20);
    for (uint16_t port = 1; port <= 3; port++)
        cr_expect(take(port, 20) == NULL);
    cr_expect(conns[0]->endpoint->in_use == 0 && conns[0]->endpoint->idle_count == 0);
}

Test(pool, nothing_is_taken_out_from_inside)
{
    struct conn *conn = connect_at(1, 0);

    put(conn, 0);
    cr_assert(pool_before_fork() == REASON_NONE);
    pool_flush(REASON_IDENTITY, &evicted);
    cr_expect(evicted.count == 0);
    cr_expect(pool_claim_shadow(conn, conn->fd) == NULL);
    cr_expect(conn_state(conn) == CONN_IDLE);
    pool_after_fork_in_parent();
    cr_expect(take(1, 0) == conn);
}

Test(pool, shadow_fd_among_others)
{
    struct conn *conns[5];

    for (int i = 0; i < 5; i++)
        conns[i] = connect_at(1, 0);
    for (int i = 0; i < 5; i++) {
        conns[i]->fd = 100 + i;
        put(conns[i], i);
    }
    cr_expect(pool_claim_shadow(conns[0], 100) == conns[0]);
    cr_expect(pool_claim_shadow(conns[2], 102) == conns[2]);
    cr_expect(pool_claim_shadow(conns[4], 104) == conns[4]);
    cr_expect(conn_state(conns[2]) == CONN_EVICTED && conns[2]->endpoint->idle_count == 2);
    cr_expect(take(1, 5) == conns[3] && take(1, 5) == conns[1] && take(1, 5) == NULL);
}

static int visited;

static void visit(struct endpoint *endpoint)
{
    cr_expect(endpoint->text[0] != '\0');
    visited++;
}

Test(pool, every_endpoint_is_visited)
{
    endpoint_for_each(visit);
    cr_expect(visited == 0);
    for (uint16_t port = 1; port <= 40; port++)
        connect_at((uint16_t)(port % 20 + 1), 0);
    endpoint_for_each(visit);
    cr_expect(visited == 20);
}

/* An endpoint that replaced another starts at zero. */
Test(pool, reclaimed_endpoints_are_new)
{
    struct conn *conn = NULL;

    for (uint16_t port = 1; port <= POOL_ENDPOINTS; port++) {
        conn = connect_at(port, 0);
        stats_count(&conn->endpoint->stats->connects);
    }
    conn_move(conn, CONN_CLOSED);
    conn = connect_at(9999, 7);
    cr_expect(conn->endpoint->address.port == 9999 && conn->endpoint->in_use == 1);
    cr_expect(stats_read(&conn->endpoint->stats->connects) == 0);
    cr_expect(conn->endpoint->peak_since == 7 && conn->endpoint->last_peak == 0);
}

/* Without memory for the table there are no endpoints; nothing else happens. */
Test(pool, no_memory_for_the_table)
{
    struct conn *conn = conn_new(3, AF_INET);
    struct address address = address_of(1);

    while (hash_allocate(64))
        ;
    cr_expect(bind_to(conn, &address, 0) == REASON_NO_ROOM);
    cr_expect(conn_state(conn) == CONN_FRESH);
    endpoint_for_each(visit);
    cr_expect(visited == 0);
}

/* The table stays complete when it cannot grow. */
Test(pool, no_memory_for_a_larger_table)
{
    struct conn *last = NULL;
    enum reason reason = REASON_NONE;
    uint16_t port = 0;

    put(connect_at(1, 0), 0);
    while (hash_allocate(64))
        ;
    while (reason == REASON_NONE && ++port < POOL_ENDPOINTS) {
        struct address address = address_of((uint16_t)(port + 1));

        last = conn_new(3, AF_INET);
        reason = bind_to(last, &address, 0);
    }
    cr_assert(reason == REASON_NO_ROOM, "the table never wanted to grow");
    cr_expect(take(1, 0) != NULL);
    endpoint_for_each(visit);
    cr_expect(visited == port);
}

static atomic_bool stop;

static void *work(void *argument)
{
    (void)argument;
    while (!atomic_load(&stop)) {
        struct conn *conn = connect_at(7, 0);

        put(conn, 0);
        conn = take(7, 0);
        if (conn)
            conn_move(conn, CONN_CLOSED);
    }
    return NULL;
}

/* Forks while another thread goes in and out of the pool: the child finds it consistent and
 * unlocked. */
Test(pool, real_forks_under_load)
{
    pthread_t thread;

    put(connect_at(1, 0), 0);
    cr_assert(pthread_create(&thread, NULL, work, NULL) == 0);
    for (int i = 0; i < 50; i++) {
        pid_t child;
        int status;

        cr_assert(UNTIL_UNLOCKED(pool_before_fork()) == REASON_NONE);
        child = fork();
        cr_assert(child >= 0);
        if (child == 0) {
            alarm(10);
            pool_after_fork_in_child();
            if (take(1, 0))
                _exit(1);
            put(connect_at(1, 0), 0);
            _exit(take(1, 0) ? 0 : 2);
        }
        pool_after_fork_in_parent();
        cr_assert(waitpid(child, &status, 0) == child);
        cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
    cr_expect(take(1, 0) != NULL, "the parent keeps its own");
}

/* The connection is refused before another is evicted for it. */
Test(pool, nothing_makes_room_for_what_is_not_kept, .init = NULL)
{
    struct conn *kept;
    struct conn *conn;

    set_up_with(1, 256);
    kept = connect_at(1, 0);
    put(kept, 0);
    conn = connect_at(1, 0);
    fork_epoch++;
    conn_move(conn, CONN_CHECKING_IN);
    cr_expect(pool_check_in(conn, CONN_IDLE, 0, &evicted, &covered) == REASON_FORKED &&
              evicted.count == 0);
    cr_expect(take(1, 0) == kept);
}

/* An endpoint replaced another and found no place in the table. Only that endpoint is lost;
 * endpoints in use are not overwritten. */
Test(pool, no_memory_when_an_endpoint_is_reclaimed)
{
    struct conn *conns[POOL_ENDPOINTS];
    enum reason reason = REASON_NONE;
    struct address address;
    uint32_t port = POOL_ENDPOINTS;

    for (int i = 0; i < POOL_ENDPOINTS; i++)
        conns[i] = connect_at((uint16_t)(i + 1), 0);
    while (hash_allocate(64))
        ;
    while (reason == REASON_NONE && port < UINT16_MAX) {
        conn_move(conns[0], CONN_CLOSED);
        address = address_of((uint16_t)++port);
        conns[0] = conn_new(3, AF_INET);
        reason = bind_to(conns[0], &address, 0);
    }
    if (reason == REASON_NONE)
        cr_skip_test("the table never wanted to grow");
    bind_to(conns[0], &address, 0);
    for (int i = 1; i < POOL_ENDPOINTS; i++)
        cr_expect(conns[i]->endpoint->address.port == (uint32_t)i + 1, "endpoint %d", i);
}

Test(pool, a_child_knows_what_a_connect_usually_takes)
{
    struct conn *conn = connect_at(1, 0);

    stats_set(&conn->endpoint->stats->usual_connect_us, 42);
    endpoint_after_fork_in_child();
    cr_expect(stats_read(&conn->endpoint->stats->usual_connect_us) == 42);
    cr_expect(stats_read(&conn->endpoint->stats->connects) == 0);
}

/* Those that it has from its parent count, and no former ones. Meanwhile it keeps as many idle
 * ones as the parent needed. */
Test(pool, a_child_has_a_peak_of_its_own, .init = NULL)
{
    struct endpoint *endpoint;

    set_up_with(1, 256);
    endpoint = connect_at(1, 0)->endpoint;
    crowd(5, 0);
    cr_expect(stats_read(&endpoint->stats->most_in_use) == 6);
    pool_before_fork();
    pool_after_fork_in_child();
    cr_expect(stats_read(&endpoint->stats->most_in_use) == 1);
    cr_expect(endpoint_most(endpoint, 1) == 6);
    crowd(2, 0);
    cr_expect(stats_read(&endpoint->stats->most_in_use) == 3);
}

/* A signal handler jumped out while the endpoint was added. */
Test(pool, a_fork_finds_a_half_made_endpoint)
{
    struct endpoint *endpoint = connect_at(1, 0)->endpoint;

    endpoint->stats = NULL;
    endpoint_after_fork_in_child();
    cr_expect(endpoint->stats == &endpoint->early);
}

/* Draining connections. */

static void put_fenced(struct conn *conn, enum fence fence, msec_t now)
{
    conn_move(conn, CONN_CHECKING_IN);
    conn->fence = fence;
    cr_assert(pool_check_in(conn, CONN_DRAINING, now, &evicted, &covered) == REASON_NONE);
}

static void put_draining(struct conn *conn, msec_t now)
{
    put_fenced(conn, FENCE_OTHER, now);
}

static struct conn *take_draining(uint16_t port, msec_t now)
{
    struct conn *fresh = connect_at(port, now);
    struct conn *conn = pool_check_out_draining(fresh, WIRE_UNDECIDED, now, &evicted);

    conn_move(fresh, CONN_CLOSED);
    return conn;
}

Test(pool, draining_ones_wait_in_a_queue_of_their_own)
{
    struct conn *conns[3];

    for (int i = 0; i < 3; i++) {
        conns[i] = connect_at(1, 0);
        put_draining(conns[i], i);
    }
    cr_expect(take(1, 3) == NULL);
    cr_expect(take_draining(2, 3) == NULL);
    for (int i = 0; i < 3; i++) {
        struct conn *conn = take_draining(1, 3);

        cr_expect(conn == conns[i]);
        cr_expect(conn_state(conn) == CONN_CHECKING_OUT);
        cr_expect(pool_return(conn));
        cr_expect(conn_state(conn) == CONN_DRAINING);
    }
    for (int i = 0; i < 3; i++)
        cr_expect(take_draining(1, 3) == conns[i]);
    cr_expect(take_draining(1, 3) == NULL);
    cr_expect(evicted.count == 0);
}

static void *take_for_another_thread(void *conn)
{
    cr_expect(take_draining(1, 0) == conn);
    return NULL;
}

/* The thread that did not wait for a reply wants another connection. With a fence there was no
 * reply to wait for. */
Test(pool, given_up_ones_are_spared_for_a_second)
{
    struct conn *conn = connect_at(1, 0), *fenced = connect_at(1, 0);
    pthread_t thread;

    put_fenced(conn, FENCE_NONE, 0);
    put_draining(fenced, 0);
    cr_expect(take_draining(1, POOL_SPARED - 1) == fenced);
    cr_expect(take_draining(1, POOL_SPARED - 1) == NULL);
    cr_expect(take_draining(1, POOL_SPARED) == conn);
    cr_expect(stats_read(&conn->endpoint->stats->given_up) == 1);
    conn->fence = FENCE_NONE;
    conn_move(conn, CONN_IN_USE);
    put_fenced(conn, FENCE_NONE, 0);
    cr_assert(pthread_create(&thread, NULL, take_for_another_thread, conn) == 0);
    pthread_join(thread, NULL);
}

/* Their time runs on while they are returned to the queue. */
Test(pool, draining_ones_have_their_time)
{
    struct conn *conn = connect_at(1, 0);

    put_draining(conn, 0);
    cr_assert(take_draining(1, POOL_DRAIN_TIMEOUT) == conn);
    cr_assert(pool_return(conn));
    cr_expect(take_draining(1, POOL_DRAIN_TIMEOUT + 1) == NULL);
    cr_assert(evicted.count == 1);
    cr_expect(evicted.conn[0] == conn && evicted.reason[0] == REASON_DRAIN_TIMEOUT);
    cr_expect(conn_state(conn) == CONN_EVICTED);
}

/* Many that are late at once are evicted a few at a time, and none of them is reused. */
Test(pool, many_late_ones)
{
    for (int i = 0; i < 20; i++)
        put_draining(connect_at(1, 0), 0);
    for (unsigned int left = 20; left > 0; left -= (unsigned int)evicted.count) {
        evicted.count = 0;
        cr_expect(take_draining(1, POOL_DRAIN_TIMEOUT + 1) == NULL);
        cr_assert(evicted.count == (left < POOL_EVICTED_MAX ? left : POOL_EVICTED_MAX));
    }
}

Test(pool, draining_ones_must_fit_too)
{
    struct conn *conn = connect_at(1, 0);
    struct conn *fresh = connect_at(1, 0);

    put_draining(conn, 0);
    fresh->domain = AF_INET6;
    cr_expect(pool_check_out_draining(fresh, WIRE_UNDECIDED, 0, &evicted) == NULL);
    fresh->domain = AF_INET;
    cr_expect(pool_check_out_draining(fresh, WIRE_BINARY, 0, &evicted) == NULL);
    cr_expect(pool_check_out_draining(fresh, WIRE_UNDECIDED, 0, &evicted) == conn);
}

/* A draining connection is evicted first, and no other is evicted for it. */
Test(pool, draining_ones_make_room)
{
    struct conn *clean, *draining, *more;

    set_up_with(1, 256);
    config.idle_timeout = 60 * MINUTE;
    clean = connect_at(1, 0);
    put(clean, 0);
    draining = connect_at(1, 0);
    conn_move(draining, CONN_CHECKING_IN);
    cr_expect(pool_check_in(draining, CONN_DRAINING, 3 * MINUTE, &evicted, &covered) ==
              REASON_ENDPOINT_FULL);
    cr_expect(evicted.count == 0);
    cr_expect(take(1, 1) == clean);
    cr_expect(pool_check_in(draining, CONN_DRAINING, 6 * MINUTE, &evicted, &covered) ==
              REASON_NONE);
    draining->idle_since = 9 * MINUTE;
    draining->unusable_at = 10 * MINUTE;
    more = connect_at(1, 6 * MINUTE);
    conn_move(more, CONN_CHECKING_IN);
    conn_move(clean, CONN_CLOSED);
    cr_expect(pool_check_in(more, CONN_IDLE, 9 * MINUTE, &evicted, &covered) == REASON_NONE);
    cr_assert(evicted.count == 1);
    cr_expect(evicted.conn[0] == draining && evicted.reason[0] == REASON_ENDPOINT_FULL);
}

Test(pool, protocols_are_apart)
{
    static const char noop[24] = {'\x80', '\x0a'};
    struct conn *text = connect_at(1, 0), *binary = connect_at(1, 0);
    struct conn *fresh = connect_at(1, 0);

    wire_sent(&text->wire, "get a\r\n", 7);
    wire_sent(&binary->wire, noop, sizeof(noop));
    put(binary, 0);
    put(text, 0);
    cr_expect(pool_check_out(fresh, WIRE_BINARY, 0, &evicted) == binary);
    cr_expect(pool_check_out(fresh, WIRE_BINARY, 0, &evicted) == NULL);
    cr_expect(pool_check_out(fresh, WIRE_TEXT, 0, &evicted) == text);
}

/* A forked child has no draining connections, and a close of their shadow fd ends them. */
Test(pool, draining_ones_and_the_rest)
{
    struct conn *conn = connect_at(1, 0);

    put_draining(conn, 0);
    cr_expect(pool_claim_shadow(conn, conn->fd) == conn);
    conn_move(conn, CONN_CLOSED);
    conn = connect_at(1, 0);
    put_draining(conn, 0);
    pool_flush(REASON_IDENTITY, &evicted);
    cr_expect(evicted.count == 1 && evicted.conn[0] == conn);
    conn_move(conn, CONN_CLOSED);
    conn = connect_at(1, 0);
    put_draining(conn, 0);
    cr_assert(pool_before_fork() == REASON_NONE);
    pool_after_fork_in_child();
    cr_expect(take_draining(1, 0) == NULL);
}

static void put_burst(uint16_t port, int count, msec_t now)
{
    struct conn *conns[8];

    for (int i = 0; i < count; i++)
        conns[i] = connect_at(port, now);
    for (int i = 0; i < count; i++)
        put(conns[i], now);
}

Test(pool, what_ten_seconds_did_not_need_is_closed_but_one)
{
    put_burst(1, 3, 0);
    put_burst(2, 1, 0);
    cr_expect(pool_due == POOL_LOW_WATER + 1);
    cr_assert(pool_evict_due(POOL_LOW_WATER, false, &evicted));
    cr_expect(evicted.count == 0, "exactly ten seconds is not longer");
    cr_expect(pool_surplus == 2);
    cr_assert(pool_evict_due(POOL_LOW_WATER + POOL_CUSTODY_PERIOD, false, &evicted));
    cr_expect(evicted.count == 2);
    for (size_t i = 0; i < evicted.count; i++)
        cr_expect(evicted.reason[i] == REASON_SURPLUS);
    cr_expect(pool_surplus == 0);
    cr_expect(pool_due == 55 * SECOND + 1);
    evicted.count = 0;
    cr_assert(pool_evict_due(55 * SECOND + 1, false, &evicted));
    cr_expect(evicted.count == 2 && evicted.reason[0] == REASON_IDLE_TIMEOUT);
    cr_expect(pool_due == POOL_NEVER);
}

Test(pool, what_was_needed_stays)
{
    struct conn *conn;

    put_burst(1, 3, 0);
    conn = take(1, 8 * SECOND);
    put(conn, 9 * SECOND);
    cr_assert(pool_evict_due(11 * SECOND, false, &evicted));
    cr_expect(evicted.count == 2);
    cr_expect(conn_state(conn) == CONN_IDLE);
    cr_expect(pool_due == 9 * SECOND + 55 * SECOND + 1);
}

Test(pool, a_burst_is_closed_in_several_steps)
{
    put_burst(1, 8, 0);
    put_burst(1, 4, 0);
    cr_assert(pool_evict_due(11 * SECOND, false, &evicted));
    cr_expect(evicted.count == POOL_EVICTED_MAX);
    cr_expect(pool_due <= 11 * SECOND, "more is due at once");
    evicted.count = 0;
    cr_assert(pool_evict_due(11 * SECOND, false, &evicted));
    cr_expect(evicted.count == 3);
}

Test(pool, before_an_endless_wait_all_but_one_go)
{
    put_burst(1, 3, 0);
    put_burst(2, 2, 0);
    cr_assert(pool_evict_due(0, true, &evicted));
    cr_expect(evicted.count == 3 && pool_surplus == 0);
    cr_expect(pool_due == 55 * SECOND + 1);
}

Test(pool, nothing_is_due_when_nothing_is_idle)
{
    struct conn *conn;

    cr_expect(custody_due_at() == POOL_NEVER);
    put_burst(1, 1, 0);
    cr_expect(custody_due_at() == 55 * SECOND + 1);
    conn = take(1, SECOND);
    cr_expect(custody_due_at() == POOL_NEVER);
    conn_move(conn, CONN_CLOSED);
}

Test(pool, a_dry_run_cuts_no_wait_but_forecasts)
{
    mode_word = MODE_DRY;
    put_burst(1, 3, 0);
    cr_expect(pool_due == POOL_NEVER);
    cr_assert(pool_evict_due(11 * SECOND, false, &evicted));
    cr_expect(evicted.count == 2);
}

/* Else a wait would be cut again at once, for work that cannot be done. */
Test(pool, work_is_put_off_while_another_thread_has_the_lock, .timeout = 60)
{
    pthread_t thread;

    put_burst(1, 3, 0);
    thread = stop_a_thread();
    cr_expect(!pool_evict_due(11 * SECOND, false, &evicted));
    cr_expect(pool_due == 11 * SECOND + POOL_CUSTODY_PERIOD);
    let_it_go_on(thread);
    cr_assert(pool_evict_due(pool_due, false, &evicted));
    cr_expect(evicted.count == 2);
}

Test(pool, a_due_moment_that_was_put_off_is_corrected)
{
    pthread_t thread;

    put_burst(1, 1, 0);
    thread = stop_a_thread();
    cr_expect(!pool_evict_due(0, false, &evicted));
    let_it_go_on(thread);
    cr_expect(pool_due == POOL_CUSTODY_PERIOD);
    cr_assert(pool_evict_due(POOL_CUSTODY_PERIOD, false, &evicted));
    cr_expect(evicted.count == 0 && pool_due == 55 * SECOND + 1);
}

Test(pool, a_piece_of_a_wait_is_counted_where_one_idled_longest)
{
    struct conn *first = connect_at(1, 0), *later = connect_at(2, 0);

    pool_count_piece();
    cr_expect(stats_read(&first->endpoint->stats->pieces) == 0, "nothing idles");
    put(first, 1);
    put(later, 2);
    pool_count_piece();
    pool_count_piece();
    cr_expect(stats_read(&first->endpoint->stats->pieces) == 2);
    cr_expect(stats_read(&later->endpoint->stats->pieces) == 0);
}

Test(pool, a_learned_limit_holds_for_what_is_idle_and_for_what_comes)
{
    struct conn *conn = connect_at(1, 0), *other = connect_at(2, 0);
    struct endpoint *endpoint = conn->endpoint;

    put(conn, 0);
    put(other, 0);
    pool_note_death(endpoint, 8 * SECOND, SECOND);
    cr_expect(stats_read(&endpoint->stats->idle_limit_ms) == 4 * SECOND);
    cr_expect(stats_read(&endpoint->stats->limits_learned) == 1);
    cr_expect(take(1, 4 * SECOND) == conn);
    put(conn, 4 * SECOND);
    cr_expect(take(1, 9 * SECOND) == NULL);
    cr_expect(evicted.count == 1 && evicted.reason[0] == REASON_IDLE_TIMEOUT);
    cr_expect(take(2, 9 * SECOND) == other, "another server");
}

Test(pool, waits_close_what_a_learned_limit_forbids)
{
    put_burst(1, 3, 0);
    pool_note_death(connect_at(1, 0)->endpoint, 8 * SECOND, 5 * SECOND);
    cr_expect(custody_due_at() <= 5 * SECOND);
    cr_assert(pool_evict_due(5 * SECOND, false, &evicted));
    cr_expect(evicted.count == 3 && evicted.reason[0] == REASON_IDLE_TIMEOUT);
}

Test(pool, a_learned_limit_is_forgotten)
{
    struct conn *conn = connect_at(1, 0);

    pool_note_death(conn->endpoint, 8 * SECOND, 0);
    put(conn, 60 * MINUTE);
    cr_expect(stats_read(&conn->endpoint->stats->idle_limit_ms) == 0);
    cr_expect(take(1, 60 * MINUTE + 50 * SECOND) == conn);
}
