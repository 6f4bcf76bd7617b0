/*
 * quit and shutdown(). A clean connection is kept, and its fd reads, writes and polls like one
 * whose server has hung up.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
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

/* The server must not see the quit, and the connection goes to the next user. */
static void expect_reuse(int port)
{
    int fd = dial_server();

    cr_expect(local_port(fd) == port);
    exchange(fd);
    close(fd);
}

Test(quits, quit_in_text, .timeout = 20)
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

Test(quits, quit_by_every_call, .timeout = 20)
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

Test(quits, quit_in_binary, .timeout = 20)
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

Test(quits, quit_with_replies_owed_is_passed_on, .timeout = 20)
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

/* What FD receives up to end of file. */
static size_t read_to_the_end(int fd, char *heard, size_t room)
{
    size_t n = 0;
    ssize_t more;

    while (n < room && (more = recv(fd, heard + n, room - n, 0)) > 0)
        n += (size_t)more;
    return n;
}

/* A new key each round, so that its value can only be this round's. */
static size_t many_quiet_sets(char *bytes, int round)
{
    size_t n = 0;

    for (int i = 0; i <= 2000; i++)
        n += (size_t)sprintf(bytes + n, "set barrier-%d 0 0 4 noreply\r\n%04d\r\n", round, i);
    return n;
}

/* At end of file every request before the quit has been done. */
Test(quits, are_a_barrier, .timeout = 60)
{
    enum { ROUNDS = 60 };
    static char bytes[2001 * 64], heard[64];
    int late = 0;

    for (int round = 0; round < ROUNDS; round++) {
        size_t n = many_quiet_sets(bytes, round);
        int fd = dial_server(), other = dial_server();

        exchange(fd);
        exchange(other);
        cr_assert(send(fd, bytes, n, 0) == (ssize_t)n);
        send_text(fd, "quit\r\n");
        cr_assert(read_to_the_end(fd, heard, sizeof(heard)) == 0);
        n = (size_t)sprintf(bytes, "get barrier-%d\r\n", round);
        cr_assert(send(other, bytes, n, 0) == (ssize_t)n);
        n = 0;
        while (n < 5 || memcmp(heard + n - 5, "END\r\n", 5) != 0)
            n += (size_t)recv(other, heard + n, sizeof(heard) - n, 0);
        late += memmem(heard, n, "\r\n2000\r\n", 8) == NULL;
        close(fd);
        close(other);
    }
    cr_expect(late == 0, "%d of %d rounds lacked the last value", late, ROUNDS);
    cr_expect(log_count(": not kept: QUIT ") == ROUNDS);
}

/* How a dialogue ends: by these bytes, or by shutdown(). */
struct ending {
    const char *bytes;
    size_t n;
    int how;
};

/* What a client receives that sends BYTES and then a quit. PLAIN: on a connection that the
 * library does not know; else on a reused one. */
static size_t converse(bool plain, int port, const char *bytes, size_t n,
                       const struct ending *ending, char *heard, size_t room)
{
    struct sockaddr_in addr;
    int fd;
    size_t got;

    if (plain) {
        fd = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
        cr_assert(unseen(SYS_connect, fd, loopback(&addr, server_port()), sizeof(addr)) == 0);
    } else {
        fd = dial_server();
        cr_assert(local_port(fd) == port, "the connection is not reused");
    }
    cr_assert(send(fd, bytes, n, 0) == (ssize_t)n);
    if (ending->bytes)
        cr_expect(send(fd, ending->bytes, ending->n, MSG_NOSIGNAL) == (ssize_t)ending->n);
    else
        cr_expect(shutdown(fd, ending->how) == 0);
    got = read_to_the_end(fd, heard, room);
    close(fd);
    return got;
}

/* Leaves an idle connection that speaks binary if BINARY; returns its local port. */
static int park_speaker_of(bool binary)
{
    int port, fd = dial_server();
    char answer[24];

    if (binary) {
        cr_assert(send(fd, noop, sizeof(noop), 0) == sizeof(noop));
        cr_assert(recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer));
    } else {
        exchange(fd);
    }
    port = local_port(fd);
    close(fd);
    EXPECT_KEPT();
    return port;
}

static void expect_the_same(bool binary, const char *bytes, size_t n,
                            const struct ending *ending)
{
    char heard[2][256];
    size_t length[2];
    int port = park_speaker_of(binary);

    length[0] = converse(true, port, bytes, n, ending, heard[0], sizeof(heard[0]));
    length[1] = converse(false, port, bytes, n, ending, heard[1], sizeof(heard[1]));
    cr_expect(strstr(last_event(), ": not kept: ") != NULL, "'%.20s': %s", bytes, last_event());
    cr_expect(length[0] == length[1] && memcmp(heard[0], heard[1], length[0]) == 0,
              "'%.20s': '%.*s' instead of '%.*s'", bytes, (int)length[1], heard[1],
              (int)length[0], heard[0]);
}

