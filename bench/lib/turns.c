/*
 * The worker of cycle.py, network.py and growth.py: gets on a connection that stays open or on
 * one each.
 *
 *     turns IP:PORT...
 *
 * Answers every line "open|floor|cycle COUNT" on its input, after so many turns, with the time
 * of one in microseconds; each turn asks the next of the servers, which are one memcached at
 * several addresses. "hold COUNT" has so many connections open from then on, and used.
 */
#include <arpa/inet.h>
#include <link.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include <linux/tcp.h>

#define KEYS     97
#define SERVERS  100
#define WARM_UP  10
#define HELD     10000
#define DEADLINE 600 /* seconds */

static struct sockaddr_in servers[SERVERS];
static int open_connections[SERVERS];
static int server_count;

static int held[HELD];
static long held_count;

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int open_connection(const struct sockaddr_in *server)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (const struct sockaddr *)server, sizeof(*server)) != 0)
        fail("connect");
    return fd;
}

static void ask(int fd, const char *request, const char *wanted, size_t len)
{
    char answer[256];
    size_t got = 0;

    if (send(fd, request, strlen(request), 0) != (ssize_t)strlen(request))
        fail("send");
    while (got < len) {
        ssize_t n = recv(fd, answer + got, sizeof(answer) - got, 0);

        if (n <= 0)
            fail("recv");
        got += (size_t)n;
    }
    if (got != len || memcmp(answer, wanted, len) != 0) {
        fputs("a wrong answer\n", stderr);
        exit(1);
    }
}

/* No two in a row ask for the same key, so that an answer meant for another is seen. */
static struct {
    char request[32];
    char answer[64];
} gets[KEYS];

static void store(int fd)
{
    for (int i = 0; i < KEYS; i++) {
        char request[64];

        snprintf(request, sizeof(request), "set bench-%02d 0 0 14\r\nvalue-of-%05d\r\n", i, i);
        ask(fd, request, "STORED\r\n", 8);
        snprintf(gets[i].request, sizeof(gets[i].request), "get bench-%02d\r\n", i);
        snprintf(gets[i].answer, sizeof(gets[i].answer),
                 "VALUE bench-%02d 0 14\r\nvalue-of-%05d\r\nEND\r\n", i, i);
    }
}

static void get(int fd)
{
    static int last;

    last = (last + 1) % KEYS;
    ask(fd, gets[last].request, gets[last].answer, strlen(gets[last].answer));
}

static void ask_kernel(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        fail("TCP_INFO");
}

static void cycle(int server)
{
    int fd = open_connection(&servers[server]);

    get(fd);
    close(fd);
}

static void get_on_open(int server)
{
    get(open_connections[server]);
}

static void prove_and_get(int server)
{
    ask_kernel(open_connections[server]);
    get(open_connections[server]);
}

static const struct {
    const char *name;
    void (*turn)(int server);
} kinds[] = {{"open", get_on_open}, {"floor", prove_and_get}, {"cycle", cycle}};

/* The first turns find caches that were somebody else's. */
static double batch(void (*turn)(int server), long count)
{
    static int server;
    double start = 0;

    for (long i = -WARM_UP; i < count; i++) {
        if (i == 0)
            start = now();
        turn(server);
        server = (server + 1) % server_count;
    }
    return (now() - start) / (double)count;
}

static void hold(long count)
{
    for (; held_count < count; held_count++) {
        held[held_count] = open_connection(&servers[0]);
        get(held[held_count]);
    }
    for (; held_count > count; held_count--)
        close(held[held_count - 1]);
}

static int is_library(struct dl_phdr_info *info, size_t size, void *library)
{
    (void)size;
    return strcmp(info->dlpi_name, library) == 0;
}

/* Where the loader cannot preload, it goes on without: there would be nothing to measure. */
static void check_preload(void)
{
    char *library = getenv("LD_PRELOAD");

    if (library && dl_iterate_phdr(is_library, library) == 0) {
        fprintf(stderr, "%s is not preloaded\n", library);
        exit(1);
    }
}

static bool read_address(char *text, struct sockaddr_in *address)
{
    char *colon = strchr(text, ':');

    if (!colon)
        return false;
    *colon = '\0';
    address->sin_family = AF_INET;
    address->sin_port = htons((uint16_t)atoi(colon + 1));
    return inet_pton(AF_INET, text, &address->sin_addr) == 1;
}

static bool obey(const char *line)
{
    char what[8];
    long count;
    double answer = 0;
    bool known = false;

    if (sscanf(line, "%7s %ld", what, &count) != 2 || count < 0)
        return false;
    if (strcmp(what, "hold") == 0 && count <= HELD) {
        hold(count);
        known = true;
    }
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(what, kinds[i].name) == 0 && count > 0) {
            answer = batch(kinds[i].turn, count);
            known = true;
        }
    }
    printf("%.3f\n", answer);
    fflush(stdout);
    return known;
}

int main(int argc, char **argv)
{
    char line[64];

    alarm(DEADLINE);
    check_preload();
    for (; server_count < argc - 1 && server_count < SERVERS; server_count++) {
        if (!read_address(argv[server_count + 1], &servers[server_count]))
            break;
        open_connections[server_count] = open_connection(&servers[server_count]);
    }
    if (server_count == 0 || server_count != argc - 1) {
        fprintf(stderr, "usage: %s IP:PORT... (up to %d)\n", argv[0], SERVERS);
        return 2;
    }
    store(open_connections[0]);
    while (fgets(line, sizeof(line), stdin)) {
        if (!obey(line))
            return 2;
    }
    return 0;
}
