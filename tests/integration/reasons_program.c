/*
 * Refusals because of what the program did to its connection, each by its own reason.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/sendfile.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/newer.h"

static int used_connection(void)
{
    int fd = dial_server();

    exchange(fd);
    return fd;
}

struct receiver {
    int fd;
    _Atomic pid_t tid;
    pthread_t thread;
};

static void *receive(void *argument)
{
    struct receiver *receiver = argument;
    char byte;

    receiver->tid = gettid();
    return (void *)recv(receiver->fd, &byte, 1, 0);
}

/* A thread that is inside recv() on FD. */
static void start_receiver(struct receiver *receiver, int fd)
{
    receiver->fd = fd;
    receiver->tid = 0;
    cr_assert(pthread_create(&receiver->thread, NULL, receive, receiver) == 0);
    while (receiver->tid == 0)
        sched_yield();
    wait_inside(receiver->tid, SYS_recvfrom);
}

/* A thread waits in recv() on an fd that another thread closes. It goes on waiting, as without
 * the library, and never sees a byte of the next user. */
Test(reasons_program, in_flight, .timeout = 20)
{
    static struct receiver receiver;
    int fd = used_connection();
    int port = local_port(fd);

    start_receiver(&receiver, fd);
    close(fd);
    EXPECT_NOT_KEPT("IN_FLIGHT");
    fd = dial_server();
    cr_expect(local_port(fd) != port);
    exchange(fd);
    wait_inside(receiver.tid, SYS_recvfrom);
    cr_expect(pthread_tryjoin_np(receiver.thread, NULL) == EBUSY, "the thread got something");
}

Test(reasons_program, two_threads_receive, .timeout = 20)
{
    static struct receiver receivers[2];
    int fd = used_connection();

    for (int i = 0; i < 2; i++)
        start_receiver(&receivers[i], fd);
    send_text(fd, "get a\r\n");
    close(fd);
    EXPECT_NOT_KEPT("CONCURRENT");
}

/* Only what the present user sends on a connection counts. */
Test(reasons_program, long_use, .timeout = 60)
{
    int port = 0;

    for (int user = 0; user < 3; user++) {
        int fd = used_connection();

        cr_expect(user == 0 || local_port(fd) == port);
        port = local_port(fd);
        for (int i = 0; i < 4000; i++)
            exchange(fd);
        close(fd);
    }
    for (int way = 0; way < 2; way++) {
        int fd = used_connection();

        cr_expect((local_port(fd) == port) == (way == 0));
        for (int i = 0; i < 4200; i++)
            exchange(fd);
        close(fd);
        EXPECT_NOT_KEPT("LONG_USE");
    }
}

Test(reasons_program, duplicated, .timeout = 20)
{
    for (int way = 0; way < 6; way++) {
        struct epoll_event event = {EPOLLIN, {.fd = 1}};
        int fd = used_connection();
        int copy = -1;

        /* An epoll set keeps reporting a closed fd while another fd refers to the socket. */
        cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
        if (way == 0)
            copy = dup(fd);
        else if (way == 1)
            copy = dup2(fd, 200);
        else if (way == 2)
            copy = dup3(fd, 200, O_CLOEXEC);
        else if (way == 3)
            copy = fcntl(fd, F_DUPFD, 100);
        else if (way == 4)
            copy = fcntl(fd, F_DUPFD_CLOEXEC, 100);
        else
            copy = (int)syscall(SYS_dup, fd);
        cr_assert(copy >= 0);
        close(fd);
        exchange(copy);
        close(copy);
        if (way < 5)
            EXPECT_NOT_KEPT("DUPLICATED");
        else
            EXPECT_NOT_KEPT("RAW_SYSCALL");
    }
}

static void pass(int fd, bool many)
{
    struct fd_message message;
    int pair[2];

    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    fill_fd_message(&message, fd);
    if (many)
        cr_assert(sendmmsg(pair[0], &message.msg, 1, 0) == 1);
    else
        cr_assert(sendmsg(pair[0], &message.msg.msg_hdr, 0) == 1);
}

Test(reasons_program, passed, .timeout = 20)
{
    posix_spawn_file_actions_t actions;

    for (int way = 0; way < 3; way++) {
        int fd = used_connection();

        if (way < 2) {
            pass(fd, way == 1);
        } else {
            cr_assert(posix_spawn_file_actions_init(&actions) == 0);
            cr_assert(posix_spawn_file_actions_adddup2(&actions, fd, fd) == 0);
        }
        close(fd);
        EXPECT_NOT_KEPT("PASSED");
    }
}

