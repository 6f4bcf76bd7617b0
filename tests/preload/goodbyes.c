/*
 * quit and shutdown(): what is clean is kept, and the number reads, writes and waits like one
 * whose server has hung up.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

static const char noop[24] = {'\x80', '\x0a'};
static const char quit[24] = {'\x80', '\x07', [12] = 1, 2, 3, 4};
static const char quitq[24] = {'\x80', '\x17'};

static void expect_tombstone(int fd)
{
    struct pollfd poller = {fd, POLLIN | POLLOUT, 0};
    char byte;

    cr_expect(poll(&poller, 1, 0) == 1 && poller.revents & POLLHUP);
    cr_expect(recv(fd, &byte, 1, 0) == 0);
    cr_expect(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    cr_expect(shutdown(fd, SHUT_RDWR) == 0);
    cr_expect(close(fd) == 0);
    cr_expect(fcntl(fd, F_GETFD) == -1);
}

/* The server must not hear of it, and the connection goes to the next one. */
static void expect_reuse(int port)
{
    int fd = dial_server();

    cr_expect(local_port(fd) == port);
    exchange(fd);
    close(fd);
}

Test(goodbyes, quit_in_text, .timeout = 20)
{
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    errno = EXDEV;
    cr_expect(send(fd, "quit\r\n", 6, 0) == 6);
    cr_expect(errno == EXDEV);
    EXPECT_KEPT();
    expect_reuse(port);
    expect_tombstone(fd);
}

Test(goodbyes, quit_by_every_call, .timeout = 20)
{
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    cr_expect(write(fd, "quit\r\n", 6) == 6);
    expect_tombstone(fd);
    fd = dial_server();
    exchange(fd);
    cr_expect(sendto(fd, "quit\r\n", 6, MSG_NOSIGNAL, NULL, 0) == 6);
    expect_tombstone(fd);
    expect_reuse(port);
}

Test(goodbyes, quit_behind_other_commands, .timeout = 20)
{
    static const char tail[] = "set a 0 0 1 noreply\r\nx\r\nquit\r\n";
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    cr_expect(send(fd, tail, strlen(tail), 0) == (ssize_t)strlen(tail));
    EXPECT_EVENT(": kept, owing");
    usleep(20000);
    expect_reuse(port);
    expect_tombstone(fd);
}

