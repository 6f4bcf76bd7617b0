/*
 * The HTTP server: one thread that never waits for one client.
 */
#include "cli/exporter.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "cli/exposition.h"

#define CLIENTS      64
#define REQUEST_SIZE 4096
#define PATIENCE     10 /* seconds until a client is dropped */

struct client {
    char request[REQUEST_SIZE];
    size_t request_size;
    char *answer; /* NULL while the request is being read */
    size_t answer_size;
    size_t answered;
    time_t until;    /* when it is dropped, in seconds of CLOCK_MONOTONIC */
    uint64_t number; /* clients that came later have higher ones */
};

/* Entry 0 is the listening socket, the others are clients; -1: no client. */
static struct pollfd polled[1 + CLIENTS];
static struct client clients[1 + CLIENTS];

static time_t seconds_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec;
}

static void drop(size_t i)
{
    close(polled[i].fd);
    polled[i].fd = -1;
    free(clients[i].answer);
    clients[i] = (struct client){0};
}

/* A place for a new client: a free one, else that of the oldest client that has not asked yet,
 * which is dropped. So clients that never ask do not lock out others. 0 when all have asked. */
static size_t find_place(void)
{
    size_t oldest = 0;

    for (size_t i = 1; i <= CLIENTS; i++) {
        if (polled[i].fd < 0)
            return i;
        if (!clients[i].answer && (oldest == 0 || clients[i].number < clients[oldest].number))
            oldest = i;
    }
    if (oldest > 0)
        drop(oldest);
    return oldest;
}

static void add_client(int fd)
{
    static uint64_t number;
    size_t i = find_place();

    if (i == 0) {
        close(fd);
        return;
    }
    polled[i] = (struct pollfd){.fd = fd, .events = POLLIN};
    clients[i].until = seconds_now() + PATIENCE;
    clients[i].number = number++;
}

static bool asks_for(const char *request, const char *path)
{
    size_t n = strlen(path);

    return (strncmp(request, "GET ", 4) == 0 && strncmp(request + 4, path, n) == 0 &&
            strchr(" ?", request[4 + n])) ||
           (strncmp(request, "HEAD ", 5) == 0 && strncmp(request + 5, path, n) == 0 &&
            strchr(" ?", request[5 + n]));
}

static void answer(struct client *client)
{
    FILE *body, *whole;
    char *text = NULL;
    size_t n = 0;
    bool found = asks_for(client->request, "/metrics");

    body = open_memstream(&text, &n);
    whole = open_memstream(&client->answer, &client->answer_size);
    if (body && found)
        exposition_print(body);
    else if (body)
        fputs("The metrics are at /metrics.\n", body);
    if (body)
        fclose(body);
    if (whole) {
        fprintf(whole,
                "HTTP/1.0 %s\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                "Content-Length: %zu\r\nConnection: close\r\n\r\n",
                found ? "200 OK" : "404 Not Found", n);
        if (text && strncmp(client->request, "HEAD ", 5) != 0)
            fwrite(text, 1, n, whole);
        fclose(whole);
    }
    free(text);
}

static void read_request(size_t i)
{
    struct client *client = &clients[i];
    ssize_t n = recv(polled[i].fd, client->request + client->request_size,
                     REQUEST_SIZE - 1 - client->request_size, 0);

    if (n <= 0) {
        drop(i);
        return;
    }
    client->request_size += (size_t)n;
    client->request[client->request_size] = '\0';
    if (!strstr(client->request, "\r\n\r\n") && !strstr(client->request, "\n\n")) {
        if (client->request_size == REQUEST_SIZE - 1)
            drop(i);
        return;
    }
    answer(client);
    polled[i].events = POLLOUT;
}

static void write_answer(size_t i)
{
    struct client *client = &clients[i];
    ssize_t n = -1;

    if (client->answer)
        n = send(polled[i].fd, client->answer + client->answered,
                 client->answer_size - client->answered, MSG_NOSIGNAL);
    if (n > 0)
        client->answered += (size_t)n;
    if (n <= 0 || client->answered == client->answer_size)
        drop(i);
}

static void serve_client(size_t i, time_t now)
{
    if (polled[i].fd < 0)
        return;
    if (now > clients[i].until)
        drop(i);
    else if (polled[i].revents & POLLIN && polled[i].events & POLLIN)
        read_request(i);
    else if (polled[i].revents & POLLOUT)
        write_answer(i);
    else if (polled[i].revents)
        drop(i);
}

int exporter_serve(int listening)
{
    polled[0] = (struct pollfd){.fd = listening, .events = POLLIN};
    for (size_t i = 1; i <= CLIENTS; i++)
        polled[i].fd = -1;
    while (true) {
        if (poll(polled, 1 + CLIENTS, 1000) < 0 && errno != EINTR)
            return perror("mcpool: poll"), EXIT_FAILURE;
        /* Before a new client may take a place: these may have asked by now. */
        for (size_t i = 1; i <= CLIENTS; i++)
            serve_client(i, seconds_now());
        if (polled[0].revents & POLLIN) {
            int fd = accept4(listening, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);

            if (fd >= 0)
                add_client(fd);
        }
    }
}

int exporter_listen(const char *where)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found;
    char address[64] = "127.0.0.1";
    const char *colon = strrchr(where, ':');
    const char *port = colon ? colon + 1 : where;
    size_t n = colon ? (size_t)(colon - where) : 0;
    int one = 1;
    int fd;

    if (n > 1 && where[0] == '[' && where[n - 1] == ']') {
        where++;
        n -= 2;
    }
    errno = EINVAL;
    if (n >= sizeof(address) || !*port)
        return -1;
    if (n > 0)
        snprintf(address, sizeof(address), "%.*s", (int)n, where);
    if (getaddrinfo(address, port, &hints, &found) != 0)
        return -1;
    fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd >= 0 && (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) != 0 ||
                    bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 64) != 0)) {
        int error = errno;

        close(fd);
        errno = error;
        fd = -1;
    }
    freeaddrinfo(found);
    return fd;
}
