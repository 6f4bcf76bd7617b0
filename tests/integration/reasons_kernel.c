/*
 * Refusals because of what the kernel says of the socket, and what is found stale at check-out.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stddef.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/stat.h>
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
    int first_port;

    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    first_port = local_port(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial(port);
    cr_expect(local_port(fd) == first_port);
    send_text(fd, "get a\r\n");
    expect_text(fd, "END\r\n");
    close(fd);
    usleep(20000); /* whether the end arrives before or after the close, it must be noticed */
    fd = dial(port);
    cr_expect(local_port(fd) != first_port);
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

/* A request sent unseen whose reply is still to come: only the kernel's counters know of it. */
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

    unseen(SYS_write, shadow_fd(), "get a\r\n", 7);
    fd = dial_server();
    cr_expect(local_port(fd) != port);
    EXPECT_EVENT(": discarded: UNSEEN_BYTES ");
}

/* A close that we did not see, and accept() gives the fd to another socket. */
Test(reasons_kernel, fd_reused_by_accept, .timeout = 20)
{
    int port, fd, client, accepted;
    int listener = listen_here(&port);
    char byte;

    client = dial(port);
    fd = dial_server();
    exchange(fd);
    unseen(SYS_close, fd);
    accepted = (int)unseen(SYS_accept, listener, NULL, NULL);
    cr_assert(accepted == fd);
    cr_expect(close(accepted) == 0);
    EXPECT_NOT_KEPT("OTHER_SOCKET");
    cr_expect(recv(client, &byte, 1, 0) == 0, "the accepted socket was not really closed");
}

/* The hook of accept() itself notices that the fd is another socket now. */
Test(reasons_kernel, fd_reused_by_a_hooked_call, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    unseen(SYS_close, fd);
    cr_assert(socket(AF_INET, SOCK_DGRAM, 0) == fd);
    EXPECT_NOT_KEPT("OTHER_SOCKET");
    cr_expect(close(fd) == 0);
}

/* As daemon() does with the first three fds. */
Test(reasons_kernel, fresh_fd_reused, .timeout = 20)
{
    struct sockaddr_in addr;
    int port = park();

    close(STDIN_FILENO);
    cr_assert(socket(AF_INET, SOCK_STREAM, 0) == STDIN_FILENO);
    unseen(SYS_close, STDIN_FILENO);
    cr_assert(unseen(SYS_socket, AF_INET, SOCK_STREAM, 0) == STDIN_FILENO);
    cr_assert(connect(STDIN_FILENO, (struct sockaddr *)loopback(&addr, server_port()),
                      sizeof(addr)) == 0);
    cr_expect(local_port(STDIN_FILENO) != port,
              "reused for a socket whose options are not known");
}

Test(reasons_kernel, flags_that_cannot_be_undone, .timeout = 20)
{
    struct f_owner_ex owner = {F_OWNER_PID, getpid()};
    int on = 1;
    int pid = getpid();

    for (int way = 0; way < 11; way++) {
        int fd = dial_server();

        exchange(fd);
        if (way == 0)
            cr_assert(fcntl(fd, F_SETFL, O_ASYNC) == 0);
        else if (way == 1)
            cr_assert(fcntl(fd, F_SETOWN, getpid()) == 0);
        else if (way == 2)
            cr_assert(fcntl(fd, F_SETOWN_EX, &owner) == 0);
        else if (way == 3)
            cr_assert(fcntl64(fd, F_SETSIG, SIGUSR1) == 0);
        else if (way == 4)
            cr_assert(ioctl(fd, FIOASYNC, &on) == 0);
        else if (way == 5)
            cr_assert(ioctl(fd, FIOSETOWN, &pid) == 0);
        else if (way == 6)
            cr_assert(ioctl(fd, SIOCSPGRP, &pid) == 0);
        else if (way == 7)
            cr_assert(fchmod(fd, 0600) == 0);
        else if (way == 8)
            cr_assert(fchown(fd, getuid(), getgid()) == 0);
        else if (way == 9)
            cr_assert(fchownat(fd, "", getuid(), getgid(), AT_EMPTY_PATH) == 0);
        else
            unseen(SYS_fcntl, fd, F_SETFL, O_ASYNC);
        close(fd);
        EXPECT_NOT_KEPT("ODD_FLAGS");
    }
}

/* glibc has it since 2.39. Before, the call fails and changes nothing. */
Test(reasons_kernel, a_mode_set_by_an_empty_path, .timeout = 20)
{
    int fd = dial_server();
    bool is_set;

    exchange(fd);
    is_set = fchmodat(fd, "", 0600, AT_EMPTY_PATH) == 0;
    close(fd);
    if (is_set)
        EXPECT_NOT_KEPT("ODD_FLAGS");
    else
        EXPECT_KEPT();
}

/* The mode and owner of a fresh socket stay with it: no idle connection takes its place. */
Test(reasons_kernel, a_mode_stays_with_its_socket, .timeout = 20)
{
    struct sockaddr_in addr;
    struct stat before, now;
    int fd;

    park();
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(fchmod(fd, 0600) == 0 && fstat(fd, &before) == 0);
    cr_assert((before.st_mode & 07777) == 0600);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    cr_assert(fstat(fd, &now) == 0);
    cr_expect(now.st_mode == before.st_mode && now.st_ino == before.st_ino);
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("ODD_FLAGS");
    fd = dial_server();
    cr_expect(fstat(fd, &now) == 0 && (now.st_mode & 07777) != 0600);
    close(fd);
}

