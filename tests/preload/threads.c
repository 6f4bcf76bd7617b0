/*
 * Threads, signal handlers and cancellation: every answer is the one that was asked for,
 * nothing hangs, nothing leaks.
 */
#include "harness.h"

#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in server;
static atomic_int mismatches;
static atomic_int cycles;

/* connect, set, get, close without Criterion's assertions, which are not for threads and signal
 * handlers. The value names the key. */
static void cycle(unsigned int who, unsigned int number)
{
    char request[128], wanted[128], answer[128];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int n, expected;
    ssize_t got = 0;

    n = snprintf(request, sizeof(request),
                 "set k-%u-%u 0 0 16\r\nvalue-%04u-%05u\r\nget k-%u-%u\r\n", who, number, who,
                 number, who, number);
    expected = snprintf(wanted, sizeof(wanted),
                        "STORED\r\nVALUE k-%u-%u 0 16\r\nvalue-%04u-%05u\r\nEND\r\n", who,
                        number, who, number);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0 ||
        send(fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
        mismatches++;
    } else {
        while (got < expected) {
            ssize_t more = recv(fd, answer + got, (size_t)(expected - got), 0);

            if (more < 0 && errno == EINTR)
                continue;
            if (more <= 0)
                break;
            got += more;
        }
        mismatches += got != expected || memcmp(answer, wanted, (size_t)expected) != 0;
        cycles++;
    }
    close(fd);
}

static void *many_cycles(void *argument)
{
    for (unsigned int i = 0; i < 500; i++)
        cycle((unsigned int)(size_t)argument, i);
    return NULL;
}

Test(threads, eight_on_one_endpoint, .timeout = 60)
{
    pthread_t threads[8];
    long before;

    loopback(&server, server_port());
    before = opened_at_server();
    for (size_t i = 0; i < 8; i++)
        cr_assert(pthread_create(&threads[i], NULL, many_cycles, (void *)i) == 0);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    cr_expect(mismatches == 0, "%d of %d wrong", mismatches, cycles);
    cr_expect(opened_at_server() - before <= 8 + 4);
}

static void on_alarm(int signal)
{
    static atomic_uint number;
    int saved = errno;

    (void)signal;
    cycle(9999, number++ % 1000);
    errno = saved;
}

/* Handlers that do the same as the code they interrupt, wherever that is. */
Test(threads, signal_handlers_use_the_pool, .timeout = 60)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval often = {{0, 1500}, {0, 1500}}, never = {{0, 0}, {0, 0}};

    loopback(&server, server_port());
    cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
    cr_assert(setitimer(ITIMER_REAL, &often, NULL) == 0);
    for (unsigned int i = 0; i < 3000; i++)
        cycle(1, i);
    cr_assert(setitimer(ITIMER_REAL, &never, NULL) == 0);
    cr_expect(cycles > 3000, "no handler ran");
    cr_expect(mismatches == 0, "%d of %d wrong", mismatches, cycles);
}

static void close_it(void *fd)
{
    close(*(int *)fd);
}

static void *wait_for_a_reply(void *argument)
{
    char byte;

    pthread_cleanup_push(close_it, argument);
    recv(*(int *)argument, &byte, 1, 0);
    pthread_cleanup_pop(1);
    return NULL;
}

/* More often than there are records: a cancelled call gives its record back. */
Test(threads, cancelled_calls_leak_nothing, .timeout = 60)
{
    for (int i = 0; i < 16500; i++) {
        pthread_t thread;
        int fd = dial_server();

        exchange(fd);
        cr_assert(pthread_create(&thread, NULL, wait_for_a_reply, &fd) == 0);
        pthread_cancel(thread);
        pthread_join(thread, NULL);
    }
    park();
    exchange(dial_server());
    EXPECT_EVENT(": reused as ");
}

struct connector {
    struct sockaddr_in to;
    int fd;
    _Atomic pid_t tid;
};

static void *connect_in_vain(void *argument)
{
    struct connector *connector = argument;

    pthread_cleanup_push(close_it, &connector->fd);
    connector->tid = gettid();
    connect(connector->fd, (struct sockaddr *)&connector->to, sizeof(connector->to));
    pthread_cleanup_pop(1);
    return NULL;
}

/* A server that accepts nobody: its queue is full, and what comes then gets no answer. */
static int deaf_server(void)
{
    struct sockaddr_in addr;
    int port;
    int listener = listen_here(&port);

    cr_assert(listen(listener, 0) == 0);
    loopback(&addr, port);
    for (int i = 0; i < 2; i++) {
        long fd = unseen(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

        unseen(SYS_connect, fd, &addr, sizeof(addr));
    }
    return port;
}

Test(threads, cancelled_connects_harm_nobody, .timeout = 20)
{
    static struct connector connector;
    int port = park();

    loopback(&connector.to, deaf_server());
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        void *result;

        connector.fd = socket(AF_INET, SOCK_STREAM, 0);
        connector.tid = 0;
        cr_assert(pthread_create(&thread, NULL, connect_in_vain, &connector) == 0);
        while (connector.tid == 0)
            sched_yield();
        wait_inside(connector.tid, SYS_connect);
        cr_assert(pthread_cancel(thread) == 0);
        cr_assert(pthread_join(thread, &result) == 0);
        cr_expect(result == PTHREAD_CANCELED);
        cr_expect(log_count(": not kept: UNUSED ") == i + 1);
    }
    cr_expect(local_port(dial_server()) == port);
}