Test(reasons_program, stdio, .timeout = 20)
{
    FILE *stream;
    int fd = used_connection();

    stream = fdopen(fd, "r+");
    cr_assert(stream);
    close(fd);
    EXPECT_NOT_KEPT("STDIO");
    fd = used_connection();
    stream = fdopen(fd, "r+");
    cr_assert(fclose(stream) == 0);
    EXPECT_NOT_KEPT("CLOSED_IN_BULK");
    cr_expect(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

static int nothing(void *argument)
{
    (void)argument;
    return 0;
}

static void make_child(int way)
{
    static char stack[65536];
    pid_t child = 0;

    if (way == 0)
        child = fork();
    else if (way == 1)
        child = vfork();
    else if (way == 2)
        child = _Fork();
    else if (way == 3)
        child = clone(nothing, stack + sizeof(stack), SIGCHLD, NULL);
    else if (way == 4)
        cr_assert(pclose(popen("true", "r")) == 0);
    else
        cr_assert(system("true") == 0);
    if (way < 3 && child == 0)
        _exit(0);
    if (way < 4)
        cr_assert(waitpid(child, NULL, 0) == child);
}

Test(reasons_program, forked, .timeout = 20)
{
    for (int way = 0; way < 6; way++) {
        int fd = used_connection();

        make_child(way);
        exchange(fd);
        close(fd);
        EXPECT_NOT_KEPT("FORKED");
    }
}

Test(reasons_program, shut_down, .timeout = 20)
{
    int fd = used_connection();

    cr_assert(shutdown(fd, SHUT_RD) == 0);
    close(fd);
    EXPECT_NOT_KEPT("SHUT_DOWN");
}

Test(reasons_program, reconnected, .timeout = 20)
{
    struct sockaddr_in other;
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int fd = used_connection();

    cr_expect(connect(fd, (struct sockaddr *)loopback(&other, server_port()), sizeof(other)) ==
                  -1 &&
              errno == EISCONN);
    close(fd);
    EXPECT_KEPT();
    fd = used_connection();
    cr_expect(connect(fd, (struct sockaddr *)loopback(&other, 1), sizeof(other)) == -1 &&
              errno == EISCONN);
    close(fd);
    EXPECT_NOT_KEPT("RECONNECTED");
    fd = used_connection();
    cr_assert(connect(fd, &nowhere, sizeof(nowhere)) == 0);
    close(fd);
    EXPECT_NOT_KEPT("RECONNECTED");
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_expect(connect(fd, (struct sockaddr *)loopback(&other, 1), sizeof(other)) == -1 &&
              errno == ECONNREFUSED);
    close(fd);
    EXPECT_NOT_KEPT("RECONNECTED");
}

Test(reasons_program, bound, .timeout = 20)
{
    struct sockaddr_in addr;
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(bind(fd, (struct sockaddr *)loopback(&addr, 0), sizeof(addr)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(local_port(fd) != port);
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("BOUND");
}

Test(reasons_program, options_that_cannot_be_undone, .timeout = 20)
{
    int value = 65536;
    int fd = used_connection();

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &value, sizeof(value)) == 0);
    close(fd);
    EXPECT_NOT_KEPT("OPTION");
    fd = used_connection();
    value = 1;
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &value, sizeof(value)) == 0);
    close(fd);
    EXPECT_NOT_KEPT("OPTION");
}

Test(reasons_program, bytes_by_calls_that_are_not_tracked, .timeout = 20)
{
    for (int way = 0; way < 6; way++) {
        static char text[] = "get nothing\r\n";
        struct iovec iov = {text, sizeof(text) - 1};
        char path[] = "/tmp/mcpool-test-XXXXXX";
        int file = mkstemp(path);
        int pipes[2];
        int fd = used_connection();

        unlink(path);
        cr_assert(write(file, text, sizeof(text) - 1) > 0 && lseek(file, 0, SEEK_SET) == 0);
        cr_assert(pipe(pipes) == 0 && write(pipes[1], text, sizeof(text) - 1) > 0);
        if (way == 0)
            cr_assert(sendfile(fd, file, NULL, sizeof(text) - 1) > 0);
        else if (way == 1)
            cr_assert(splice(pipes[0], NULL, fd, NULL, sizeof(text) - 1, 0) > 0);
        else if (way == 2)
            cr_assert(pwritev2(fd, &iov, 1, -1, 0) > 0);
        else if (way == 3)
            cr_assert(send(fd, "!", 1, MSG_OOB) == 1);
        else if (way == 4)
            cr_expect(recv(fd, text, 1, MSG_TRUNC | MSG_DONTWAIT) == -1);
        else
            cr_expect(preadv2(fd, &iov, 1, -1, RWF_NOWAIT) == -1);
        close(fd);
        EXPECT_NOT_KEPT("UNTRACKED_IO");
        close(file);
        close(pipes[0]);
        close(pipes[1]);
    }
}

