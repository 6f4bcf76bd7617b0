/*
 * Epoll registrations. Those of the connection's former user are gone, those of the fresh
 * socket remain.
 */
#include "harness.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);

static int add(int epfd, int fd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {events, {.u64 = data}};

    return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

static void expect_event(int epfd, uint32_t events, uint64_t data)
{
    struct epoll_event event = {0, {.u64 = 0}};

    cr_assert(epoll_wait(epfd, &event, 1, 5000) == 1);
    cr_expect(event.events == events && event.data.u64 == data, "events %x of %lu",
              event.events, (unsigned long)event.data.u64);
}

static void expect_silence(int epfd)
{
    struct epoll_event event;

    cr_expect(epoll_wait(epfd, &event, 1, 50) == 0);
}

/* As libev does: the fd is closed without EPOLL_CTL_DEL. The idle connection must not report to
 * the old set, and the fd can be registered again. */
static void reuse_without_del(uint32_t mode)
{
    int epfd = epoll_create1(0);
    int fd = dial_server();
    int again;

    cr_assert(add(epfd, fd, EPOLLIN | mode, 1) == 0);
    send_text(fd, "get a\r\n");
    expect_event(epfd, EPOLLIN, 1);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
    again = dial_server();
    cr_expect(again == fd);
    EXPECT_EVENT(": reused as ");
    send_text(again, "get a\r\n");
    expect_silence(epfd);
    cr_expect(add(epfd, again, EPOLLIN | mode, 2) == 0);
    expect_event(epfd, EPOLLIN, 2);
    expect_text(again, "END\r\n");
    close(again);
    EXPECT_KEPT();
}

Test(epoll, level, .timeout = 20)
{
    reuse_without_del(0);
}

Test(epoll, edge, .timeout = 20)
{
    reuse_without_del(EPOLLET);
}

/* As nginx does: the fd is registered once, before connect(). */
static void registered_before_connect(uint32_t mode)
{
    struct sockaddr_in addr;
    struct epoll_event event;
    int epfd = epoll_create1(0);
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    cr_assert(add(epfd, fd, EPOLLIN | EPOLLOUT | EPOLLRDHUP | mode, 77) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
                  -1 &&
              errno == EINPROGRESS);
    cr_expect(local_port(fd) == port);
    expect_event(epfd, EPOLLOUT, 77);
    send_text(fd, "get a\r\n");
    do {
        cr_assert(epoll_wait(epfd, &event, 1, 5000) == 1);
        cr_assert(event.data.u64 == 77);
    } while (!(event.events & EPOLLIN));
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
    expect_silence(epfd);
}

Test(epoll, level_before_connect, .timeout = 20)
{
    registered_before_connect(0);
}

Test(epoll, edge_before_connect, .timeout = 20)
{
    registered_before_connect(EPOLLET);
}

/* If the registrations cannot be made on the pooled connection, the fresh socket must stay as
 * it was. */
Test(epoll, set_lost_before_connect, .timeout = 20)
{
    struct sockaddr_in addr;
    int epfd = epoll_create1(0);
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(add(epfd, fd, EPOLLIN, 1) == 0);
    unseen(SYS_close, epfd);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    EXPECT_EVENT(": discarded: EPOLL_UNKNOWN ");
    cr_expect(local_port(fd) != port);
    exchange(fd);
}

/* The server closes an idle connection: no thread may be woken by it. */
Test(epoll, end_of_an_idle_connection_wakes_no_thread, .timeout = 20)
{
    int epfd = epoll_create1(0);
    int fd = dial(scripted_server("END\r\n", 2));
    char byte;
    int shadow;

    cr_assert(add(epfd, fd, EPOLLIN | EPOLLRDHUP, 1) == 0);
    send_text(fd, "get a\r\n");
    expect_event(epfd, EPOLLIN, 1);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
    shadow = shadow_fd();
    unseen(SYS_write, shadow, "x", 1);
    while (unseen(SYS_read, shadow, &byte, 1) > 0)
        ;
    expect_silence(epfd);
}

/* In a process with one thread an epoll set ends when its fd is closed, and the connection is
 * kept as usual. The test's own process has more threads, so another program is run. */
Test(epoll, set_closed_before_the_connection, .timeout = 20)
{
    static const char program[] = "import os, select, socket\n"
                                  "epoll = select.epoll()\n"
                                  "server = ('127.0.0.1', int(os.environ['TEST_PORT']))\n"
                                  "connection = socket.create_connection(server)\n"
                                  "epoll.register(connection, select.EPOLLIN)\n"
                                  "connection.sendall(b'get a\\r\\n')\n"
                                  "assert connection.recv(5) == b'END\\r\\n'\n"
                                  "epoll.close()\n"
                                  "connection.close()\n";
    pid_t child;

    not_under_valgrind(); /* which would follow it into Python */
    child = fork();

    if (child == 0) {
        execl("/usr/bin/python3", "python3", "-S", "-c", program, NULL);
        _exit(127);
    }
    expect_good_end(child);
    cr_expect(log_count_of(child, ": kept") == 1);
}

Test(epoll, deregistered_by_the_program, .timeout = 20)
{
    struct epoll_event event = {EPOLLOUT, {.u64 = 2}};
    int epfd = epoll_create(1);
    int fd = dial_server();

    cr_assert(add(epfd, fd, EPOLLIN, 1) == 0);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) == 0);
    expect_event(epfd, EPOLLOUT, 2);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) == 0);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) == -1 && errno == EBADF);
}

