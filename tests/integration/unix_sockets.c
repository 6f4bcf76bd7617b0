/*
 * Unix sockets are not pooled. The kernel counts no bytes on them, so nothing would show a
 * request or reply that no hook saw. Each way to send unseen is tried here.
 */
#include "harness.h"

#include <aio.h>
#include <errno.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/sockios.h>

/* The head of a store: a server that has read it takes the next seven bytes for the value. */
#define HALF_A_STORE "set half 0 0 5\r\n"

static int dial_path(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    cr_assert(fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    return fd;
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);

    cr_assert(getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0);
    return cookie;
}

/* Waits until the server has read everything sent on FD. */
static void wait_until_taken(int fd)
{
    int unsent = 1;

    for (int i = 0; i < 1000 && unsent > 0; i++) {
        usleep(1000);
        cr_assert(ioctl(fd, SIOCOUTQ, &unsent) == 0);
    }
    cr_assert(unsent == 0);
}

static void expect_another(uint64_t cookie)
{
    int fd = dial_path(server_path());

    cr_expect(cookie_of(fd) != cookie, "the connection of another");
    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    close(fd);
}

Test(unix_sockets, each_connect_opens_one, .timeout = 20)
{
    int fd = dial_path(server_path());
    uint64_t cookie = cookie_of(fd);

    exchange(fd);
    close(fd);
    expect_another(cookie);
    cr_expect(log_count(server_path()) == 0, "tracked: %s", last_event());
}

Test(unix_sockets, a_quit_is_passed_on, .timeout = 20)
{
    int fd = dial_path(server_path());
    uint64_t cookie = cookie_of(fd);
    char byte;

    exchange(fd);
    send_text(fd, "quit\r\n");
    cr_expect(read(fd, &byte, 1) == 0);
    cr_expect(shutdown(fd, SHUT_WR) == 0);
    close(fd);
    expect_another(cookie);
}

static void by_dprintf(int fd)
{
    dprintf(fd, "%s", HALF_A_STORE);
}

static void by_arguments(int fd, const char *format, ...)
{
    va_list list;

    va_start(list, format);
    vdprintf(fd, format, list);
    va_end(list);
}

static void by_vdprintf(int fd)
{
    by_arguments(fd, "%s", HALF_A_STORE);
}

static void by_lio_listio(int fd)
{
    char request[] = HALF_A_STORE;
    struct aiocb block = {.aio_fildes = fd,
                          .aio_buf = request,
                          .aio_nbytes = sizeof(request) - 1,
                          .aio_lio_opcode = LIO_WRITE};
    struct aiocb *blocks[] = {&block};

    cr_expect(lio_listio(LIO_WAIT, blocks, 1, NULL) == 0);
}

static void by_a_spawned_child(int fd)
{
    char command[64];
    char *arguments[] = {"sh", "-c", command, NULL};
    pid_t child;

    snprintf(command, sizeof(command), "printf 'set half 0 0 5\\r\\n' >&%d", fd);
    cr_assert(posix_spawn(&child, "/bin/sh", NULL, NULL, arguments, environ) == 0);
    expect_good_end(child);
}

static void by_an_inline_call(int fd)
{
    unseen(SYS_write, fd, HALF_A_STORE, sizeof(HALF_A_STORE) - 1);
}

static const struct {
    const char *name;
    void (*send)(int fd);
} ways[] = {
    {"dprintf", by_dprintf},       {"vdprintf", by_vdprintf},
    {"lio_listio", by_lio_listio}, {"posix_spawn", by_a_spawned_child},
    {"inline", by_an_inline_call},
};

Test(unix_sockets, half_a_request_reaches_no_other, .timeout = 20)
{
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        char answer[16] = "";
        int fd = dial_path(server_path());

        exchange(fd);
        ways[i].send(fd);
        wait_until_taken(fd);
        close(fd);
        fd = dial_path(server_path());
        send_text(fd, "get a\r\n");
        cr_expect(read(fd, answer, sizeof(answer) - 1) == 5);
        cr_expect(strcmp(answer, "END\r\n") == 0, "after %s: %s", ways[i].name, answer);
        close(fd);
    }
}

/* Answers each line with its second word. To "late" the answer comes 100 ms later. */
static void *answer_lines(void *arg)
{
    int fd = (int)(intptr_t)arg;
    char line[64], key[64], answer[128];
    ssize_t n;

    while ((n = unseen(SYS_read, fd, line, sizeof(line) - 1)) > 0) {
        line[n] = '\0';
        if (sscanf(line, "get %63s", key) != 1)
            break;
        if (strcmp(key, "late") == 0)
            usleep(100000);
        n = snprintf(answer, sizeof(answer), "VALUE %s 0 2\r\nok\r\nEND\r\n", key);
        unseen(SYS_sendto, fd, answer, n, MSG_NOSIGNAL, NULL, 0);
    }
    unseen(SYS_close, fd);
    return NULL;
}

static void *accept_all(void *arg)
{
    int fd;

    while ((fd = (int)unseen(SYS_accept, (int)(intptr_t)arg, NULL, NULL)) >= 0) {
        pthread_t thread;

        pthread_create(&thread, NULL, answer_lines, (void *)(intptr_t)fd);
        pthread_detach(thread);
    }
    return NULL;
}

static void listen_at(const char *path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    int fd = (int)unseen(SYS_socket, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    pthread_t thread;

    snprintf(addr.sun_path, sizeof(addr.sun_path), "%s", path);
    cr_assert(unseen(SYS_bind, fd, &addr, sizeof(addr)) == 0 && unseen(SYS_listen, fd, 8) == 0);
    pthread_create(&thread, NULL, accept_all, (void *)(intptr_t)fd);
    pthread_detach(thread);
}

Test(unix_sockets, a_late_answer_reaches_no_other, .timeout = 20)
{
    char path[64];
    int fd;

    snprintf(path, sizeof(path), "/tmp/mcpool-test-%d", getpid());
    listen_at(path);
    fd = dial_path(path);
    send_text(fd, "get first\r\n");
    expect_text(fd, "VALUE first 0 2\r\nok\r\nEND\r\n");
    unseen(SYS_write, fd, "get late\r\n", 10);
    wait_until_taken(fd);
    close(fd);
    fd = dial_path(path);
    unlink(path);
    usleep(200000);
    send_text(fd, "get mine\r\n");
    expect_text(fd, "VALUE mine 0 2\r\nok\r\nEND\r\n");
    close(fd);
}

/* A rule that names a path, beside a rule for the TCP server and an exclusion. */
Test(unix_rules, a_path_is_ignored_with_a_warning, .timeout = 20)
{
    int port;

    cr_expect(log_count("MCPOOL_SERVERS: Unix sockets are not pooled") == 1);
    port = park();
    cr_expect(local_port(dial_server()) == port, "the other rule holds");
    close(dial_path(server_path()));
    cr_expect(log_count(server_path()) == 0);
}
