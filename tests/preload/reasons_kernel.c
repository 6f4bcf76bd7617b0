/*
 * Refusals for what the kernel says of the socket, and what is found stale at check-out.
 */
#include "harness.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void wait_readable(int fd)
{
    struct pollfd wait = {fd, POLLIN, 0};

    cr_assert(poll(&wait, 1, 5000) == 1);
}

Test(reasons_kernel, closed_by_the_peer, .timeout = 20)
{
    int fd = dial(scripted_server("END\r\n", 1));

    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    wait_readable(fd);
    close(fd);
    EXPECT_NOT_KEPT("NOT_ESTABLISHED");
}

Test(reasons_kernel, closed_by_the_peer_while_idle, .timeout = 20)
{
    int port = scripted_server("END\r\n", 2);
    int fd = dial(port);
    int twin;

    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    twin = local_port(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial(port);
    cr_expect(local_port(fd) == twin);
    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    close(fd);
    usleep(20000); /* whether the end arrives before or after the close, it must be noticed */
    fd = dial(port);
    cr_expect(local_port(fd) != twin);
    cr_expect(log_count("NOT_ESTABLISHED") == 1);
}

Test(reasons_kernel, bytes_behind_our_back, .timeout = 20)
{
    char answer[64];
    int fd = dial_server();

    exchange(fd);
    unseen(SYS_write, fd, "get a\r\n", 7);
    cr_assert(unseen(SYS_read, fd, answer, sizeof(answer)) > 0);
    close(fd);
    EXPECT_NOT_KEPT("UNSEEN_BYTES");
}

/* A request whose reply is still to come, sent past the hooks: only the kernel's counters know.
 */
Test(reasons_kernel, request_behind_our_back, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    unseen(SYS_write, fd, "get a\r\n", 7);
    close(fd);
    EXPECT_NOT_KEPT("UNSEEN_BYTES");
}

Test(reasons_kernel, bytes_behind_our_back_while_idle, .timeout = 20)
{
    int port = park();
    int fd;

    unseen(SYS_write, private_number(), "get a\r\n", 7);
    fd = dial_server();
    cr_expect(local_port(fd) != port);
    EXPECT_EVENT(": discarded: UNSEEN_BYTES ");
}

/* A close we did not see, the number reused by accept(): it is another socket. */
Test(reasons_kernel, number_reused_by_accept, .timeout = 20)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fd, client, accepted;
    char byte;

    cr_assert(bind(listener, (struct sockaddr *)loopback(&addr, 0), sizeof(addr)) == 0);
    cr_assert(listen(listener, 1) == 0);
    cr_assert(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
    client = dial(ntohs(addr.sin_port));
    fd = dial_server();
    exchange(fd);
    unseen(SYS_close, fd);
    accepted = (int)unseen(SYS_accept, listener, NULL, NULL);
    cr_assert(accepted == fd);
    cr_expect(close(accepted) == 0);
    EXPECT_NOT_KEPT("OTHER_SOCKET");
    cr_expect(recv(client, &byte, 1, 0) == 0, "the accepted socket was not really closed");
}

/* The hook of accept() notices by itself that what it knew of the number is wrong. */
Test(reasons_kernel, number_reused_by_a_hooked_call, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    unseen(SYS_close, fd);
    cr_assert(socket(AF_INET, SOCK_DGRAM, 0) == fd);
    EXPECT_NOT_KEPT("OTHER_SOCKET");
    cr_expect(close(fd) == 0);
}

Test(reasons_kernel, fresh_number_reused, .timeout = 20)
{
    struct sockaddr_in addr;
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    unseen(SYS_close, fd);
    cr_assert(unseen(SYS_socket, AF_INET, SOCK_STREAM, 0) == fd);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(local_port(fd) != port, "lent over a socket whose options are not known");
}

Test(reasons_kernel, flags_that_cannot_be_undone, .timeout = 20)
{
    int on = 1;

    for (int way = 0; way < 4; way++) {
        int fd = dial_server();

        exchange(fd);
        if (way == 0)
            cr_assert(fcntl(fd, F_SETFL, O_ASYNC) == 0);
        else if (way == 1)
            cr_assert(fcntl(fd, F_SETOWN, getpid()) == 0);
        else if (way == 2)
            cr_assert(ioctl(fd, FIOASYNC, &on) == 0);
        else
            unseen(SYS_fcntl, fd, F_SETFL, O_ASYNC);
        close(fd);
        EXPECT_NOT_KEPT("ODD_FLAGS");
    }
}

/* An empty read of bytes that are there: the kernel has counted what we have not read. */
Test(reasons_kernel, unread_bytes, .timeout = 20)
{
    char byte;
    int fd = dial(scripted_server("END\r\nEND\r\n", 0));

    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    cr_assert(recv(fd, &byte, 1, MSG_PEEK) == 1);
    close(fd);
    EXPECT_NOT_KEPT("UNSEEN_BYTES");
}