/* A connection may be in several sets at once, with other data in each. */
Test(epoll, several_sets, .timeout = 20)
{
    struct sockaddr_in addr;
    int sets[4];
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    for (int i = 0; i < 4; i++) {
        sets[i] = epoll_create1(0);
        cr_assert(add(sets[i], fd, EPOLLIN, 10 + (uint64_t)i) == 0);
    }
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(local_port(fd) == port);
    send_text(fd, "get a\r\n");
    for (int i = 0; i < 4; i++)
        expect_event(sets[i], EPOLLIN, 10 + (uint64_t)i);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    send_text(fd, "get a\r\n");
    for (int i = 0; i < 4; i++) {
        expect_silence(sets[i]);
        cr_expect(add(sets[i], fd, EPOLLIN, 20) == 0);
        expect_event(sets[i], EPOLLIN, 20);
    }
}

/* A one-shot registration that has fired is still one-shot. */
Test(epoll, one_shot_in_use, .timeout = 20)
{
    int epfd = epoll_create1(0);
    int fd = dial_server();

    cr_assert(add(epfd, fd, EPOLLIN | EPOLLONESHOT, 1) == 0);
    send_text(fd, "get a\r\n");
    expect_event(epfd, EPOLLIN, 1);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    cr_expect(add(epfd, fd, EPOLLIN, 2) == 0);
    send_text(fd, "get a\r\n");
    expect_event(epfd, EPOLLIN, 2);
}

/* We take two fds of one set for two sets. So the fresh socket gets no pooled connection, and
 * its registration stays as the program made it. */
Test(epoll, changed_through_a_duplicate_of_the_set, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 2}};
    struct sockaddr_in addr;
    int port = park();
    int epfd = epoll_create1(0);
    int copy = dup(epfd);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(add(epfd, fd, EPOLLIN, 1) == 0);
    cr_assert(epoll_ctl(copy, EPOLL_CTL_MOD, fd, &event) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(local_port(fd) != port);
    send_text(fd, "get a\r\n");
    expect_event(epfd, EPOLLIN, 2);
    expect_text(fd, "END\r\n");
}

/* A thread that waits in a set keeps the set alive after its fd is closed. */
struct waiter {
    int epfd;
    int patience; /* milliseconds */
    int result;
    struct epoll_event event;
    _Atomic pid_t tid;
    pthread_t thread;
};

static void *wait_in_set(void *argument)
{
    struct waiter *waiter = argument;

    waiter->tid = gettid();
    waiter->result = epoll_wait(waiter->epfd, &waiter->event, 1, waiter->patience);
    return NULL;
}

#ifdef SYS_epoll_wait
#define EPOLL_WAIT_CALL SYS_epoll_wait
#else
#define EPOLL_WAIT_CALL SYS_epoll_pwait
#endif

static void begin_waiting(struct waiter *waiter, int epfd, int patience)
{
    *waiter = (struct waiter){.epfd = epfd, .patience = patience};
    cr_assert(pthread_create(&waiter->thread, NULL, wait_in_set, waiter) == 0);
    while (waiter->tid == 0)
        sched_yield();
    wait_inside(waiter->tid, EPOLL_WAIT_CALL);
}

static void end_by_close(int epfd)
{
    cr_assert(close(epfd) == 0);
}

static void end_by_syscall(int epfd)
{
    cr_assert(syscall(SYS_close, epfd) == 0);
}

