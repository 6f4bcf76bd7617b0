/* The requests of our programs; see gets.h. */
#include "gets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <link.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/tcp.h>

static struct {
    char request[32];
    char answer[64];
} gets[GET_KEYS];

void fail(const char *what)
{
    perror(what);
    exit(1);
}

double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

struct sockaddr_in read_address(char *text)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    char *colon = strchr(text, ':');

    errno = EINVAL;
    if (!colon)
        fail(text);
    *colon = '\0';
    address.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, text, &address.sin_addr) != 1)
        fail(text);
    return address;
}

int try_connection(const struct sockaddr_in *server)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd >= 0 && connect(fd, (const struct sockaddr *)server, sizeof(*server)) != 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

int open_connection(const struct sockaddr_in *server)
{
    int fd = try_connection(server);

    if (fd < 0)
        fail("connect");
    return fd;
}

/* A server that was restarted is empty and answers so. */
static bool is_nothing(const char *answer, size_t len)
{
    return len == 5 && memcmp(answer, "END\r\n", len) == 0;
}

static enum got ask(int fd, const char *request, const char *wanted, size_t len)
{
    char answer[256];
    size_t got = 0;

    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        return GOT_NO_ANSWER;
    while (got < len) {
        ssize_t n = recv(fd, answer + got, sizeof(answer) - got, 0);

        if (n <= 0)
            return GOT_NO_ANSWER;
        got += (size_t)n;
        if (is_nothing(answer, got))
            return GOT_NOTHING;
    }
    if (got != len || memcmp(answer, wanted, len) != 0) {
        fputs("a wrong answer\n", stderr);
        exit(1);
    }
    return GOT_VALUE;
}

void store(int fd)
{
    for (int i = 0; i < GET_KEYS; i++) {
        char request[64];

        snprintf(request, sizeof(request), "set bench-%02d 0 0 14\r\nvalue-of-%05d\r\n", i, i);
        if (ask(fd, request, "STORED\r\n", 8) != GOT_VALUE)
            fail("set");
        snprintf(gets[i].request, sizeof(gets[i].request), "get bench-%02d\r\n", i);
        snprintf(gets[i].answer, sizeof(gets[i].answer),
                 "VALUE bench-%02d 0 14\r\nvalue-of-%05d\r\nEND\r\n", i, i);
    }
}

enum got try_get(int fd, unsigned int number)
{
    const char *answer = gets[number % GET_KEYS].answer;

    return ask(fd, gets[number % GET_KEYS].request, answer, strlen(answer));
}

void get(int fd, unsigned int number)
{
    if (try_get(fd, number) != GOT_VALUE)
        fail("get");
}

void prove_alive(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        fail("TCP_INFO");
}

/* LIBRARIES are separated by colons. */
static int is_library(struct dl_phdr_info *info, size_t size, void *libraries)
{
    size_t len = strcspn(libraries, ":");

    (void)size;
    return strlen(info->dlpi_name) == len && strncmp(info->dlpi_name, libraries, len) == 0;
}

void check_preload(void)
{
    char *libraries = getenv("LD_PRELOAD");

    if (libraries && dl_iterate_phdr(is_library, libraries) == 0) {
        fprintf(stderr, "%s is not preloaded\n", libraries);
        exit(1);
    }
}
