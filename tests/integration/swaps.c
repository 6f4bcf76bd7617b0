/*
 * Text and binary users of one server. A connection speaks one protocol for its whole life; a
 * wrong guess is repaired by a swap.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static const char noop[24] = {'\x80', '\x0a'};

static void expect_noop(int fd)
{
    char answer[24];

    cr_assert(recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer), "%s",
              last_event());
    cr_assert(answer[0] == '\x81' && answer[1] == '\x0a');
}

static void exchange_binary(int fd)
{
    cr_assert(send(fd, noop, sizeof(noop), MSG_NOSIGNAL) == sizeof(noop));
    expect_noop(fd);
}

static void park_binary(void)
{
    int fd = dial_server();

    exchange_binary(fd);
    close(fd);
    EXPECT_KEPT();
}

static int dial_prepared(void)
{
    struct sockaddr_in addr;
    int on = 1;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    return fd;
}

Test(swaps, wrong_guess_is_repaired, .timeout = 20)
{
    long before;

    park();
    park_binary();
    cr_expect(log_count(": swapped at ") == 1);
    before = opened_at_server();
    /* Both kinds are idle now; the library expects the protocol of the last user again. */
    for (int i = 0; i < 10; i++)
        park_binary();
    cr_expect(log_count(": swapped at ") == 1);
    cr_expect(opened_at_server() - before == 1);
    park();
    cr_expect(log_count(": swapped at ") == 2);
}

/* Client libraries that prepare their sockets differently are told apart. */
Test(swaps, habits_are_learned, .timeout = 20)
{
    long before;
    int fd;

    park();
    fd = dial_prepared();
    exchange_binary(fd);
    close(fd);
    before = opened_at_server();
    for (int i = 0; i < 10; i++) {
        park();
        fd = dial_prepared();
        exchange_binary(fd);
        close(fd);
    }
    cr_expect(opened_at_server() - before == 1);
    cr_expect(log_count(": swapped at ") <= 1);
}

