/*
 * Calls that the kernel refuses. They had no effect, so the library must record none. The
 * seccomp filters are set as a container does, unseen by the library.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);
void closefrom(int first);

#define LOAD(field)           BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, field))
#define SKIP_UNLESS(k, n)     BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), 0, (n))
#define SKIP_IF(k, n)         BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (k), (n), 0)
#define SKIP_IF_NOT_SET(k, n) BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, (k), 0, (n))
#define RETURN(value)         BPF_STMT(BPF_RET | BPF_K, (value))
#define REFUSED_WITH(error)   (SECCOMP_RET_ERRNO | (error))

static void install(struct sock_filter *filter, size_t n)
{
    struct sock_fprog program = {(unsigned short)n, filter};

    if (unseen(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        unseen(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        _exit(2);
}

static void refuse_call(unsigned int nr, unsigned int error)
{
    struct sock_filter filter[] = {
        LOAD(nr),
        SKIP_UNLESS(nr, 1),
        RETURN(REFUSED_WITH(error)),
        RETURN(SECCOMP_RET_ALLOW),
    };

    install(filter, sizeof(filter) / sizeof(filter[0]));
}

/* As Linux before 5.11 does. */
static void refuse_close_range_with(unsigned int flag, unsigned int error)
{
    struct sock_filter filter[] = {
        LOAD(nr),
        SKIP_UNLESS(SYS_close_range, 3),
        LOAD(args[2]),
        SKIP_IF_NOT_SET(flag, 1),
        RETURN(REFUSED_WITH(error)),
        RETURN(SECCOMP_RET_ALLOW),
    };

    install(filter, sizeof(filter) / sizeof(filter[0]));
}

/* The library cannot know beforehand that this call will be refused. */
static void refuse_close_range_but_an_empty_one(unsigned int error)
{
    struct sock_filter filter[] = {
        LOAD(nr),        SKIP_UNLESS(SYS_close_range, 3), LOAD(args[0]),
        SKIP_IF(~0U, 1), RETURN(REFUSED_WITH(error)),     RETURN(SECCOMP_RET_ALLOW),
    };

    install(filter, sizeof(filter) / sizeof(filter[0]));
}

static int tcp_sockets(void)
{
    int n = 0;

    for (int fd = 3; fd < 65536; fd++) {
        int protocol = 0;
        socklen_t len = sizeof(protocol);

        n += unseen(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &len) == 0 &&
             protocol == IPPROTO_TCP;
    }
    return n;
}

/* Prints the failure and ends the child. Criterion's checks only work in the process of the
 * test. */
#define MUST(truth)                                                                            \
    do {                                                                                       \
        if (!(truth)) {                                                                        \
            fprintf(stderr, "%s:%d: not %s; %d TCP sockets, errno %d, log: %s\n", __func__,    \
                    __LINE__, #truth, tcp_sockets(), errno, last_event());                     \
            _exit(1);                                                                          \
        }                                                                                      \
    } while (0)

/* park() without Criterion's checks. */
static int cycle(void)
{
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    close(fd);
    return port;
}

/* A filter stays for good, so each of these has a process of its own. */
static void in_a_child(void (*body)(unsigned int error), unsigned int error)
{
    pid_t child;

    not_under_valgrind();
    needs_close_range();
    child = fork();
    if (child == 0) {
        body(error);
        _exit(0);
    }
    expect_good_end(child);
}

/* Forty rounds of a program that tries to close everything, as before an exec(), which then
 * fails. */
static void close_range_is_refused(unsigned int error)
{
    int port, others;

    refuse_call(SYS_close_range, error);
    port = cycle();
    others = tcp_sockets();
    for (int i = 0; i < 40; i++) {
        int fd = dial_server();

        exchange(fd);
        MUST(close_range((unsigned int)fd + 1, ~0U, 0) == -1 && errno == (int)error);
        MUST(syscall(SYS_close_range, fd + 1, ~0U, 0) == -1 && errno == (int)error);
        close(fd);
    }
    MUST(tcp_sockets() <= others + 1);
    MUST(cycle() == port);
    MUST(log_count(": discarded: ") == 0);
}

Test(fds, close_range_that_the_kernel_lacks, .timeout = 20)
{
    in_a_child(close_range_is_refused, ENOSYS);
}

Test(fds, close_range_that_a_filter_refuses, .timeout = 20)
{
    in_a_child(close_range_is_refused, EPERM);
}

static void closefrom_falls_back(unsigned int error)
{
    int left = 0, port;

    refuse_call(SYS_close_range, error);
    cycle();
    exchange(dial_server());
    closefrom(3);
    for (int fd = 3; fd < 65536; fd++)
        left += unseen(SYS_fcntl, fd, F_GETFD) >= 0;
    MUST(left == 0);
    port = cycle();
    MUST(cycle() == port);
}

Test(fds, closefrom_without_close_range, .timeout = 20)
{
    in_a_child(closefrom_falls_back, ENOSYS);
}

static void cloexec_is_refused(unsigned int error)
{
    int port, fd;

    refuse_close_range_with(CLOSE_RANGE_CLOEXEC, error);
    port = cycle();
    fd = dial_server();
    MUST(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) == -1 && errno == (int)error);
    MUST(close_range(3, ~0U, CLOSE_RANGE_CLOEXEC | CLOSE_RANGE_UNSHARE) == -1);
    exchange(fd);
    close(fd);
    MUST(cycle() == port);
    MUST(tcp_sockets() <= 2);
}

