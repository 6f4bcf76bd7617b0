/*
 * What the compiler learns from which branches of the library are taken: every way of using a
 * connection that programs are known for, against a server of its own, for a fraction of a
 * second. See PROFILE in the Makefile.
 *
 *     training LIBRARY
 *
 * The parent is the server: it answers whatever it is asked with what a memcached would say of
 * a key that it has, and keeps nothing. The child runs this program again under LIBRARY.
 */
#include "lib/gets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define DEADLINE    60 /* seconds */
#define CONNECTIONS 16
#define OFTEN       400

#define HEADER 24 /* of a binary packet */

/* The server. */

static void say(int fd, const char *text)
{
    if (send(fd, text, strlen(text), MSG_NOSIGNAL) < 0)
        fail("send");
}

static void answer_get(int fd, char *keys)
{
    char answer[512];
    size_t n = 0;

    for (char *key = strtok(keys, " \r\n"); key; key = strtok(NULL, " \r\n"))
        n += (size_t)snprintf(answer + n, sizeof(answer) - n, "VALUE %s 0 9\r\nvalue of \r\n",
                              key);
    snprintf(answer + n, sizeof(answer) - n, "END\r\n");
    say(fd, answer);
}

static void answer_text(int fd, char *request)
{
    if (strncmp(request, "get ", 4) == 0)
        answer_get(fd, request + 4);
    else if (strncmp(request, "set ", 4) == 0)
        say(fd, "STORED\r\n");
    else if (strncmp(request, "delete ", 7) == 0)
        say(fd, "DELETED\r\n");
    else if (strncmp(request, "incr ", 5) == 0)
        say(fd, "1234\r\n");
    else
        say(fd, "END\r\n");
}

/* A value without bytes, to whatever was asked. */
static void answer_binary(int fd, const char *request)
{
    char answer[HEADER + 4] = {(char)0x81};

    answer[1] = request[1];
    answer[4] = 4;
    answer[11] = 4;
    if (send(fd, answer, sizeof(answer), MSG_NOSIGNAL) < 0)
        fail("send");
}

/* False at the end of what comes. Requests are small, and come whole. */
static bool answer(int fd)
{
    char request[1024];
    ssize_t n = recv(fd, request, sizeof(request) - 1, 0);

    if (n <= 0)
        return false;
    request[n] = '\0';
    if (request[0] == (char)0x80)
        answer_binary(fd, request);
    else
        answer_text(fd, request);
    return true;
}

static void serve(int listener, pid_t client)
{
    struct pollfd fds[1 + CONNECTIONS] = {{.fd = listener, .events = POLLIN}};
    int status;

    for (int i = 1; i <= CONNECTIONS; i++)
        fds[i] = (struct pollfd){.fd = -1, .events = POLLIN};
    while (waitpid(client, &status, WNOHANG) == 0) {
        if (poll(fds, 1 + CONNECTIONS, 100) <= 0)
            continue;
        for (int i = 1; i <= CONNECTIONS; i++) {
            if (fds[i].fd >= 0 && fds[i].revents && !answer(fds[i].fd)) {
                close(fds[i].fd);
                fds[i].fd = -1;
            } else if (fds[i].fd < 0 && fds[0].revents) {
                fds[i].fd = accept(listener, NULL, NULL);
                fds[i].revents = 0;
                fds[0].revents = 0;
            }
        }
    }
    exit(WIFEXITED(status) ? WEXITSTATUS(status) : 1);
}

/* The client. */

static struct sockaddr_in server = {.sin_family = AF_INET};

static int new_connection(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

    if (fd < 0 ||
        (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0 && errno != EINPROGRESS))
        fail("connect");
    return fd;
}

static const char *const requests[] = {"get key-of-some-length\r\n",
                                       "get another:key:17\r\n",
                                       "set key-of-some-length 0 300 9\r\nvalue of \r\n",
                                       "get a b:2 c-of-three\r\n",
                                       "delete key-of-some-length\r\n",
                                       "incr counter 1\r\n"};

#define REQUESTS ((int)(sizeof(requests) / sizeof(requests[0])))

