/*
 * The worker of cycle.py, network.py and growth.py: gets on a connection that stays open, or on
 * a new connection each.
 *
 *     turns IP:PORT...
 *
 * Answers every line "open|floor|least|cycle COUNT" on its input, after so many turns, with the
 * time of one turn in microseconds. Each turn asks the next of the servers, which are one
 * memcached at several addresses. After "hold COUNT" so many used connections stay open.
 */
#include "gets.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define SERVERS  100
#define WARM_UP  10
#define HELD     10000
#define DEADLINE 600 /* seconds */

static struct sockaddr_in servers[SERVERS];
static int open_connections[SERVERS];
static int server_count;

static int held[HELD];
static long held_count;

/* No two turns in a row ask for the same key, so that an answer meant for another turn is
 * noticed. */
static void get_next(int fd)
{
    static unsigned int last;

    get(fd, ++last);
}

static void cycle(int server)
{
    int fd = open_connection(&servers[server]);

    get_next(fd);
    close(fd);
}

static void get_on_open(int server)
{
    get_next(open_connections[server]);
}

static void prove_and_get(int server)
{
    prove_alive(open_connections[server]);
    get_next(open_connections[server]);
}

/* The system calls that no pool can do without, and nothing else, for one server: a spare gets
 * an fd, the kernel's counters are read, dup3() puts the connection at the fd, the fd is
 * closed. */
static void least(int server)
{
    static int spare = -1;
    int fd;

    if (spare < 0)
        spare = socket(AF_INET, SOCK_STREAM, 0);
    fd = fcntl(spare, F_DUPFD, 0);
    prove_alive(open_connections[server]);
    if (fd < 0 || dup3(open_connections[server], fd, 0) != fd)
        fail("duplicates");
    get_next(fd);
    close(fd);
}

static const struct {
    const char *name;
    void (*turn)(int server);
} kinds[] = {
    {"open", get_on_open}, {"floor", prove_and_get}, {"least", least}, {"cycle", cycle}};

/* The first turns find caches filled by other code. */
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
        get_next(held[held_count]);
    }
    for (; held_count > count; held_count--)
        close(held[held_count - 1]);
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

    if (argc < 2 || argc - 1 > SERVERS) {
        fprintf(stderr, "usage: %s IP:PORT... (up to %d)\n", argv[0], SERVERS);
        return 2;
    }
    alarm(DEADLINE);
    check_preload();
    for (; server_count < argc - 1; server_count++) {
        servers[server_count] = read_address(argv[server_count + 1]);
        open_connections[server_count] = open_connection(&servers[server_count]);
    }
    store(open_connections[0]);
    while (fgets(line, sizeof(line), stdin)) {
        if (!obey(line))
            return 2;
    }
    return 0;
}
