/*
 * Records of connections, the map of numbers, options, and text: the small parts.
 */
#include "conn.h"

#include <arpa/inet.h>
#include <limits.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "fdmap.h"
#include "text.h"

static void start(void)
{
    cr_assert(conn_start());
}

TestSuite(conn, .init = start);

static struct conn *mapped(int fd)
{
    struct conn *conn = conn_new(fd, AF_INET);

    cr_assert(conn);
    fdmap_exchange(fd, conn_slot(conn));
    return conn;
}

Test(conn, records_are_used_again)
{
    struct conn *first = conn_new(3, AF_INET);

    conn_refuse(first, REASON_STDIO);
    conn_move(first, CONN_CLOSED);
    cr_expect(conn_new(4, AF_INET) == first);
    cr_expect(conn_refusal(first) == REASON_NONE && conn_state(first) == CONN_FRESH);
    cr_expect(conn_of_slot(conn_slot(first)) == first);
    cr_expect(conn_of_slot(FDMAP_NONE) == NULL);
    cr_expect(conn_of_slot(FDMAP_EPOLL | 1) == NULL);
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

    cr_assert(conn_enter(3, CONN_CALL_RECEIVE) == conn);
    cr_expect(conn_calls_under_way(conn));
    fdmap_exchange(3, FDMAP_NONE);
    conn_move(conn, CONN_CLOSED);
    cr_expect(conn_new(4, AF_INET) != conn);
    conn_leave(conn, CONN_CALL_RECEIVE);
    cr_expect(conn_new(5, AF_INET) == conn);
}

Test(conn, calls_are_counted)
{
    struct conn *conn = mapped(3);
    uint64_t begun = conn_calls_begun(conn);

    cr_expect(!conn_calls_under_way(conn));
    conn_enter(3, CONN_CALL_SEND);
    conn_leave(conn, CONN_CALL_SEND);
    cr_expect(!conn_calls_under_way(conn) && conn_calls_begun(conn) == begun + 1);
    cr_expect(conn_enter(4, CONN_CALL_SEND) == NULL);
    cr_expect(conn_enter(-1, CONN_CALL_SEND) == NULL);
    cr_expect(conn_enter(INT_MAX, CONN_CALL_SEND) == NULL);
    fdmap_exchange(7, conn_slot(conn) | FDMAP_PRIVATE);
    cr_expect(conn_enter(7, CONN_CALL_SEND) == NULL);
}

Test(conn, two_of_a_kind_are_too_many)
{
    struct conn *conn = mapped(3);

    conn_enter(3, CONN_CALL_SEND);
    conn_enter(3, CONN_CALL_RECEIVE);
    conn_enter(3, CONN_CALL_OTHER);
    conn_enter(3, CONN_CALL_OTHER);
    cr_expect(conn_refusal(conn) == REASON_NONE);
    conn_enter(3, CONN_CALL_RECEIVE);
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

    cr_expect(conn_hold(conn));
    cr_expect(!conn_hold(conn) && conn_refusal(conn) == REASON_CONCURRENT);
    conn_let_go(conn);
    cr_expect(conn_hold(conn));
}