static void ask(int fd, int number)
{
    char reply[512];

    say(fd, requests[number % REQUESTS]);
    if (recv(fd, reply, sizeof(reply), 0) <= 0)
        fail("recv");
}

/* As in C: a plain connection for a get or two. */
static void plainly(int number)
{
    int fd = new_connection(0);

    ask(fd, number % 2);
    if (number % 4 == 0)
        ask(fd, number / 4);
    close(fd);
}

static void wait_for(int fd, short events)
{
    struct pollfd one = {.fd = fd, .events = events};

    if (poll(&one, 1, 1000) != 1)
        fail("poll");
}

/* As an interpreter with timeouts: never blocking, options set, waits for everything. */
static void with_timeouts(int number)
{
    const char *request = requests[number % REQUESTS];
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char reply[512];

    setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
    if (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0)
        wait_for(fd, POLLOUT);
    if (write(fd, request, strlen(request)) < 0)
        fail("write");
    while (read(fd, reply, sizeof(reply)) < 0)
        wait_for(fd, POLLIN);
    close(fd);
}

/* As an event loop. */
static void watched(int number)
{
    static int set = -1;
    struct epoll_event event = {.events = EPOLLIN};
    int fd = new_connection(SOCK_NONBLOCK | SOCK_CLOEXEC);
    char reply[512];

    if (set < 0)
        set = epoll_create1(EPOLL_CLOEXEC);
    wait_for(fd, POLLOUT);
    epoll_ctl(set, EPOLL_CTL_ADD, fd, &event);
    say(fd, requests[number % REQUESTS]);
    epoll_wait(set, &event, 1, 1000);
    if (recv(fd, reply, sizeof(reply), 0) <= 0)
        fail("recv");
    epoll_ctl(set, EPOLL_CTL_DEL, fd, &event);
    close(fd);
}

/* The binary protocol: GET of a key of three bytes. */
static void in_binary(int number)
{
    char request[HEADER + 3] = {(char)0x80}, reply[256];
    int fd = new_connection(0);

    (void)number;
    request[3] = 3;
    request[11] = 3;
    memcpy(request + HEADER, "key", 3);
    if (send(fd, request, sizeof(request), 0) < 0 || recv(fd, reply, sizeof(reply), 0) <= 0)
        fail("binary");
    close(fd);
}

/* What is none of ours. */
static void elsewhere(int number)
{
    char byte = (char)number;
    int ends[2];

    if (pipe(ends) != 0 || write(ends[1], &byte, 1) != 1 || read(ends[0], &byte, 1) != 1)
        fail("pipe");
    close(ends[0]);
    close(ends[1]);
}

static void train(const char *port)
{
    static const struct {
        void (*way)(int number);
        int turns;
    } ways[] = {{plainly, 10 * OFTEN}, {with_timeouts, OFTEN}, {watched, OFTEN},
                {in_binary, OFTEN},    {plainly, OFTEN},       {elsewhere, OFTEN}};
    int open;

    server.sin_port = htons((uint16_t)atoi(port));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    open = new_connection(0);
    for (int i = 0; i < 5 * OFTEN; i++)
        ask(open, i % 8 ? i % 2 : i);
    for (size_t w = 0; w < sizeof(ways) / sizeof(ways[0]); w++)
        for (int i = 0; i < ways[w].turns; i++)
            ways[w].way(i);
    close(open);
}

int main(int argc, char **argv)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof(address);
    int listener;
    char port[8];
    pid_t client;

    alarm(DEADLINE);
    if (argc == 3) {
        train(argv[2]);
        return 0;
    }
    listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (argc != 2 || bind(listener, (struct sockaddr *)&address, len) != 0 ||
        listen(listener, CONNECTIONS) != 0 ||
        getsockname(listener, (struct sockaddr *)&address, &len) != 0)
        fail(argv[0]);
    snprintf(port, sizeof(port), "%u", ntohs(address.sin_port));
    client = fork();
    if (client != 0)
        serve(listener, client);
    setenv("LD_PRELOAD", argv[1], 1);
    setenv("MCPOOL_SERVERS", port, 1);
    execl(argv[0], argv[0], argv[1], port, (char *)NULL);
    fail(argv[0]);
}
