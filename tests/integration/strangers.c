/*
 * The program closes an fd and gets it again for another file, by calls that the library does
 * not see. The library must leave that file alone.
 */
#include "harness.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <unistd.h>

static const char binary_quit[24] = {'\x80', '\x07'};

static int dial_reused(void)
{
    int fd;

    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    return fd;
}

/* A file, opened at FD and unlinked. */
static char path[] = "/tmp/strangers-XXXXXX";

static void open_file_at(int fd)
{
    cr_assert(unseen(SYS_close, fd) == 0);
    cr_assert(mkstemp(path) == fd);
    unlink(path);
}

static void expect_in_file(int fd, const void *bytes, size_t n)
{
    char got[64];

    cr_expect(pread(fd, got, sizeof(got), 0) == (ssize_t)n && memcmp(got, bytes, n) == 0,
              "the file does not hold what was written to it");
}

static void expect_forgotten(int fd)
{
    EXPECT_NOT_KEPT("OTHER_SOCKET");
    cr_expect(close(fd) == 0);
    cr_expect(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
    park();
}

Test(strangers, quit_goes_to_the_file, .timeout = 20)
{
    struct iovec iov = {"quit\r\n", 6};
    int fd;

    for (int way = 0; way < 3; way++) {
        fd = dial_reused();
        if (way == 2)
            exchange(fd);
        open_file_at(fd);
        strcpy(path, "/tmp/strangers-XXXXXX");
        cr_expect((way == 1 ? writev(fd, &iov, 1) : write(fd, "quit\r\n", 6)) == 6);
        expect_in_file(fd, "quit\r\n", 6);
        if (way != 1)
            expect_forgotten(fd);
        else
            close(fd);
    }
}

Test(strangers, binary_quit_goes_to_the_file, .timeout = 20)
{
    char answer[24];
    int fd = dial_server();

    for (int i = 0; i < 2; i++) {
        cr_assert(send(fd, "\x80\x0a\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 24, 0) == 24);
        cr_assert(recv(fd, answer, 24, MSG_WAITALL) == 24);
        if (i == 0) {
            close(fd);
            fd = dial_server();
            EXPECT_EVENT(": reused as ");
        }
    }
    open_file_at(fd);
    cr_expect(write(fd, binary_quit, 24) == 24);
    expect_in_file(fd, binary_quit, 24);
    expect_forgotten(fd);
}

/* The fd is another socket by now. */
static int socketpair_at(int fd)
{
    int pair[2];

    cr_assert(unseen(SYS_close, fd) == 0);
    cr_assert(unseen(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    cr_assert(pair[0] == fd);
    return pair[1];
}

Test(strangers, shutdown_reaches_the_peer, .timeout = 20)
{
    for (int how = SHUT_WR; how <= SHUT_RDWR; how++) {
        int fd = dial_reused();
        int peer = socketpair_at(fd);

        cr_expect(shutdown(fd, how) == 0);
        cr_expect(recv(peer, (char[1]){0}, 1, MSG_DONTWAIT) == 0, "errno %d", errno);
        cr_expect(send(peer, "x", 1, MSG_NOSIGNAL) == (how == SHUT_WR ? 1 : -1));
        expect_forgotten(fd);
        close(peer);
    }
}

Test(strangers, quit_reaches_the_peer, .timeout = 20)
{
    int fd = dial_reused();
    int peer = socketpair_at(fd);

    cr_expect(send(fd, "quit\r\n", 6, 0) == 6);
    expect_text(peer, "quit\r\n");
    cr_expect(send(peer, "x", 1, MSG_NOSIGNAL) == 1);
    expect_forgotten(fd);
}

/* A quit reaches the server on a connection opened unseen at that fd. */
Test(strangers, quit_reaches_the_server, .timeout = 20)
{
    struct sockaddr_in addr;
    int fd = dial_reused();

    cr_assert(unseen(SYS_close, fd) == 0);
    cr_assert(unseen(SYS_socket, AF_INET, SOCK_STREAM, 0) == fd);
    cr_assert(unseen(SYS_connect, fd, loopback(&addr, server_port()), sizeof(addr)) == 0);
    cr_expect(write(fd, "quit\r\n", 6) == 6);
    cr_expect(recv(fd, (char[1]){0}, 1, 0) == 0);
    expect_forgotten(fd);
}

/* A daemon that closed fd 0 has a connection there, and later opens a file there again. */
Test(strangers, freopen_of_standard_input, .timeout = 20)
{
    FILE *file;

    cr_assert(close(0) == 0);
    cr_assert(dial_reused() == 0);
    cr_assert(mkstemp(path) >= 0);
    file = freopen(path, "r+", stdin);
    cr_assert(file != NULL && fileno(file) == 0);
    unlink(path);
    cr_expect(write(0, "quit\r\n", 6) == 6);
    expect_in_file(0, "quit\r\n", 6);
    expect_forgotten(0);
}

/* An object that binds to libc without meeting the hooks. ASan ends a program that loads
 * one. */
Test(strangers, deep_bound_object, .timeout = 20)
{
    char name[4096];
    int (*close_and_open)(int fd, const char *path);
    void *object;
    int fd;

    not_under_asan();
    snprintf(name, sizeof(name), "%s/other.so", getenv("TEST_PLUGINS"));
    object = dlopen(name, RTLD_NOW | RTLD_DEEPBIND);
    cr_assert(object != NULL, "%s", dlerror());
    *(void **)&close_and_open = dlsym(object, "close_and_open");
    cr_assert(close_and_open);
    fd = dial_reused();
    sprintf(path, "/tmp/strangers-%d", getpid());
    cr_assert(close_and_open(fd, path) == fd);
    unlink(path);
    cr_expect(write(fd, "quit\r\n", 6) == 6);
    expect_in_file(fd, "quit\r\n", 6);
    expect_forgotten(fd);
}

/* Options set on the new socket do not count for the connection. */
Test(strangers, options_are_not_remembered, .timeout = 20)
{
    struct timeval limit = {3, 0}, got = {0, 0};
    socklen_t len = sizeof(got);
    struct sockaddr_in addr;
    int fd = dial_reused();
    int peer = socketpair_at(fd);

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    close(fd);
    close(peer);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_expect(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &got, &len) == 0 && got.tv_sec == 3);
}

/* Options of the new socket are not hidden either. */
Test(strangers, options_are_shown, .timeout = 20)
{
    int on = 1, got = 0;
    socklen_t len = sizeof(got);
    int fd = dial_reused();

    cr_assert(unseen(SYS_close, fd) == 0);
    cr_assert(unseen(SYS_socket, AF_INET, SOCK_STREAM, 0) == fd);
    cr_assert(unseen(SYS_setsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    cr_expect(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &got, &len) == 0 && got != 0);
}

/* A socket made unseen, at the fd of one that was not connected yet, is not kept. */
Test(strangers, are_no_spares, .timeout = 20)
{
    struct sockaddr_in addr;
    int on = 1, got = 0;
    socklen_t len = sizeof(got);
    int fd;

    park();
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(unseen(SYS_close, fd) == 0);
    cr_assert(unseen(SYS_socket, AF_INET, SOCK_STREAM, 0) == fd);
    cr_assert(unseen(SYS_setsockopt, fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_expect(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &got, &len) == 0 && got == 0,
              "the stranger was given out as a new socket");
}

/* A shadow fd that was closed unseen, and is /dev/null by now. */
static int replaced_shadow_fd(void)
{
    int shadow, null;

    park();
    shadow = shadow_fd();
    null = open("/dev/null", O_RDWR);
    cr_assert(unseen(SYS_dup3, null, shadow, 0) == shadow);
    return shadow;
}

Test(strangers, are_not_closed_with_the_pool, .timeout = 20)
{
    int shadow = replaced_shadow_fd();

    cr_assert(setuid(getuid()) == 0);
    EXPECT_EVENT(": discarded: IDENTITY ");
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) >= 0, "a stranger was closed");
}

Test(strangers, are_not_closed_for_another_user, .timeout = 20)
{
    int shadow = replaced_shadow_fd();

    exchange(dial_server());
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) >= 0, "a stranger was closed");
}

Test(strangers, are_not_closed_with_their_user, .timeout = 20)
{
    int fd = dial_reused();
    int shadow = shadow_fd();
    int null = open("/dev/null", O_RDWR);

    cr_assert(unseen(SYS_dup3, null, shadow, 0) == shadow);
    cr_assert(dup(fd) >= 0);
    close(fd);
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) >= 0, "a stranger was closed");
}

Test(strangers, are_not_closed_in_a_child, .timeout = 20)
{
    int shadow = replaced_shadow_fd();
    pid_t child = fork();

    if (child == 0)
        _exit(unseen(SYS_fcntl, shadow, F_GETFD) < 0);
    expect_good_end(child);
}

/* Such files are not closed either when the program duplicates or passes them. */
Test(strangers, are_not_closed_with_their_duplicates, .timeout = 20)
{
    int shadow = replaced_shadow_fd();

    cr_expect(close(dup(shadow)) == 0);
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) >= 0, "a stranger was closed");
}

Test(strangers, are_not_closed_when_passed, .timeout = 20)
{
    int shadow = replaced_shadow_fd();
    struct fd_message message;
    int pair[2];

    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    fill_fd_message(&message, shadow);
    cr_expect(sendmsg(pair[0], &message.msg.msg_hdr, 0) == 1);
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) >= 0, "a stranger was closed");
}

Test(strangers, are_closed_by_the_program, .timeout = 20)
{
    int shadow = replaced_shadow_fd();

    cr_expect(close(shadow) == 0);
    errno = 0;
    cr_expect(close(shadow) == -1 && errno == EBADF);
}