/* Opens, uses and closes records of the same few numbers as others do. */
static void *hammer(void *argument)
{
    unsigned int seed = (unsigned int)(size_t)argument;

    for (int i = 0; i < 20000; i++) {
        int fd = rand_r(&seed) % 4;
        struct conn *conn = conn_enter(fd, CONN_CALL_SEND);
        uint32_t slot = fdmap_get(fd);

        if (conn)
            conn_leave(conn, CONN_CALL_SEND);
        if (slot == FDMAP_NONE) {
            conn = conn_new(fd, AF_INET);
            if (!fdmap_replace(fd, FDMAP_NONE, conn_slot(conn)))
                conn_move(conn, CONN_CLOSED);
        } else if (fdmap_replace(fd, slot, FDMAP_NONE)) {
            conn_move(conn_of_slot(slot), CONN_CLOSED);
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
        uint32_t slot = fdmap_exchange(fd, FDMAP_NONE);

        if (slot != FDMAP_NONE)
            conn_move(conn_of_slot(slot), CONN_CLOSED);
    }
    while (conn_new(3, AF_INET))
        n++;
    cr_expect(n == CONN_MAX, "%d of %d are left", n, CONN_MAX);
}

Test(fdmap, bounds)
{
    cr_expect(fdmap_is_plain(-1) && fdmap_is_plain(FDMAP_SIZE) && fdmap_is_plain(INT_MAX));
    cr_expect(fdmap_get(-1) == FDMAP_NONE && fdmap_get(FDMAP_SIZE) == FDMAP_NONE);
    cr_expect(fdmap_is_plain(FDMAP_SIZE - 1));
    cr_expect(fdmap_exchange(FDMAP_SIZE - 1, 5) == FDMAP_NONE);
    cr_expect(!fdmap_is_plain(FDMAP_SIZE - 1) && fdmap_get(FDMAP_SIZE - 1) == 5);
    cr_expect(fdmap_end() == FDMAP_SIZE);
}

Test(fdmap, replace_needs_what_it_expects)
{
    cr_expect(fdmap_end() == 0);
    cr_expect(fdmap_replace(9, FDMAP_NONE, 1) && fdmap_end() == 10);
    cr_expect(!fdmap_replace(9, FDMAP_NONE, 2) && fdmap_get(9) == 1);
    cr_expect(fdmap_exchange(9, FDMAP_NONE) == 1 && fdmap_is_plain(9));
}

Test(options, what_can_be_noted)
{
    struct options options = {.given = 0};
    struct timeval time = {1, 0};
    int on = 1;

    cr_expect(options_note(&options, true, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
    cr_expect(options_note(&options, true, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)));
    cr_expect(options_note(&options, false, SOL_SOCKET, SO_SNDBUF, &on, sizeof(on)));
    cr_expect(!options_note(&options, true, SOL_SOCKET, SO_SNDBUF, &on, sizeof(on)),
              "too late");
    cr_expect(!options_note(&options, false, SOL_SOCKET, SO_MARK, &on, sizeof(on)), "unknown");
    cr_expect(!options_note(&options, false, IPPROTO_TCP, TCP_NODELAY, &on, 8), "odd size");
}

static int pair_of_sockets(int *other)
{
    *other = socket(AF_INET, SOCK_STREAM, 0);
    return socket(AF_INET, SOCK_STREAM, 0);
}

Test(options, carried_over_and_put_back)
{
    struct options have = {.given = 0}, want = {.given = 0};
    int on = 1, count = 5, value;
    socklen_t len = sizeof(value);
    int fresh;
    int connection = pair_of_sockets(&fresh);

    cr_assert(setsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    cr_assert(options_note(&have, true, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
    cr_assert(setsockopt(fresh, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count)) == 0);
    cr_assert(options_note(&want, false, IPPROTO_TCP, TCP_KEEPCNT, &count, sizeof(count)));
    cr_expect(options_fit(&have, &want));
    cr_expect(options_apply(connection, &have, fresh, &want));
    cr_assert(getsockopt(connection, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0);
    cr_expect(value == 0);
    cr_assert(getsockopt(connection, IPPROTO_TCP, TCP_KEEPCNT, &value, &len) == 0);
    cr_expect(value == 5);
    cr_expect(!options_apply(-1, &have, fresh, &want));
}

Test(options, fixed_ones_must_be_equal)
{
    struct options a = {.given = 0}, b = {.given = 0};
    int small = 4096, large = 8192;

    cr_assert(options_note(&a, false, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
    cr_expect(!options_fit(&a, &b) && !options_fit(&b, &a));
    cr_assert(options_note(&b, false, SOL_SOCKET, SO_RCVBUF, &large, sizeof(large)));
    cr_expect(!options_fit(&a, &b));
    cr_assert(options_note(&b, false, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)));
    cr_expect(options_fit(&a, &b));
}

Test(text, is_what_printf_writes)
{
    char ours[64], theirs[64];
    unsigned int seed = 1;

    for (int i = 0; i < 10000; i++) {
        int d = (int)((unsigned int)rand_r(&seed) << (rand_r(&seed) % 8));
        unsigned int u = (unsigned int)rand_r(&seed);
        unsigned long l = (unsigned long)rand_r(&seed) * (unsigned long)rand_r(&seed);
        size_t room = (size_t)(rand_r(&seed) % 63) + 1;

        snprintf(theirs, room, "<%s|%d|%u|%lu|%%>", "text", d, u, l);
        cr_expect(text_format(ours, room, "<%s|%d|%u|%lu|%%>", "text", d, u, l) ==
                  strlen(theirs));
        cr_expect(strcmp(ours, theirs) == 0, "'%s' is not '%s'", ours, theirs);
    }
    text_format(ours, sizeof(ours), "%d %lu", INT_MIN, ULONG_MAX);
    snprintf(theirs, sizeof(theirs), "%d %lu", INT_MIN, ULONG_MAX);
    cr_expect(strcmp(ours, theirs) == 0);
}
