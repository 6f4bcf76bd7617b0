/*
 * Children: each process has connections of its own, whatever made it; and calls from places
 * where our constructor has not run or our destructor has.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);

static int exchange_quietly(int fd)
{
    char answer[8];

    return send(fd, "get nothing\r\n", 13, 0) == 13 && recv(fd, answer, 5, MSG_WAITALL) == 5;
}

Test(children, fork_leaves_the_pool_to_the_parent, .timeout = 20)
{
    int port = park();
    int number = private_number();
    pid_t child = fork();
    int fd;

    if (child == 0) {
        int closed = unseen(SYS_fcntl, number, F_GETFD) == -EBADF;
        int first, again;

        fd = dial_server();
        first = local_port(fd);
        if (!closed || first == port || !exchange_quietly(fd))
            _exit(1);
        close(fd);
        fd = dial_server();
        again = local_port(fd);
        for (int i = 3; i < 9000; i++)
            close(i);
        _exit(first == again ? 0 : 2);
    }
    expect_good_end(child);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

Test(children, connection_in_use_is_shared_for_good, .timeout = 20)
{
    int fd = dial_server();
    pid_t child;

    exchange(fd);
    child = fork();
    if (child == 0) {
        close(fd);
        _exit(log_count(": not kept: FORKED ") == 1 ? 0 : 1);
    }
    expect_good_end(child);
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("FORKED");
}

/* A child of vfork() runs in our memory: what it does to its numbers must not show in ours. */
Test(children, vfork, .timeout = 20)
{
    int port = park();
    int fd = dial_server();
    volatile int spoiled = 0;
    pid_t child;
    struct sockaddr_in addr;

    cr_assert(local_port(fd) == port);
    exchange(fd);
    park();
    loopback(&addr, server_port());
    child = vfork();
    if (child == 0) {
        int other = socket(AF_INET, SOCK_STREAM, 0);

        if (other < 0 || connect(other, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
            !exchange_quietly(other))
            spoiled = 1;
        close(other);
        close(fd);
        close_range(3, ~0U, 0);
        _exit(0);
    }
    expect_good_end(child);
    cr_expect(!spoiled);
    cr_expect(log_count_of(child, "") == 0, "the child's connection came from the pool");
    exchange(fd);
    cr_expect(log_count("discarded") == 0, "%s", last_event());
    cr_expect(close(fd) == 0);
    EXPECT_NOT_KEPT("FORKED");
    exchange(dial_server());
    EXPECT_EVENT(": reused as ");
}

/* No handler runs in such a child: everything in it is a plain call. */
Test(children, bare_fork, .timeout = 20)
{
    int port = park();
    pid_t child = _Fork();
    int fd;

    if (child == 0) {
        fd = dial_server();
        if (local_port(fd) == port || !exchange_quietly(fd))
            _exit(1);
        close(fd);
        close_range(3, ~0U, 0);
        _exit(0);
    }
    expect_good_end(child);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

/* Runs PROGRAM with the library early.so, made by run.sh, which connects in its constructor and
 * in handlers of fork(), atexit() and its end; see early.c. */
static pid_t run_early(char *const program[])
{
    const char *early = getenv("TEST_EARLY");
    char preload[4096];
    pid_t child;

    cr_assert(early != NULL);
    snprintf(preload, sizeof(preload), "%s:%s", getenv("LD_PRELOAD"), early);
    child = fork();
    if (child == 0) {
        setenv("LD_PRELOAD", preload, 1);
        execv(program[0], program);
        _exit(127);
    }
    expect_good_end(child);
    return child;
}

/* Before, every call is a plain one; after main() the pool still works. */
Test(children, before_our_constructor_and_after_main, .timeout = 20)
{
    pid_t child = run_early((char *const[]){"/bin/true", NULL});

    cr_expect(log_count_of(child, ": kept") == 4);
    cr_expect(log_count_of(child, ": reused as ") == 3);
}

/* Handlers of fork() that were registered before ours run while the tables are locked for the
 * child: they are turned away, not hung. */
Test(children, reentered_in_a_handler_of_fork, .timeout = 20)
{
    pid_t child = run_early((char *const[]){"/bin/sh", "-c", "( : ); :", NULL});

    cr_expect(log_count_of(child, "not tracked: REENTERED ") == 6);
}

/* A lock of the program's, which a handler of fork() takes, as libraries do that must be whole
 * in the child. The handler was registered before the library's own, so it runs after it. */
static pthread_mutex_t account = PTHREAD_MUTEX_INITIALIZER;
static atomic_bool is_guarded, forking;

static void take_account(void)
{
    if (!is_guarded)
        return;
    forking = true;
    pthread_mutex_lock(&account);
}

static void give_account(void)
{
    if (is_guarded)
        pthread_mutex_unlock(&account);
}

static void register_first(void)
{
    pthread_atfork(take_account, give_account, give_account);
}

static void (*const before_every_constructor)(void)
    __attribute__((used, section(".preinit_array"))) = register_first;

/* Speaks with the server under that lock, at the moment in which another thread forks. */
static void *speak_while_forking(void *argument)
{
    struct timespec began, ended;
    double *took = argument;

    pthread_mutex_lock(&account);
    is_guarded = true;
    while (!forking)
        sched_yield();
    clock_gettime(CLOCK_MONOTONIC, &began);
    for (int i = 0; i < 100; i++) {
        int fd = dial_server();

        exchange(fd);
        close(fd);
    }
    clock_gettime(CLOCK_MONOTONIC, &ended);
    *took =
        (double)(ended.tv_sec - began.tv_sec) + (double)(ended.tv_nsec - began.tv_nsec) / 1e9;
    pthread_mutex_unlock(&account);
    return NULL;
}

Test(children, a_fork_waits_for_a_thread_that_connects, .timeout = 20)
{
    int port = park();
    double took = 0;
    pthread_t thread;
    pid_t child;

    forking = is_guarded = false;
    cr_assert(pthread_create(&thread, NULL, speak_while_forking, &took) == 0);
    while (!is_guarded)
        sched_yield();
    child = fork();
    if (child == 0) {
        is_guarded = false;
        park();
        _exit(0);
    }
    pthread_join(thread, NULL);
    is_guarded = false;
    expect_good_end(child);
    cr_expect(log_count("not tracked: LOCKED ") > 0);
    cr_expect(took < 5, "%f s", took);
    cr_expect(local_port(dial_server()) == port);
}
