/*
 * SO_LINGER set by a connection's last user: no other call waits until that user's bytes are
 * sent.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* How long close() may linger, and what counts as not having waited. In seconds. */
#define LINGERS 5
#define AT_ONCE 2

static int port_here;
static int listener;

/* A server that reads little: its receive window is soon full. */
static void listen_narrowly(void)
{
    int small = 4096;

    listener = listen_here(&port_here);
    cr_assert(setsockopt(listener, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small)) == 0);
    cr_assert(listen(listener, 16) == 0);
}

static long accept_here(void)
{
    return unseen(SYS_accept4, listener, NULL, NULL, 0);
}

static void say(long fd, const char *text)
{
    cr_assert(unseen(SYS_write, fd, text, strlen(text)) == (long)strlen(text));
}

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

static void linger(int fd)
{
    struct linger option = {1, LINGERS};

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_LINGER, &option, sizeof(option)) == 0);
}

static struct linger linger_of(int fd)
{
    struct linger option = {-1, -1};
    socklen_t len = sizeof(option);

    cr_assert(unseen(SYS_getsockopt, fd, SOL_SOCKET, SO_LINGER, &option, &len) == 0);
    return option;
}

/* More than the server reads: the rest stays in the kernel, unsent. */
static void store_much(int fd)
{
    static char value[200000];

    memset(value, 'x', sizeof(value));
    send_text(fd, "set k 0 0 200000\r\n");
    cr_assert(send(fd, value, sizeof(value), MSG_DONTWAIT) == sizeof(value));
    send_text(fd, "\r\n");
}

/* A connection that lingers and has much to send, closed and kept. */
static long leave_much(void)
{
    int fd = dial(port_here);
    long server = accept_here();
    double began = now();

    linger(fd);
    store_much(fd);
    close_by_another_thread(fd);
    EXPECT_EVENT(": kept, draining");
    cr_expect(now() - began < AT_ONCE);
    return server;
}

Test(draining, discarded_without_lingering, .timeout = 20, .init = listen_narrowly)
{
    long server = leave_much();
    double began;
    int fd;

    say(server, "END\r\n");
    usleep(20000);
    began = now();
    fd = dial(port_here);
    cr_expect(now() - began < AT_ONCE, "%f s", now() - began);
    EXPECT_EVENT(": discarded: UNEXPECTED_REPLY ");
    close(fd);
}

Test(draining, given_up_without_lingering, .timeout = 20, .init = listen_narrowly)
{
    struct rlimit limit, all;
    double began;
    int number;

    leave_much();
    number = shadow_fd();
    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    all = limit;
    limit.rlim_cur = (rlim_t)dup(0);
    close((int)limit.rlim_cur);
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    began = now();
    cr_expect(socket(AF_INET, SOCK_STREAM, 0) == -1);
    cr_expect(now() - began < AT_ONCE, "%f s", now() - began);
    cr_expect(unseen(SYS_fcntl, number, F_GETFD) == -EBADF);
    cr_assert(setrlimit(RLIMIT_NOFILE, &all) == 0);
}

/* Nor does a call wait that is given the fd of a connection closed unseen. */
Test(draining, lost_without_lingering, .timeout = 20, .init = listen_narrowly)
{
    int fd = dial(port_here), other;
    long server = accept_here();
    double began;

    send_text(fd, "get a\r\n");
    say(server, "END\r\n");
    expect_text(fd, "END\r\n");
    close(fd);
    fd = dial(port_here);
    EXPECT_EVENT(": reused as ");
    linger(fd);
    store_much(fd);
    unseen(SYS_close, fd);
    began = now();
    other = socket(AF_INET, SOCK_DGRAM, 0);
    cr_expect(other == fd);
    cr_expect(now() - began < AT_ONCE, "%f s", now() - began);
    EXPECT_NOT_KEPT("OTHER_SOCKET");
}

/* exec(), a child, or a bulk close may close it. The next user that sets SO_LINGER has it
 * again, and no other user has. */
Test(draining, idle_connections_do_not_linger, .timeout = 20)
{
    int fd = dial_server(), port = local_port(fd);

    linger(fd);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    cr_expect(linger_of(shadow_fd()).l_onoff == 0);
    for (int turn = 0; turn < 4; turn++) {
        struct sockaddr_in addr;

        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (turn % 2)
            linger(fd);
        cr_assert(
            connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) == 0);
        cr_expect(local_port(fd) == port);
        cr_expect(linger_of(fd).l_onoff == turn % 2);
        cr_expect(linger_of(fd).l_linger == turn % 2 * LINGERS);
        exchange(fd);
        close(fd);
        EXPECT_KEPT();
        cr_expect(linger_of(shadow_fd()).l_onoff == 0);
    }
}
