/*
 * Children: each process has its own pooled connections, whatever call made it. Also calls made
 * before our constructor has run, or after our destructor has.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/io_uring.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
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
    int shadow = shadow_fd();
    pid_t child = fork();
    int fd;

    if (child == 0) {
        int closed = unseen(SYS_fcntl, shadow, F_GETFD) == -EBADF;
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

/* A child of vfork() shares our memory. What it does to its fds must not change our records. */
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

/* The end of the inner child does not make the outer one the owner of the pool. */
Test(children, vfork_in_a_child_of_vfork, .timeout = 20)
{
    volatile int spoiled = 0;
    pid_t child, inner;
    struct sockaddr_in addr;
    int port = park();
    int fd;

    loopback(&addr, server_port());
    child = vfork();
    if (child == 0) {
        inner = vfork();
        if (inner == 0)
            _exit(0);
        spoiled = waitpid(inner, NULL, 0) != inner;
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
            !exchange_quietly(fd))
            spoiled = 1;
        close(fd);
        _exit(0);
    }
    expect_good_end(child);
    cr_expect(!spoiled);
    cr_expect(log_count_of(child, "") == 0, "the child's connection came from the pool");
    cr_expect(log_count(": reused as ") == 0);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

/* Children made by calls that run no fork handlers, and the reason the library gives. */
enum orphan {
    BY_BARE_FORK,
    BY_CLONE,
    BY_CLONE_IN_OUR_MEMORY,
    BY_SYSCALL_FORK,
    BY_SYSCALL_CLONE,
    BY_SYSCALL_CLONE3,
    ORPHANS,
};

static char stack[ORPHANS][65536] __attribute__((aligned(16)));
static int wake[2];

/* Waits until the parent says so, then reads from its fds, by calls that the library does not
 * see. The exit code is the number of fds that had something to read. */
static int look_at_our_fds(void *unused)
{
    char byte;
    int found = 0;

    (void)unused;
    unseen(SYS_read, wake[0], &byte, 1);
    for (int fd = LOWEST_PRIVATE; fd < 9000; fd++)
        found += unseen(SYS_recvfrom, fd, &byte, 1, MSG_DONTWAIT, NULL, NULL) == 1;
    unseen(SYS_exit, found);
    return 0;
}

static pid_t make_orphan(enum orphan way, int (*body)(void *))
{
    uint64_t arguments[11] = {[4] = SIGCHLD}; /* struct clone_args */
    void *top = stack[way] + sizeof(stack[way]);
    pid_t child = -1;

    switch (way) {
    case BY_BARE_FORK:
        child = _Fork();
        break;
    case BY_CLONE:
        return clone(body, top, SIGCHLD, NULL);
    case BY_CLONE_IN_OUR_MEMORY:
        return clone(body, top, SIGCHLD | CLONE_VM, NULL);
    case BY_SYSCALL_FORK:
#ifdef SYS_fork
        child = (pid_t)syscall(SYS_fork);
        break;
#endif
    case BY_SYSCALL_CLONE:
        child = (pid_t)syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
        break;
    default:
        child = (pid_t)syscall(SYS_clone3, arguments, sizeof(arguments));
        if (child < 0)
            cr_skip_test("no clone3() here");
    }
    if (child == 0)
        body(NULL);
    return child;
}

static void expect_nothing_for_orphan(enum orphan way)
{
    int port = park();
    pid_t child;
    int fd;

    cr_assert(pipe(wake) == 0);
    child = make_orphan(way, look_at_our_fds);
    cr_assert(child > 0);
    fd = dial_server();
    cr_expect(local_port(fd) != port, "way %d: reused although a child has it", way);
    EXPECT_EVENT(": discarded: FORKED ");
    send_text(fd, "get nothing\r\n");
    cr_expect(recv(fd, (char[1]){0}, 1, MSG_PEEK) == 1);
    cr_assert(write(wake[1], "!", 1) == 1);
    expect_good_end(child);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
    close(wake[0]);
    close(wake[1]);
}

/* Such a child has the parent's idle connections open, so the parent does not reuse them. It
 * reuses connections that it opens later. */
Test(children, orphans, .timeout = 20)
{
    not_under_valgrind();
    for (int way = 0; way < ORPHANS; way++)
        expect_nothing_for_orphan(way);
}

static int parked;

/* Every call is the real one. */
static int connect_as_orphan(void *unused)
{
    int fd = dial_server();
    int result = local_port(fd) == parked || !exchange_quietly(fd);

    (void)unused;
    close(fd);
    close_range(3, ~0U, 0);
    unseen(SYS_exit, result);
    return 0;
}

Test(children, orphans_use_no_pool, .timeout = 20)
{
    not_under_valgrind();
    for (int way = 0; way < ORPHANS; way++) {
        pid_t child;

        parked = park();
        child = make_orphan(way, connect_as_orphan);
        expect_good_end(child);
        cr_expect(log_count_of(child, "") == 0, "way %d", way);
        exchange(dial_server());
    }
}

