/*
 * Before bytes may move unseen, a new connection takes the place of a reused one. What the
 * program gets where that cannot be done, and what the new connection is like.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

static int dial_reused(void)
{
    int fd;

    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    return fd;
}

/* What lets bytes move unseen, and leaves the fd in place. */

static void by_stdio(int fd)
{
    FILE *stream = fdopen(dup(fd), "w");

    if (stream)
        fclose(stream);
}

static void by_dup(int fd)
{
    cr_assert(dup2(fd, 20) == 20);
}

static void by_spawning(int fd)
{
    posix_spawn_file_actions_t actions;

    posix_spawn_file_actions_init(&actions);
    cr_assert(posix_spawn_file_actions_adddup2(&actions, fd, 1) == 0);
    posix_spawn_file_actions_destroy(&actions);
}

static void (*const unseen_ways[])(int fd) = {by_stdio, by_dup, by_spawning};
#define UNSEEN_WAYS (sizeof(unseen_ways) / sizeof(unseen_ways[0]))

static void expect_still_there(void (*hinder)(int fd), void (*way)(int fd))
{
    int fd = dial_reused();

    hinder(fd);
    way(fd);
    exchange(fd);
    close(20);
    close(fd);
}

static void register_exclusively(int fd)
{
    struct epoll_event event = {EPOLLIN | EPOLLEXCLUSIVE, {.fd = fd}};

    cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
}

static void close_its_set(int fd)
{
    struct epoll_event event = {EPOLLIN, {.fd = fd}};
    int set = epoll_create1(0);

    cr_assert(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    close(set);
}

/* Where the program has only ever spoken one protocol, the connection that cannot be replaced
 * is good enough. */
Test(swaps, kept_where_none_can_be_made, .timeout = 20)
{
    for (size_t i = 0; i < UNSEEN_WAYS; i++) {
        expect_still_there(register_exclusively, unseen_ways[i]);
        expect_still_there(close_its_set, unseen_ways[i]);
    }
}

static void leave_no_descriptors(int fd)
{
    (void)fd;
    allow_no_more_fds();
}

static void by_printing(int fd)
{
    cr_expect(dprintf(fd, "%s", "get nothing\r\n") == 13);
    expect_text(fd, "END\r\n");
}

Test(swaps, kept_without_descriptors, .timeout = 20)
{
    expect_still_there(leave_no_descriptors, by_printing);
}

/* The server takes no more connections, and this one is open. */
Test(swaps, kept_where_the_server_refuses, .timeout = 20)
{
    int port, listener = listen_here(&port);
    long server;
    int fd = dial_played(port, listener, &server);

    close(listener);
    by_dup(fd);
    exchange_played(fd, server);
}

/* A new connection would be connecting for a while, which the one that is there is not. */
Test(swaps, kept_while_the_server_is_slow, .timeout = 20)
{
    struct sockaddr_in peer;
    socklen_t length = sizeof(peer);
    int port, listener = listen_here(&port), waiting;
    long server;
    int fd = dial_played(port, listener, &server);

    /* No room for one more: the server does not answer. */
    cr_assert(listen(listener, 0) == 0);
    waiting = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    loopback(&peer, port);
    cr_assert(unseen(SYS_connect, waiting, &peer, sizeof(peer)) == 0);
    by_dup(fd);
    cr_expect(getpeername(fd, (struct sockaddr *)&peer, &length) == 0);
    cr_expect(send(fd, "get a\r\n", 7, MSG_DONTWAIT) == 7);
    unseen(SYS_write, server, "END\r\n", 5);
    expect_text(fd, "END\r\n");
}

/* A new connection in place of one that is shut down would not be. */
Test(swaps, not_of_what_is_shut_down, .timeout = 20)
{
    for (size_t i = 0; i < UNSEEN_WAYS; i++) {
        int fd = dial_reused();

        cr_assert(shutdown(fd, SHUT_RD) == 0);
        unseen_ways[i](fd);
        cr_expect(recv(fd, (char[1]){0}, 1, MSG_DONTWAIT) == 0);
        close(20);
        close(fd);
    }
}

/* The new connection is as connected as the old one was. */
Test(swaps, connected_afterwards, .timeout = 20)
{
    struct sockaddr_in addr;
    int fd = dial_reused();

    by_printing(fd);
    cr_expect(log_count(": swapped at ") == 1);
    by_dup(fd);
    close(fd);
    loopback(&addr, server_port());
    cr_expect(connect(20, (struct sockaddr *)&addr, sizeof(addr)) == -1 && errno == EISCONN);
}