#define SAID(text)                                                                             \
    {                                                                                          \
        text, sizeof(text) - 1                                                                 \
    }

/* A binary request for the key that is stored, with EXTRAS bytes of zero and a value. */
#define ASKED(opcode, extras, body, text)                                                      \
    SAID("\x80" opcode "\0\1" extras "\0\0\0\0\0\0" body "\0\0\0\0\0\0\0\0\0\0\0\0" text)

struct quiet_request {
    const char *bytes;
    size_t n;
};

/* What quiet requests bring, an answer or none, comes before the end of file. */
Test(quits, behind_quiet_requests_in_text, .timeout = 60)
{
    static const struct quiet_request requests[] = {
        SAID("mg q v q\r\n"),
        SAID("mg nothing v q\r\n"),
        SAID("ms q 1 ME q\r\nx\r\n"),
        SAID("ms q 1 q\r\nx\r\n"),
        SAID("md nothing q\r\n"),
        SAID("ma q q\r\n"),
        SAID("mg q v q\r\nmg q v q\r\n"),
        SAID("set q 0 0 1 noreply\r\nx\r\n"),
        SAID("incr q 1 noreply\r\n"),
        SAID("delete nothing noreply\r\n"),
        SAID("set q 0 0 1 noreply\r\nx\r\nquit\r\n"),
        SAID("mg q v q\r\nquit\r\n"),
    };
    static const struct ending endings[] = {{"quit\r\n", 6, 0}, {NULL, 0, SHUT_WR}};
    int fd = dial_server();

    send_text(fd, "set q 0 0 1\r\nx\r\n");
    expect_text(fd, "STORED\r\n");
    close(fd);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        for (size_t end = 0; end < sizeof(endings) / sizeof(endings[0]); end++)
            expect_the_same(false, requests[i].bytes, requests[i].n, &endings[end]);
    }
}

Test(quits, behind_quiet_requests_in_binary, .timeout = 60)
{
    static const struct quiet_request requests[] = {
        ASKED("\x09", "\0", "\1", "q"),                    /* GETQ */
        ASKED("\x0d", "\0", "\1", "q"),                    /* GETKQ */
        ASKED("\x0d", "\0", "\1", "n"),                    /* of a key that is not there */
        ASKED("\x1e", "\4", "\5", "\0\0\0\0q"),            /* GATQ */
        ASKED("\x12", "\x8", "\xa", "\0\0\0\0\0\0\0\0qx"), /* ADDQ */
        ASKED("\x11", "\x8", "\xa", "\0\0\0\0\0\0\0\0qx"), /* SETQ */
        ASKED("\x14", "\0", "\1", "n"),                    /* DELETEQ */
        ASKED("\x19", "\0", "\2", "nx"),                   /* APPENDQ */
    };
    static const struct ending endings[] = {
        {quit, sizeof(quit), 0}, {quitq, sizeof(quitq), 0}, {NULL, 0, SHUT_WR}};
    int fd = dial_server();

    send_text(fd, "set q 0 0 1\r\nx\r\n");
    expect_text(fd, "STORED\r\n");
    close(fd);
    for (size_t i = 0; i < sizeof(requests) / sizeof(requests[0]); i++) {
        for (size_t end = 0; end < sizeof(endings) / sizeof(endings[0]); end++)
            expect_the_same(true, requests[i].bytes, requests[i].n, &endings[end]);
    }
}

/* Without the library, too, it is a race whether answers after shutdown() are received. */
Test(quits, behind_quiet_requests_both_ways, .timeout = 20)
{
    int port = park();
    int fd = dial_server();

    cr_assert(local_port(fd) == port);
    send_text(fd, "mg q v q\r\n");
    cr_expect(shutdown(fd, SHUT_RDWR) == 0);
    close(fd);
    EXPECT_NOT_KEPT("SHUT_DOWN");
}

/* An answer to a later request proves that the quiet ones are done. */
Test(quits, behind_confirmed_quiet_requests, .timeout = 20)
{
    int port = park();
    int fd = dial_server();

    send_text(fd, "delete nothing noreply\r\nget nothing\r\n");
    expect_text(fd, "END\r\n");
    send_text(fd, "quit\r\n");
    EXPECT_KEPT();
    expect_reuse(port);
    expect_tombstone(fd);
}

/* The end of a value is not a quit, and a quit in two pieces is passed on. */
Test(quits, what_looks_like_one, .timeout = 20)
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