static void make_passing_child(int way)
{
    char *program[] = {"/bin/true", NULL};
    pid_t child = 0;

    if (way == 0)
        cr_assert(system("true") == 0);
    else if (way == 1)
        cr_assert(pclose(popen("true", "r")) == 0);
    else if (way == 2)
        cr_assert(posix_spawn(&child, program[0], NULL, NULL, program, environ) == 0);
    else if (way == 3)
        child = fork();
    else
        child = vfork();
    if (way >= 3 && child == 0) {
        execv(program[0], program);
        _exit(127);
    }
    if (way >= 2)
        expect_good_end(child);
}

/* A call that runs the fork handlers, or a child that is about to exec, costs the parent no
 * connection. */
Test(children, that_cost_nothing, .timeout = 20)
{
    int port = park();

    for (int way = 0; way < 5; way++) {
        int fd;

        make_passing_child(way);
        fd = dial_server();
        cr_expect(local_port(fd) == port, "way %d: %s", way, last_event());
        exchange(fd);
        close(fd);
        EXPECT_KEPT();
    }
}

/* A process that closes shadow fds and opens others in their place, unseen by the library. */
Test(children, that_share_the_table, .timeout = 20)
{
    int port = park();
    int fd;

    not_under_valgrind();
    cr_assert(pipe(wake) == 0 && write(wake[1], "!", 1) == 1);
    expect_good_end(
        clone(look_at_our_fds, stack[0] + sizeof(stack[0]), SIGCHLD | CLONE_FILES, NULL));
    fd = dial_server();
    EXPECT_EVENT(": discarded: NAMESPACE ");
    cr_expect(local_port(fd) != port);
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("NAMESPACE");
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

/* Before our constructor every call is the real one. After main() the pool still works. */
Test(children, before_our_constructor_and_after_main, .timeout = 20)
{
    pid_t child = run_early((char *const[]){"/bin/true", NULL});

    cr_expect(log_count_of(child, ": kept") == 4);
    cr_expect(log_count_of(child, ": reused as ") == 3);
}

/* The library does not know what went through the fd earlier. */
Test(children, ring_made_before_our_constructor, .timeout = 20)
{
    struct io_uring_params parameters = {0};
    pid_t child;

    if (syscall(SYS_io_uring_setup, 1, &parameters) < 0)
        cr_skip_test("io_uring_setup() is not to be had here");
    setenv("TEST_EARLY_RING", "1", 1);
    child = run_early((char *const[]){"/bin/true", NULL});
    cr_expect(log_count_of(child, ": kept") == 0);
    cr_expect(log_count_of(child, ": not kept: IO_URING ") >= 4);
}

static int interrupted, opened_by_the_child;
static pid_t made_by_the_handler;

static void fork_in_a_handler(int signal)
{
    (void)signal;
    made_by_the_handler = fork();
    if (made_by_the_handler != 0)
        return;
    close(interrupted);
    opened_by_the_child = dial_server();
}

static void *interrupt_the_receiver(void *receiver)
{
    wait_inside(getpid(), SYS_recvfrom);
    pthread_kill(*(pthread_t *)receiver, SIGUSR1);
    return NULL;
}

/* The child of a fork in a signal handler returns from the call that the handler interrupted.
 * Its next connection must not take the end of that call for the end of one of its own. */
Test(children, made_in_a_handler_that_interrupts_a_call, .timeout = 20)
{
    const struct sigaction action = {.sa_handler = fork_in_a_handler};
    pthread_t self = pthread_self(), thread;
    char byte;
    int port;

    interrupted = dial_server();
    exchange(interrupted);
    sigaction(SIGUSR1, &action, NULL);
    cr_assert(pthread_create(&thread, NULL, interrupt_the_receiver, &self) == 0);
    cr_expect(recv(interrupted, &byte, 1, 0) == -1 && errno == EINTR);
    if (made_by_the_handler == 0) {
        port = local_port(opened_by_the_child);
        if (!exchange_quietly(opened_by_the_child))
            _exit(1);
        close(opened_by_the_child);
        _exit(local_port(dial_server()) == port ? 0 : 2);
    }
    pthread_join(thread, NULL);
    expect_good_end(made_by_the_handler);
    exchange(interrupted);
}

/* Fork handlers registered before ours run in the child while the tables are locked. Their
 * calls must be real ones, and must not hang. */
Test(children, reentered_in_a_handler_of_fork, .timeout = 20)
{
    pid_t child = run_early((char *const[]){"/bin/sh", "-c", "( : ); :", NULL});

    cr_expect(log_count_of(child, "not tracked: REENTERED ") == 6);
}

/* A lock of the program, which its fork handler takes, as libraries do to keep the child
 * consistent. The handler was registered before ours, so it runs after ours. */
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

/* Talks to the server under that lock while another thread forks. */
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
    cr_expect(took < 5 * slowness(), "%f s", took);
    cr_expect(local_port(dial_server()) == port);
}