Test(goodbyes, quit_in_binary, .timeout = 20)
{
    char answer[24];
    int fd = dial_server();
    int port = local_port(fd);

    cr_assert(send(fd, noop, sizeof(noop), 0) == sizeof(noop));
    cr_assert(recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
    cr_expect(send(fd, quit, sizeof(quit), 0) == sizeof(quit));
    EXPECT_KEPT();
    cr_assert(recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
    cr_expect(answer[0] == '\x81' && answer[1] == '\x07' &&
              memcmp(answer + 12, quit + 12, 4) == 0);
    expect_tombstone(fd);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    cr_assert(send(fd, noop, sizeof(noop), 0) == sizeof(noop));
    cr_assert(recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
    cr_expect(send(fd, quitq, sizeof(quitq), 0) == sizeof(quitq));
    expect_tombstone(fd);
    EXPECT_KEPT();
}

Test(goodbyes, quit_with_replies_owed_is_passed_on, .timeout = 20)
{
    int fd = dial_server();
    char byte;

    send_text(fd, "get nothing\r\n");
    send_text(fd, "quit\r\n");
    expect_text(fd, "END\r\n");
    cr_expect(recv(fd, &byte, 1, 0) == 0);
    close(fd);
    cr_expect(log_count(": not kept: QUIT ") == 1);
}

/* The end of a value is no goodbye, and neither is one in two pieces. */
Test(goodbyes, what_looks_like_one, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    send_text(fd, "set looks-like 0 0 4\r\nquit\r\n");
    expect_text(fd, "STORED\r\n");
    exchange(fd);
    send_text(fd, "qui");
    send_text(fd, "t\r\n");
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0);
    close(fd);
    cr_expect(log_count(": not kept: QUIT ") == 1);
}

/* An address that the compiler knows nothing of. */
static void *nowhere(void)
{
    static void *volatile address = (void *)16;

    return address;
}

Test(goodbyes, a_bad_address_is_the_kernels_affair, .timeout = 20)
{
    int fd;

    not_under_valgrind();
    fd = dial_server();
    exchange(fd);
    cr_expect(send(fd, nowhere(), 6, 0) == -1 && errno == EFAULT);
    cr_expect(send(fd, nowhere(), 600, 0) == -1 && errno == EFAULT);
    cr_expect(write(fd, nowhere(), 24) == -1 && errno == EFAULT);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    cr_expect(writev(fd, nowhere(), 1) == -1 && errno == EFAULT);
    cr_expect(sendmsg(fd, nowhere(), 0) == -1 && errno == EFAULT);
    cr_expect(send(fd, nowhere(), 6, 0) == -1 && errno == EFAULT);
    exchange(fd);
}

Test(goodbyes, shutdown_when_clean, .timeout = 20)
{
    static const int hows[] = {SHUT_WR, SHUT_RDWR};
    int port = park();

    for (size_t i = 0; i < 2; i++) {
        int fd = dial_server();

        exchange(fd);
        cr_expect(shutdown(fd, hows[i]) == 0);
        EXPECT_KEPT();
        expect_reuse(port);
        expect_tombstone(fd);
    }
}

Test(goodbyes, shutdown_otherwise, .timeout = 20)
{
    int fd = dial_server();

    send_text(fd, "get nothing\r\n");
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    expect_text(fd, "END\r\n");
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0);
    close(fd);
    EXPECT_NOT_KEPT("SHUT_DOWN");
    fd = dial_server();
    exchange(fd);
    cr_expect(shutdown(fd, SHUT_RD) == 0);
    close(fd);
    EXPECT_NOT_KEPT("SHUT_DOWN");
    fd = dial_server();
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    close(fd);
    EXPECT_NOT_KEPT("SHUT_DOWN");
    fd = dial_server();
    cr_expect(shutdown(fd, 17) == -1 && errno == EINVAL);
}

/* libmemcached's way: everything, and then the close. */
Test(goodbyes, quit_shutdown_and_close, .timeout = 20)
{
    long before = opened_at_server();

    for (int i = 0; i < 20; i++) {
        int fd = dial_server();

        exchange(fd);
        send_text(fd, "quit\r\n");
        cr_expect(shutdown(fd, SHUT_WR) == 0);
        cr_expect(recv(fd, &(char){0}, 1, 0) == 0);
        cr_expect(shutdown(fd, SHUT_RD) == 0);
        cr_expect(close(fd) == 0);
    }
    cr_expect(opened_at_server() - before == 2);
}

Test(goodbyes, the_number_keeps_its_looks, .timeout = 20)
{
    int fd = dial_server();

    cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    send_text(fd, "get nothing\r\n");
    usleep(20000);
    expect_text(fd, "END\r\n");
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    EXPECT_KEPT();
    cr_expect(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    cr_expect(fcntl(fd, F_GETFL) & O_NONBLOCK);
    close(fd);
    fd = dial_server();
    cr_assert(fcntl(fd, F_SETFD, 0) == 0);
    exchange(fd);
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    EXPECT_KEPT();
    cr_expect(fcntl(fd, F_GETFD) == 0);
    cr_expect((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
}

/* node waits for the end of file in its epoll set. */
Test(goodbyes, waited_for_in_epoll_sets, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP | EPOLLET, {.u64 = 77}}, got = {0};
    int epfd = epoll_create1(0);
    int fd = dial_server();

    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    send_text(fd, "get nothing\r\n");
    cr_assert(epoll_wait(epfd, &got, 1, 1000) == 1 && got.events == EPOLLIN);
    expect_text(fd, "END\r\n");
    cr_assert(epoll_wait(epfd, &got, 1, 0) == 0);
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    EXPECT_KEPT();
    cr_assert(epoll_wait(epfd, &got, 1, 1000) == 1);
    cr_expect(got.data.u64 == 77 && got.events & EPOLLHUP && got.events & EPOLLRDHUP);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) == 0);
    close(fd);
    exchange(dial_server());
    cr_expect(epoll_wait(epfd, &got, 1, 0) == 0);
}

/* Whether a one-shot registration is still armed cannot be asked. */
Test(goodbyes, one_shot_registration, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 77}}, got = {0};
    int epfd = epoll_create1(0);
    int fd = dial_server();

    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    send_text(fd, "get nothing\r\n");
    cr_assert(epoll_wait(epfd, &got, 1, 1000) == 1);
    expect_text(fd, "END\r\n");
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    cr_expect(epoll_wait(epfd, &got, 1, 50) == 0);
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_MODE");
}

/* A registration that cannot be taken off is put back, and the goodbye is passed on. */
Test(goodbyes, set_out_of_reach, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 77}}, got = {0};
    int first = epoll_create1(0), second = epoll_create1(0);
    int fd = dial_server();

    cr_assert(epoll_ctl(first, EPOLL_CTL_ADD, fd, &event) == 0);
    cr_assert(epoll_ctl(second, EPOLL_CTL_ADD, fd, &event) == 0);
    exchange(fd);
    unseen(SYS_epoll_ctl, first, EPOLL_CTL_DEL, fd, &event);
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    EXPECT_NOT_KEPT("EPOLL_UNKNOWN");
    cr_expect(epoll_wait(second, &got, 1, 1000) == 1 && got.data.u64 == 77);
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0);
}

Test(goodbyes, no_descriptors_left, .timeout = 20)
{
    struct rlimit limit, before;
    int fd;

    not_under_valgrind();
    fd = dial_server();
    exchange(fd);
    cr_assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
    limit = before;
    limit.rlim_cur = (rlim_t)dup(0) + 1;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    send_text(fd, "quit\r\n");
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0, "the server hears it and hangs up");
    cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0); /* the log needs a descriptor */
    close(fd);
    cr_expect(log_count(": not kept: QUIT ") == 1);
}