Test(quits, a_bad_address_is_the_kernels_affair, .timeout = 20)
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

Test(quits, shutdown_when_clean, .timeout = 20)
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

Test(quits, shutdown_otherwise, .timeout = 20)
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

/* As libmemcached does: quit, shutdown() in both directions, close(). */
Test(quits, quit_shutdown_and_close, .timeout = 20)
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

Test(quits, the_fd_keeps_its_flags, .timeout = 20)
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
Test(quits, waited_for_in_epoll_sets, .timeout = 20)
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

static int watched_once(int epfd)
{
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 77}};
    int fd = dial_server();

    exchange(fd);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    return fd;
}

static int fired_once(int epfd)
{
    struct epoll_event got;
    int fd = watched_once(epfd);

    send_text(fd, "get nothing\r\n");
    cr_assert(epoll_wait(epfd, &got, 1, 1000) == 1);
    expect_text(fd, "END\r\n");
    return fd;
}

/* A one-shot registration that has fired stays quiet until it is armed again; then it reports
 * the end of file. */
Test(quits, one_shot_registration, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 78}}, got = {0};
    int epfd = epoll_create1(0);
    int fd = fired_once(epfd);

    cr_expect(shutdown(fd, SHUT_WR) == 0);
    EXPECT_KEPT();
    cr_expect(epoll_wait(epfd, &got, 1, 50) == 0);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == -1 && errno == EEXIST);
    errno = 4711;
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) == 0 && errno == 4711);
    cr_expect(epoll_wait(epfd, &got, 1, 1000) == 1 && got.data.u64 == 78 &&
              got.events & EPOLLIN);
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0);
    cr_expect(epoll_wait(epfd, &got, 1, 50) == 0);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) == 0);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) == 0);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) == -1 && errno == ENOENT);
    close(fd);
    exchange(dial_server());
}

/* A registration that has fired can be removed. It does not belong to another file at its fd,
 * or to another set. */
Test(quits, one_shot_registration_that_is_gone, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 78}};
    int epfd = epoll_create1(0);
    int fd = fired_once(epfd);
    int port = local_port(fd);

    cr_expect(shutdown(fd, SHUT_WR) == 0);
    cr_expect(syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_DEL, fd, NULL) == 0);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL) == -1 && errno == ENOENT);
    close(fd);
    fd = fired_once(epfd);
    cr_expect(local_port(fd) == port);
    cr_expect(shutdown(fd, SHUT_RDWR) == 0);
    close(fd);
    cr_assert(socket(AF_UNIX, SOCK_STREAM, 0) == fd);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) == -1 && errno == ENOENT);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
    fd = fired_once(epfd);
    cr_expect(local_port(fd) == port && shutdown(fd, SHUT_WR) == 0);
    close(epfd);
    cr_assert(epoll_create1(0) == epfd);
    cr_expect(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, &event) == -1 && errno == ENOENT);
}

/* A registration that is still armed fires. */
Test(quits, one_shot_registration_that_is_armed, .timeout = 20)
{
    struct epoll_event got = {0};
    int epfd = epoll_create1(0);
    int fd = watched_once(epfd);

    cr_expect(shutdown(fd, SHUT_WR) == 0);
    EXPECT_KEPT();
    cr_expect(epoll_wait(epfd, &got, 1, 1000) == 1 && got.data.u64 == 77);
    cr_expect(epoll_wait(epfd, &got, 1, 50) == 0);
    close(fd);
    fd = dial_server();
    exchange(fd);
    cr_expect(epoll_wait(epfd, &got, 1, 50) == 0);
}

/* A closed socket left a registration at the same fd: the two cannot be told apart. */
Test(quits, one_shot_registration_of_two, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    int epfd = epoll_create1(0);
    int pair[2], other, fd;

    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    cr_assert(epoll_ctl(epfd, EPOLL_CTL_ADD, pair[0], &event) == 0);
    other = dup(pair[0]);
    close(pair[0]);
    fd = fired_once(epfd);
    cr_assert(fd == pair[0]);
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    close(fd);
    EXPECT_NOT_KEPT("EPOLL_MODE");
    close(other);
}

/* When one registration cannot be removed, those already removed are put back, and the quit is
 * passed on. */
Test(quits, set_out_of_reach, .timeout = 20)
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

Test(quits, no_descriptors_left, .timeout = 20)
{
    struct rlimit before;
    int fd;

    not_under_valgrind();
    fd = dial_server();
    exchange(fd);
    before = allow_no_more_fds();
    send_text(fd, "quit\r\n");
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0, "the server hears it and hangs up");
    cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0); /* the log needs an fd */
    close(fd);
    cr_expect(log_count(": not kept: QUIT ") == 1);
}
