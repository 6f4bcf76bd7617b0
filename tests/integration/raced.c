/*
 * One thread closes a connection while another is in a call on its fd.
 */
#include "harness.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static atomic_int round_begun, round_ended, raced_fd;
static void (*raced)(int fd);

static void *call_each_round(void *unused)
{
    for (int seen = 0;;) {
        int begun = round_begun;

        if (begun == seen)
            continue;
        if (begun < 0)
            return unused;
        raced(raced_fd);
        seen = begun;
        round_ended = begun;
    }
}

/* CHECK is told the fd after it was closed and the call has ended. */
static void close_during(void (*call)(int fd), int (*open_one)(void), void (*check)(int fd))
{
    const int rounds = 2000 / slowness();
    pthread_t thread;
    unsigned int seed = 1;

    raced = call;
    round_begun = round_ended = 0;
    cr_assert(pthread_create(&thread, NULL, call_each_round, NULL) == 0);
    for (int i = 1; i <= rounds; i++) {
        int fd;

        park();
        raced_fd = fd = open_one();
        round_begun = i;
        for (int spin = rand_r(&seed) % 5000; spin > 0; spin--)
            atomic_signal_fence(memory_order_seq_cst);
        close(fd);
        while (round_ended != i)
            continue;
        check(fd);
    }
    round_begun = -1;
    cr_assert(pthread_join(thread, NULL) == 0);
}

static int open_reused(void)
{
    return dial_server();
}

static int open_answered(void)
{
    int fd = dial_server();

    exchange(fd);
    return fd;
}

static int open_fresh(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static void limit_receiving(int fd)
{
    struct timeval limit = {7, 0};

    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit));
}

static void expect_no_limit(int closed)
{
    struct timeval limit = {0, 0}, none = {0, 0};
    socklen_t length = sizeof(limit);
    int fd = dial_server();

    (void)closed;
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &length) == 0);
    cr_expect(limit.tv_sec == 0, "the next user has the option");
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &none, sizeof(none));
    close(fd);
}

/* The call may set the option on a connection that has gone back to the pool. */
Test(threads, an_option_that_is_set_during_a_close, .timeout = 60)
{
    close_during(limit_receiving, open_answered, expect_no_limit);
}

static void duplicate(int fd)
{
    int copy = dup(fd);

    if (copy >= 0)
        close(copy);
}

static void expect_closed(int fd)
{
    bool is_open = unseen(SYS_fcntl, fd, F_GETFD) >= 0;

    cr_expect(!is_open, "%d is open", fd);
    if (is_open)
        unseen(SYS_close, fd);
}

/* The call puts a new connection at the fd. */
Test(threads, a_swap_during_a_close, .timeout = 60)
{
    close_during(duplicate, open_reused, expect_closed);
}

static void connect_it(int fd)
{
    struct sockaddr_in addr;

    connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr));
}

/* The call puts a pooled connection at the fd. */
Test(threads, a_connect_during_a_close, .timeout = 60)
{
    close_during(connect_it, open_fresh, expect_closed);
}