Test(fds, range_that_cannot_be_closed_on_exec, .timeout = 20)
{
    in_a_child(cloexec_is_refused, EINVAL);
}

static void unshare_is_refused(unsigned int error)
{
    int port;

    refuse_close_range_with(CLOSE_RANGE_UNSHARE, error);
    cycle();
    MUST(close_range(100, 200, CLOSE_RANGE_UNSHARE) == -1 && errno == (int)error);
    port = cycle();
    MUST(cycle() == port);
}

Test(fds, table_that_cannot_be_unshared, .timeout = 20)
{
    in_a_child(unshare_is_refused, EPERM);
}

/* Then the library closes and forgets its shadow fds. The program's own fds stay open, and
 * pooling goes on. */
static void close_range_fails_late(unsigned int error)
{
    struct epoll_event event = {.events = EPOLLIN};
    int others = tcp_sockets();
    int epfd = epoll_create1(0);
    int port, fd;

    refuse_close_range_but_an_empty_one(error);
    fd = dial_server();
    exchange(fd);
    MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    cycle();
    MUST(close_range((unsigned int)epfd, (unsigned int)epfd, 0) == -1 && errno == (int)error);
    exchange(fd);
    close(fd);
    MUST(strstr(last_event(), ": not kept: CLOSED_IN_BULK "));
    MUST(close_range(3, ~0U, 0) == -1 && errno == (int)error);
    MUST(tcp_sockets() == others);
    port = cycle();
    MUST(cycle() == port);
    MUST(epoll_wait(epfd, &event, 1, 0) == 0);
}

Test(fds, close_range_that_fails_late, .timeout = 20)
{
    in_a_child(close_range_fails_late, EPERM);
}

#ifdef SYS_dup2
static void dup2_is_refused(unsigned int error)
{
    int others = tcp_sockets();
    int port, fd;

    refuse_call(SYS_dup2, error);
    cycle();
    fd = shadow_fd();
    MUST(dup2(0, fd) == -1 && errno == (int)error);
    MUST(tcp_sockets() == others);
    port = cycle();
    MUST(cycle() == port);
}

Test(fds, dup2_over_a_shadow_fd_that_a_filter_refuses, .timeout = 20)
{
    in_a_child(dup2_is_refused, EPERM);
}

/* A registration that waits for a connection goes on waiting. */
static void dup2_over_a_connection_is_refused(unsigned int error)
{
    struct epoll_event event = {.events = EPOLLIN, .data = {.u32 = 7}};
    int epfd = epoll_create1(0);
    int fd;

    refuse_call(SYS_dup2, error);
    fd = dial_server();
    MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    exchange(fd);
    MUST(dup2(0, fd) == -1 && errno == (int)error);
    send_text(fd, "get nothing\r\n");
    MUST(epoll_wait(epfd, &event, 1, 3000) == 1 && event.data.u32 == 7);
}

Test(fds, dup2_over_a_connection_that_a_filter_refuses, .timeout = 20)
{
    in_a_child(dup2_over_a_connection_is_refused, EPERM);
}

/* By now the program has a file of its own at that fd. */
static void dup2_over_a_stranger_is_refused(unsigned int error)
{
    int fd;

    refuse_call(SYS_dup2, error);
    cycle();
    fd = shadow_fd();
    MUST(unseen(SYS_dup3, 0, fd, 0) == fd);
    MUST(dup2(0, fd) == -1 && errno == (int)error);
    MUST(unseen(SYS_fcntl, fd, F_GETFD) >= 0);
}

Test(fds, dup2_over_a_stranger_that_a_filter_refuses, .timeout = 20)
{
    in_a_child(dup2_over_a_stranger_is_refused, EPERM);
}
#endif

Test(fds, dup3_by_syscall_that_fails, .timeout = 20)
{
    int port = park();
    int fd = shadow_fd();

    errno = 0;
    cr_expect(syscall(SYS_dup3, -1, fd, 0) == -1 && errno == EBADF);
    cr_expect(tcp_sockets() == 1, "%d sockets", tcp_sockets());
    cr_expect(park() == port);
    fd = dial_server();
    exchange(fd);
    errno = 0;
    cr_expect(syscall(SYS_dup3, -1, fd, 0) == -1 && errno == EBADF);
    close(fd);
    EXPECT_KEPT();
}

/* An epoll set on which listen() was refused is still an epoll set: its registration is removed
 * before the connection is reused. */
Test(fds, listen_that_fails, .timeout = 20)
{
    struct epoll_event event = {.events = EPOLLIN};
    int port = park();
    int epfd = epoll_create1(0);
    int fd = dial_server();

    cr_expect(local_port(fd) == port);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    errno = 0;
    cr_expect(listen(epfd, 1) == -1 && errno == ENOTSOCK);
    errno = 0;
    cr_expect(listen(fd, 1) == -1 && errno == EINVAL);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    send_text(fd, "get nothing\r\n");
    usleep(50000);
    cr_expect(epoll_wait(epfd, &event, 1, 0) == 0, "an event of a connection that was closed");
    expect_text(fd, "END\r\n");
}

Test(fds, bind_and_fdopen_that_fail, .timeout = 20)
{
    struct sockaddr_in addr;
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    errno = 0;
    cr_expect(bind(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) == -1 &&
              errno == EADDRINUSE);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(local_port(fd) == port);
    errno = 0;
    cr_expect(fdopen(fd, "nonsense") == NULL && errno == EINVAL);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
}