Test(reasons_program, raw_syscall, .timeout = 20)
{
    char answer[64];
    int fd = used_connection();

    cr_assert(syscall(SYS_write, fd, "get a\r\n", 7) == 7);
    cr_assert(syscall(SYS_read, fd, answer, sizeof(answer)) > 0);
    close(fd);
    EXPECT_NOT_KEPT("RAW_SYSCALL");
}

/* What the library must do for each system call that hooks/syscalls.def lists. */
#define NO_FD  0u
#define FD(at) (1u << (at))
static const struct {
    const char *name, *effect;
    long nr;
    unsigned int fds;
} listed_calls[] = {
#define SYSCALL(name, fds, effect) {#name, #effect, SYS_##name, fds},
#include "hooks/syscalls.def"
#undef SYSCALL
};
#define LISTED_CALLS (sizeof(listed_calls) / sizeof(listed_calls[0]))

/* Which of the calls succeed although all arguments but the fd are -1. */
static bool may_succeed(long nr)
{
    return nr == SYS_dup || nr == SYS_fchmod || nr == SYS_fchown;
}

Test(reasons_program, fds_of_raw_syscalls, .timeout = 20)
{
    unsigned int checked = 0;

    for (size_t i = 0; i < LISTED_CALLS; i++) {
        for (int at = 0; at < 6; at++) {
            long a[] = {-1, -1, -1, -1, -1, -1}, result;
            int fd;

            if (!(listed_calls[i].fds & FD(at)))
                continue;
            a[at] = fd = used_connection();
            result = syscall(listed_calls[i].nr, a[0], a[1], a[2], a[3], a[4], a[5]);
            cr_expect(result == -1 || may_succeed(listed_calls[i].nr), "%s",
                      listed_calls[i].name);
            close(fd);
            if (listed_calls[i].nr == SYS_dup)
                close((int)result);
            EXPECT_NOT_KEPT("RAW_SYSCALL");
            checked++;
        }
    }
    cr_expect(checked >= 24);
}

Test(reasons_program, identity_by_raw_syscalls, .timeout = 20)
{
    unsigned int checked = 0;

    if (geteuid() != 0)
        cr_skip_test("only root can change its user");
    for (size_t i = 0; i < LISTED_CALLS; i++) {
        long first = listed_calls[i].nr == SYS_chroot ? (long)"/" : 0;
        int fd;

        /* pivot_root() needs another root, see the suite family_identity. */
        if (strcmp(listed_calls[i].effect, "change_identity") != 0 ||
            listed_calls[i].nr == SYS_pivot_root)
            continue;
        fd = used_connection();
        cr_expect(syscall(listed_calls[i].nr, first, 0L, 0L) == 0, "%s", listed_calls[i].name);
        close(fd);
        EXPECT_NOT_KEPT("IDENTITY");
        checked++;
    }
    cr_expect(checked >= 10);
}

/* close() through syscall() counts as a close: libuv makes it so. */
Test(reasons_program, close_by_syscall, .timeout = 20)
{
    int fd = used_connection();

    cr_expect(syscall(SYS_close, fd) == 0);
    EXPECT_KEPT();
    cr_expect(syscall(SYS_close, fd) == -1 && errno == EBADF);
}

Test(reasons_program, epoll_sets, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    int fd = used_connection();

    for (int i = 0; i < 5; i++)
        cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_SETS");
}

Test(reasons_program, epoll_mode, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 1}};
    struct sockaddr_in addr;
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(local_port(fd) != port);
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_MODE");
}

Test(reasons_program, epoll_unknown, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    int epfd = epoll_create1(0);
    int fd = used_connection();

    cr_assert(dup(epfd) >= 0);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    close(epfd);
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_UNKNOWN");
    epfd = epoll_create1(0);
    fd = used_connection();
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    unseen(SYS_close, epfd);
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_UNKNOWN");
}

Test(reasons_program, identity, .timeout = 20)
{
    int fd, port;

    if (geteuid() != 0)
        cr_skip_test("only root can change its user");
    fd = used_connection();
    port = park();
    cr_assert(seteuid(65534) == 0);
    cr_assert(seteuid(0) == 0);
    close(fd);
    EXPECT_NOT_KEPT("IDENTITY");
    cr_expect(local_port(dial_server()) != port,
              "reused by another user than the one that opened it");
}

Test(reasons_program, descriptors_unshared, .timeout = 20)
{
    int fd;

    park();
    cr_assert(unshare(CLONE_FILES) == 0);
    EXPECT_EVENT(": discarded: NAMESPACE ");
    fd = used_connection();
    close(fd);
    EXPECT_NOT_KEPT("NAMESPACE");
}
