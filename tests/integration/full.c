/*
 * A server without room: it answers so, or refuses a connect(). Idle connections are given up.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <unistd.h>

static int listener, port;

static void listen_for_us(void)
{
    listener = listen_here(&port);
}

/* N connections that are idle, and one more that the program keeps. */
static int park_here(int n)
{
    int fds[8];

    for (int i = 0; i <= n; i++) {
        char got[7];
        long served;

        fds[i] = dial(port);
        served = unseen(SYS_accept4, listener, NULL, NULL, 0);
        send_text(fds[i], "get a\r\n");
        cr_assert(unseen(SYS_recvfrom, served, got, 7, MSG_WAITALL, NULL, NULL) == 7);
        cr_assert(unseen(SYS_write, served, "END\r\n", 5) == 5);
        expect_text(fds[i], "END\r\n");
    }
    for (int i = 0; i < n; i++)
        close(fds[i]);
    return fds[n];
}

/* A socket that no idle connection can take the place of. */
static int odd_socket(int type)
{
    int size = 4096;
    int fd = socket(AF_INET, type, 0);

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0);
    return fd;
}

/* The server has refused a connection: one idle connection is left, and there are no more when
 * the program gives another one back. */
static void expect_one_is_kept(int n, int open)
{
    cr_expect(log_count(": discarded: SERVER_FULL ") == n - 1);
    close(open);
    EXPECT_EVENT(": discarded: SERVER_FULL ");
    cr_expect(log_count(": discarded: SERVER_FULL ") == n);
    dial(port);
    EXPECT_EVENT(": reused as ");
}

static void expect_full_reply(const char *request, size_t size)
{
    static const char full[] = "ERROR Too many open connections\r\n";
    struct sockaddr_in addr;
    int open = park_here(3);
    int fd = odd_socket(SOCK_STREAM);
    long served;

    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == 0);
    served = unseen(SYS_accept4, listener, NULL, NULL, 0);
    cr_assert(send(fd, request, size, 0) == (ssize_t)size);
    cr_assert(unseen(SYS_write, served, full, sizeof(full) - 1) == sizeof(full) - 1);
    expect_text(fd, full);
    cr_expect(log_count(": discarded: ") == 0);
    close(fd);
    cr_expect(log_count(": not kept: SERVER_FULL ") == 1);
    expect_one_is_kept(3, open);
}

Test(full, told_to_a_text_client, .timeout = 20, .init = listen_for_us)
{
    expect_full_reply("get a\r\n", 7);
}

Test(full, told_to_a_binary_client, .timeout = 20, .init = listen_for_us)
{
    static const char noop[24] = {'\x80', '\x0a'};

    expect_full_reply(noop, sizeof(noop));
}

Test(full, refused, .timeout = 20, .init = listen_for_us)
{
    struct sockaddr_in addr;
    int open = park_here(4);
    int fd = odd_socket(SOCK_STREAM);

    cr_assert(unseen(SYS_close, listener) == 0);
    cr_expect(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == -1 &&
              errno == ECONNREFUSED);
    expect_one_is_kept(4, open);
}

Test(full, refused_without_blocking, .timeout = 20, .init = listen_for_us)
{
    struct sockaddr_in addr;
    int open = park_here(4), error = 0;
    socklen_t len = sizeof(error);
    int fd = odd_socket(SOCK_STREAM | SOCK_NONBLOCK);
    struct pollfd poller = {fd, POLLOUT, 0};
    int result;

    cr_assert(unseen(SYS_close, listener) == 0);
    result = connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr));
    if (result == -1 && errno == EINPROGRESS) {
        cr_assert(poll(&poller, 1, 1000) == 1);
        cr_assert(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0);
        cr_expect(error == ECONNREFUSED);
    }
    expect_one_is_kept(4, open);
}

/* Another error is no word of the server. In a new network namespace nothing is reachable. */
Test(full, not_for_other_errors, .timeout = 20, .init = listen_for_us)
{
    struct sockaddr_in addr;
    int fd;

    park_here(3);
    if (unseen(SYS_unshare, CLONE_NEWNET) != 0)
        cr_skip_test("needs root");
    fd = odd_socket(SOCK_STREAM);
    cr_expect(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == -1 &&
              errno == ENETUNREACH);
    close(fd);
    cr_expect(log_count(": discarded: ") == 0);
}

/* A connect() that goes on has not failed yet. */
Test(full, not_before_it_is_known, .timeout = 20, .init = listen_for_us)
{
    struct sockaddr_in addr;
    int error = 0;
    socklen_t len = sizeof(error);
    int fd;

    park_here(3);
    fd = odd_socket(SOCK_STREAM | SOCK_NONBLOCK);
    cr_expect(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == -1);
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
    close(fd);
    cr_expect(log_count(": discarded: ") == 0);
}
