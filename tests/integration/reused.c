/*
 * A reused connection is at two fds, the program's and its shadow fd. At close() the library
 * knows most of its state without asking the kernel again. Here is what must hold all the same.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

/* A reused connection on which nothing was sent yet. */
static int dial_reused(void)
{
    int port = park();
    int fd = dial_server();

    cr_assert(local_port(fd) == port);
    return fd;
}

/* True when the next user gets the connection with the local port PORT. */
static bool next_gets(int port)
{
    int fd = dial_server();
    bool same = local_port(fd) == port;

    close(fd);
    return same;
}

/* Closes FD unseen, and puts one end of PAIR there. */
static void reuse_unseen(int fd, int pair[2])
{
    unseen(SYS_close, fd);
    cr_assert(unseen(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    cr_assert(pair[0] == fd);
}

Test(reused, keeps_its_shadow_fd, .timeout = 20)
{
    int shadow;
    int fd = dial_reused();

    shadow = shadow_fd();
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    cr_expect(shadow_fd() == shadow);
    cr_expect(unseen(SYS_fcntl, fd, F_GETFD) == -EBADF);
}

/* The kernel's counters are read at the latest when the connection would be reused. */
Test(reused, bytes_behind_our_back, .timeout = 20)
{
    char answer[64];
    int fd = dial_reused();
    int port = local_port(fd);

    exchange(fd);
    unseen(SYS_write, fd, "get a\r\n", 7);
    cr_assert(unseen(SYS_read, fd, answer, sizeof(answer)) > 0);
    close(fd);
    cr_expect(!next_gets(port));
    cr_expect(log_count(": discarded: UNSEEN_BYTES ") == 1);
}

/* The fd was closed unseen and reused: bytes moved there are not the connection's. */
Test(reused, fd_reused_unseen, .timeout = 20)
{
    int fd = dial_reused();
    int port = local_port(fd);
    int pair[2];

    exchange(fd);
    reuse_unseen(fd, pair);
    cr_assert(write(pair[0], "get a\r\n", 7) == 7);
    cr_assert(write(pair[1], "END\r\n", 5) == 5);
    expect_text(pair[0], "END\r\n");
    cr_expect(close(fd) == 0);
    cr_expect(unseen(SYS_fcntl, fd, F_GETFD) == -EBADF);
    cr_expect(!next_gets(port));
    cr_expect(log_count(": discarded: UNSEEN_BYTES ") == 1);
}

/* The same, and no bytes moved there: the connection is still clean. */
Test(reused, fd_reused_unseen_and_unused, .timeout = 20)
{
    int fd = dial_reused();
    int port = local_port(fd);
    int pair[2];

    exchange(fd);
    reuse_unseen(fd, pair);
    cr_expect(close(fd) == 0);
    cr_expect(recv(pair[1], pair, 1, 0) == 0, "what was there was not closed");
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

/* The program closes the shadow fd while the connection is in use. The connection stays the
 * program's, and gets another shadow fd when it is kept. */
Test(reused, shadow_fd_closed_by_the_program, .timeout = 20)
{
    int fd = dial_reused();
    int port = local_port(fd);

    cr_expect(close(shadow_fd()) == -1 && errno == EBADF);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

/* The shadow fd holds the connection open. It is closed before a refused connection is, or the
 * server would not notice the close. */
Test(reused, refused_ones_are_closed, .timeout = 20)
{
    int fd = dial_reused();
    int shadow = shadow_fd();

    send_text(fd, "get incomplete");
    close(fd);
    EXPECT_NOT_KEPT("REQUEST_PARTIAL");
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) == -EBADF);
}

Test(reused, bulk_close_ends_the_shadow_fd, .timeout = 20)
{
    int fd = dial_reused();
    int shadow = shadow_fd();

    needs_close_range();
    exchange(fd);
    cr_expect(close_range((unsigned int)fd, (unsigned int)fd, 0) == 0);
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) == -EBADF);
}

/* Every way to change the flags is noticed, also late changes. */
Test(reused, flags_of_one_user_are_not_the_next_ones, .timeout = 20)
{
    int on = 1;

    for (int way = 0; way < 4; way++) {
        int fd = dial_reused();
        int port = local_port(fd);

        if (way == 0)
            cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
        else if (way == 1)
            cr_assert(fcntl64(fd, F_SETFL, O_NONBLOCK) == 0);
        else if (way == 2)
            cr_assert(ioctl(fd, FIONBIO, &on) == 0);
        else
            cr_assert(fcntl(fd, F_SETFD, 0) == 0);
        send_text(fd, "get nothing\r\n");
        while (recv(fd, &(char[8]){0}, 5, MSG_WAITALL) != 5)
            continue;
        close(fd);
        EXPECT_KEPT();
        fd = dial_server();
        cr_expect(local_port(fd) == port);
        cr_expect((unseen(SYS_fcntl, fd, F_GETFL) & O_NONBLOCK) == 0, "way %d", way);
        cr_expect(unseen(SYS_fcntl, fd, F_GETFD) == FD_CLOEXEC, "way %d", way);
        exchange(fd);
        close(fd);
        EXPECT_KEPT();
    }
}

/* So are changes of the fresh socket's flags, however they are made. */
Test(reused, takes_on_the_flags_of_the_fresh_socket, .timeout = 20)
{
    int on = 1;

    park();
    needs_close_range();
    for (int way = 0; way < 6; way++) {
        struct sockaddr_in addr;
        int type = way == 0 ? SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC : SOCK_STREAM;
        int fd = socket(AF_INET, type, 0);
        int flags, fd_flags;

        if (way == 1)
            cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
        else if (way == 2)
            cr_assert(ioctl(fd, FIONBIO, &on) == 0);
        else if (way == 3)
            cr_assert(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
        else if (way == 4)
            cr_assert(ioctl(fd, FIOCLEX) == 0);
        else if (way == 5)
            cr_assert(close_range((unsigned int)fd, (unsigned int)fd, CLOSE_RANGE_CLOEXEC) ==
                      0);
        flags = (int)unseen(SYS_fcntl, fd, F_GETFL);
        fd_flags = (int)unseen(SYS_fcntl, fd, F_GETFD);
        cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()),
                          sizeof(addr)) == (flags & O_NONBLOCK ? -1 : 0));
        EXPECT_EVENT(": reused as ");
        cr_expect(unseen(SYS_fcntl, fd, F_GETFL) == flags, "way %d", way);
        cr_expect(unseen(SYS_fcntl, fd, F_GETFD) == fd_flags, "way %d", way);
        unseen(SYS_fcntl, fd, F_SETFL, O_RDWR);
        exchange(fd);
        unseen(SYS_fcntl, fd, F_SETFL, flags);
        close(fd);
        EXPECT_KEPT();
    }
}

/* The program comes first: all shadow fds are closed when it needs their fds. */
Test(reused, shadow_fds_make_way, .timeout = 20)
{
    struct rlimit limit;
    int fd = dial_reused();
    int shadow = shadow_fd();
    int last = -1, next;

    not_under_valgrind();
    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = (rlim_t)shadow + 1;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while ((next = dup(0)) >= 0)
        last = next;
    cr_expect(last == shadow, "%d is the last, %d was ours", last, shadow);
    cr_expect(errno == EMFILE);
    exchange(fd);
}