/* Options and registrations made since connect() are on the new connection after the swap. */
Test(swaps, repaired_at_the_same_fd, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 5}}, got = {0};
    struct timeval limit = {3, 0}, limit_read = {0, 0};
    socklen_t len = sizeof(limit_read);
    int epfd = epoll_create1(0);
    int on = 0;
    int fd;

    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    cr_assert(fcntl(fd, F_SETFD, 0) == 0);
    exchange_binary(fd);
    cr_expect(log_count(": swapped at ") == 1);
    cr_expect(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit_read, &len) == 0 &&
              limit_read.tv_sec == 3);
    cr_expect(fcntl(fd, F_GETFD) == 0);
    cr_expect((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
    cr_assert(send(fd, noop, sizeof(noop), 0) == sizeof(noop));
    cr_expect(epoll_wait(epfd, &got, 1, 1000) == 1 && got.data.u64 == 5);
    expect_noop(fd);
    len = sizeof(on);
    cr_expect(getsockopt(fd, SOL_SOCKET, SO_ERROR, &on, &len) == 0 && on == 0);
    close(fd);
    EXPECT_KEPT();
    cr_expect(epoll_wait(epfd, &got, 1, 0) == 0);
}

Test(swaps, repaired_by_every_call, .timeout = 20)
{
    struct iovec pieces[3] = {{(void *)noop, 0}, {(void *)noop, 1}, {(void *)(noop + 1), 23}};
    struct msghdr msg = {.msg_iov = pieces, .msg_iovlen = 3};
    struct mmsghdr msgs = {.msg_hdr = msg};
    int fd;

    for (int i = 0; i < 6; i++) {
        park();
        fd = dial_server();
        EXPECT_EVENT(": reused as ");
        switch (i) {
        case 0:
            cr_assert(write(fd, noop, 24) == 24);
            break;
        case 1:
            cr_assert(send(fd, noop, 24, 0) == 24);
            break;
        case 2:
            cr_assert(sendto(fd, noop, 24, 0, NULL, 0) == 24);
            break;
        case 3:
            cr_assert(writev(fd, pieces, 3) == 24);
            break;
        case 4:
            cr_assert(sendmsg(fd, &msg, 0) == 24);
            break;
        case 5:
            cr_assert(sendmmsg(fd, &msgs, 1, 0) == 1);
            break;
        }
        expect_noop(fd);
        close(fd);
        EXPECT_KEPT();
        /* The text user makes text the expected protocol again for the next round. */
        fd = dial_server();
        exchange(fd);
        close(fd);
    }
}

Test(swaps, repaired_without_waiting, .timeout = 20)
{
    struct pollfd poller;
    int fd;
    ssize_t sent;

    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    sent = send(fd, noop, sizeof(noop), 0);
    if (sent == -1) {
        cr_assert(errno == EAGAIN);
        poller = (struct pollfd){fd, POLLOUT, 0};
        cr_assert(poll(&poller, 1, 5000) == 1);
        sent = send(fd, noop, sizeof(noop), 0);
    }
    cr_assert(sent == sizeof(noop));
    poller = (struct pollfd){fd, POLLIN, 0};
    cr_assert(poll(&poller, 1, 5000) == 1);
    expect_noop(fd);
    close(fd);
    EXPECT_KEPT();
}

/* Bytes of a value are not taken for the first byte. */
Test(swaps, only_the_first_byte_counts, .timeout = 20)
{
    int fd;

    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    send_text(fd, "set binary-value 0 0 1\r\n");
    send_text(fd, "\x80");
    send_text(fd, "\r\n");
    expect_text(fd, "STORED\r\n");
    close(fd);
    EXPECT_KEPT();
    cr_expect(log_count(": swapped at ") == 0);
}

/* Nor are they when the first bytes were sent on a duplicate. */
Test(swaps, not_after_unseen_bytes, .timeout = 20)
{
    int fd, copy;

    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    copy = dup(fd);
    send_text(copy, "set binary-value 0 0 1\r\n");
    send_text(fd, "\x80\r\n");
    expect_text(fd, "STORED\r\n");
    cr_expect(log_count(": swap failed at ") == 0);
}

/* The fd is something else by now, which the library may not swap or shut down. */
Test(swaps, not_at_an_fd_reused_unseen, .timeout = 20)
{
    for (int way = 0; way < 2; way++) {
        int pair[2];
        int fd;

        park();
        fd = dial_server();
        EXPECT_EVENT(": reused as ");
        cr_assert((way == 0 ? socketpair(AF_UNIX, SOCK_STREAM, 0, pair) : pipe(pair)) == 0);
        cr_assert(unseen(SYS_dup3, pair[1], fd, 0) == fd);
        cr_expect(write(fd, "\x80", 1) == 1);
        cr_expect(log_count(": swap failed at ") == 0 && log_count(": swapped at ") == 0);
        cr_expect(read(pair[0], &(char){0}, 1) == 1);
        cr_expect(way == 1 || send(pair[0], "x", 1, MSG_NOSIGNAL) == 1, "it was shut down");
        close(fd);
    }
}

static void expect_nothing_more(long server)
{
    char got[64];

    cr_expect(unseen(SYS_recvfrom, server, got, sizeof(got), MSG_DONTWAIT, NULL, NULL) == 7);
}

/* The server is gone, so there is no connection to swap in: the call fails, and no byte reaches
 * any server. */
Test(swaps, server_gone, .timeout = 20)
{
    int port;
    int listener = listen_here(&port);
    long server;
    int fd = dial_played(port, listener, &server);

    close(listener);
    cr_expect(send(fd, noop, sizeof(noop), MSG_NOSIGNAL) == -1);
    cr_expect(errno == ECONNRESET || errno == ECONNREFUSED || errno == EPIPE, "%d", errno);
    cr_expect(send(fd, noop, sizeof(noop), MSG_NOSIGNAL) == -1);
    close(fd);
    expect_nothing_more(server);
}

/* There is no connection to swap in: the same. */
Test(swaps, no_descriptors_left, .timeout = 20)
{
    struct rlimit before;
    int port;
    int listener = listen_here(&port);
    long server;
    int fd = dial_played(port, listener, &server);

    before = allow_no_more_fds();
    cr_expect(send(fd, noop, sizeof(noop), MSG_NOSIGNAL) == -1 && errno == ECONNRESET);
    cr_expect(send(fd, noop, sizeof(noop), MSG_NOSIGNAL) == -1 && errno == EPIPE);
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0);
    cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
    close(fd);
    expect_nothing_more(server);
    cr_expect(log_count(": swap failed at ") == 0, "the log needs a descriptor, too");
}