static void end_by_dup2(int epfd)
{
    cr_assert(dup2(STDIN_FILENO, epfd) == epfd && close(epfd) == 0);
}

static void end_by_dup3(int epfd)
{
    cr_assert(dup3(STDIN_FILENO, epfd, 0) == epfd && close(epfd) == 0);
}

static void end_by_bulk_close(int epfd)
{
    cr_assert(close_range((unsigned int)epfd, (unsigned int)epfd, 0) == 0);
}

static void (*const ends[])(int epfd) = {end_by_close, end_by_syscall, end_by_dup2, end_by_dup3,
                                         end_by_bulk_close};

/* The program closes the set and then the connection. The waiting thread gets no event of the
 * connection's next user: the event's data may point to freed memory by now. */
Test(epoll, set_closed_while_a_thread_waits_in_it, .timeout = 60)
{
    int stale = 0;

    for (int turn = 0; turn < 20; turn++) {
        struct waiter waiter;
        int epfd = epoll_create1(0);
        int fd = dial_server();

        exchange(fd);
        cr_assert(add(epfd, fd, EPOLLIN, 4711) == 0);
        begin_waiting(&waiter, epfd, 200);
        ends[turn % (int)(sizeof(ends) / sizeof(ends[0]))](epfd);
        close(fd);
        fd = dial_server();
        exchange(fd);
        close(fd);
        pthread_join(waiter.thread, NULL);
        stale += waiter.result != 0;
    }
    cr_expect(stale == 0, "%d of 20 threads were told of a connection that was closed", stale);
}

/* Fds that are still open still report to the thread. */
Test(epoll, open_connection_of_a_closed_set, .timeout = 20)
{
    struct waiter waiter;
    int epfd = epoll_create1(0);
    int fd = dial_server();

    exchange(fd);
    cr_assert(add(epfd, fd, EPOLLIN, 4711) == 0);
    begin_waiting(&waiter, epfd, 10000);
    close(epfd);
    send_text(fd, "get a\r\n");
    pthread_join(waiter.thread, NULL);
    cr_expect(waiter.result == 1 && waiter.event.data.u64 == 4711);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_UNKNOWN");
}

#define NOT_TRAPPED 4711

/* A seccomp filter: every epoll_ctl() raises a signal whose handler makes the call, except
 * those with a fifth argument. */
static struct sock_filter trap[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_epoll_ctl, 0, 3),
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[4])),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, NOT_TRAPPED, 1, 0),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog trap_program = {sizeof(trap) / sizeof(trap[0]), trap};

#if defined(__x86_64__)
#define RESULT_OF(context) ((context)->uc_mcontext.gregs[REG_RAX])
#elif defined(__aarch64__)
#define RESULT_OF(context) ((context)->uc_mcontext.regs[0])
#endif

static int watched[2]; /* the epoll set and the connection */
static _Atomic int registered, closed;

static void wait_until(_Atomic int *done)
{
    while (!*done)
        sched_yield();
}

/* The kernel has made the registration, and the thread is held up before its call returns. */
static void hold_up(int signal, siginfo_t *info, void *context)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};

    (void)signal;
    (void)info;
    RESULT_OF((ucontext_t *)context) =
        unseen(SYS_epoll_ctl, watched[0], EPOLL_CTL_ADD, watched[1], &event, NOT_TRAPPED);
    registered = 1;
    wait_until(&closed);
}

static void *register_in(void *unused)
{
    (void)unused;
    cr_expect(unseen(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &trap_program) == 0);
    cr_expect(add(watched[0], watched[1], EPOLLIN, 1) == 0);
    return NULL;
}

/* The thread that waits in the set may close the connection before epoll_ctl() has returned in
 * the thread that registers it. */
Test(epoll, closed_before_its_registration_returns, .timeout = 20)
{
    struct sigaction action = {.sa_sigaction = hold_up, .sa_flags = SA_SIGINFO};
    pthread_t thread;
    int again;

    watched[0] = epoll_create1(0);
    watched[1] = dial_server();
    exchange(watched[1]);
    sigaction(SIGSYS, &action, NULL);
    cr_assert(unseen(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    pthread_create(&thread, NULL, register_in, NULL);
    wait_until(&registered);
    close(watched[1]);
    EXPECT_NOT_KEPT("IN_FLIGHT");
    again = dial_server();
    closed = 1;
    pthread_join(thread, NULL);
    send_text(again, "get none_of_epoll\r\n");
    expect_silence(watched[0]);
    expect_text(again, "END\r\n");
}