/* A read of no bytes although some are there: the kernel has counted what we have not read. */
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

/* One request and reply between FD and the socket that its peer accepted. */
static void exchange_with(int peer, int fd)
{
    send_text(fd, "get a\r\n");
    expect_text(peer, "get a\r\n");
    send_text(peer, "END\r\n");
    expect_text(fd, "END\r\n");
}

static void reset(int peer)
{
    struct linger hard = {1, 0};

    cr_assert(setsockopt(peer, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)) == 0);
    cr_assert(close(peer) == 0);
}

Test(reasons_kernel, reset_by_the_peer, .timeout = 20)
{
    int port, fd, idle;
    int listener = listen_here(&port);
    int peer;

    fd = dial(port);
    peer = accept(listener, NULL, NULL);
    exchange_with(peer, fd);
    reset(peer);
    close(fd);
    EXPECT_NOT_KEPT("NOT_ESTABLISHED");

    fd = dial(port);
    peer = accept(listener, NULL, NULL);
    exchange_with(peer, fd);
    idle = local_port(fd);
    close(fd);
    EXPECT_KEPT();
    reset(peer);
    fd = dial(port);
    EXPECT_EVENT(": discarded: NOT_ESTABLISHED ");
    cr_expect(local_port(fd) != idle);
    exchange_with(accept(listener, NULL, NULL), fd);
}

/* No user gets what the server sends on an idle connection. */
Test(reasons_kernel, bytes_that_came_while_idle, .timeout = 20)
{
    int port;
    int listener = listen_here(&port);
    int fd = dial(port);
    int peer = accept(listener, NULL, NULL);

    exchange_with(peer, fd);
    close(fd);
    EXPECT_KEPT();
    send_text(peer, "END\r\n");
    fd = dial(port);
    EXPECT_EVENT(": discarded: UNSEEN_BYTES ");
    exchange_with(accept(listener, NULL, NULL), fd);
}

/* The newest idle connection is stale, the one behind it is not. */
Test(reasons_kernel, stale_one_passed_over, .timeout = 20)
{
    int port, older_port;
    int listener = listen_here(&port);
    int older = dial(port);
    int older_peer = accept(listener, NULL, NULL);
    int newer = dial(port);
    int newer_peer = accept(listener, NULL, NULL);

    exchange_with(older_peer, older);
    exchange_with(newer_peer, newer);
    older_port = local_port(older);
    close(older);
    close(newer);
    close(newer_peer);
    newer = dial(port);
    cr_expect(log_count(": discarded: NOT_ESTABLISHED ") == 1);
    cr_expect(local_port(newer) == older_port);
    exchange_with(older_peer, newer);
}

/* From now on the kernel refuses the system call NR for this option. The library does not see
 * the filter, because that would end pooling, which is another test's. */
static void forbid(unsigned int nr, unsigned int level, unsigned int name)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, nr, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[1])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, level, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, name, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        unseen(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
        cr_skip_test("no seccomp here");
}

Test(reasons_kernel, no_proof_to_be_had, .timeout = 20)
{
    int fd = dial_server();
    int other = dial_server();

    exchange(fd);
    exchange(other);
    close(other);
    EXPECT_KEPT();
    forbid(SYS_getsockopt, IPPROTO_TCP, TCP_INFO);
    close(fd);
    EXPECT_NOT_KEPT("NO_PROOF");
    exchange(dial_server());
    EXPECT_EVENT(": discarded: NO_PROOF ");
}

/* As under gVisor, and under filters that allow only the options they know. */
Test(reasons_kernel, no_socket_has_an_identity, .timeout = 20)
{
    forbid(SYS_getsockopt, SOL_SOCKET, SO_COOKIE);
    for (int i = 0; i < 3; i++) {
        int fd = dial_server();

        exchange(fd);
        cr_expect(close(fd) == 0);
        EXPECT_NOT_KEPT("NO_PROOF");
    }
    cr_expect(log_count("warning: nothing is pooled: NO_PROOF (") == 1);
    cr_expect(log_count(": reused") == 0);
}

/* A duplicate put over it closes it, unless a filter refuses the call. */
Test(reasons_kernel, duplicates_that_a_filter_refuses, .timeout = 20)
{
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    forbid(SYS_dup3, (unsigned int)fd, 0);
    errno = 0;
    cr_expect(dup3(STDIN_FILENO, fd, 0) == -1 && errno == EPERM);
    EXPECT_NOT_KEPT("OTHER_SOCKET");
    cr_expect(local_port(dial_server()) != port, "the program still has it");
    exchange(fd);
}

Test(reasons_kernel, options_that_cannot_be_made_equal, .timeout = 20)
{
    int on = 1;
    int fd = dial_server();
    int port = local_port(fd);

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    forbid(SYS_setsockopt, SOL_SOCKET, SO_KEEPALIVE);
    fd = dial_server();
    EXPECT_EVENT(": discarded: OPTION_FAILED ");
    cr_expect(local_port(fd) != port);
    exchange(fd);
}
