/*
 * The worker of costs.py: processes of one ancestor that take turns. Each has nothing in use
 * when it begins to wait for its turn, so what it has goes to the others.
 *
 *     ring PROCESSES IP:PORT...
 *
 * Answers every line "KIND COUNT" on its input, after so many turns, with the time of one turn
 * in microseconds. Each turn is made by the next process and asks the next of the servers,
 * which are one memcached at several addresses:
 *
 *   pass     nothing
 *   open     a get on a connection that stays open
 *   floor    the same with one TCP_INFO, which is the proof that a connection is alive
 *   cycle    socket, connect, get, close
 *   hits     cycles that the first process makes alone, one behind the other
 */
#include "../lib/gets.h"

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/tcp.h>

#define SERVERS   8
#define PROCESSES 32
#define WARM_UP   20
#define DEADLINE  600 /* seconds */

enum kind { PASS, OPEN, FLOOR, CYCLE, HITS, KINDS };

static const char *const names[KINDS] = {"pass", "open", "floor", "cycle", "hits"};

struct token {
    enum kind kind;
    long left;
};

static struct sockaddr_in servers[SERVERS];
static int server_count;

static void get_on_open(const struct sockaddr_in *server, unsigned int number, bool prove)
{
    static int fd = -1;
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (fd < 0)
        fd = open_connection(server);
    if (prove && getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        fail("TCP_INFO");
    get(fd, number);
}

static void cycle(const struct sockaddr_in *server, unsigned int number)
{
    int fd = open_connection(server);

    get(fd, number);
    close(fd);
}

static void turn(enum kind kind, long number)
{
    const struct sockaddr_in *server = &servers[number % server_count];

    if (kind == OPEN || kind == FLOOR)
        get_on_open(server, (unsigned int)number, kind == FLOOR);
    else if (kind != PASS)
        cycle(server, (unsigned int)number);
}

static void send_token(int fd, const struct token *token)
{
    if (write(fd, token, sizeof(*token)) != (ssize_t)sizeof(*token))
        fail("write");
}

/* False when there are no more turns. */
static bool wait_for_token(int fd, struct token *token)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};

    if (poll(&waiting, 1, -1) != 1)
        fail("poll");
    return read(fd, token, sizeof(*token)) == (ssize_t)sizeof(*token);
}

static _Noreturn void take_turns(int in, int out)
{
    struct token token;

    while (wait_for_token(in, &token)) {
        if (token.left > 0)
            turn(token.kind, token.left--);
        send_token(out, &token);
    }
    _exit(0);
}

static void batch(enum kind kind, long count, int in, int out)
{
    struct token token = {kind, count};

    while (kind == HITS && token.left > 0)
        turn(kind, token.left--);
    while (token.left > 0) {
        turn(kind, token.left--);
        send_token(out, &token);
        if (!wait_for_token(in, &token))
            fail("the ring is broken");
    }
}

static bool obey(const char *line, int in, int out)
{
    char what[8];
    long count;

    if (sscanf(line, "%7s %ld", what, &count) != 2 || count <= 0)
        return false;
    for (enum kind kind = PASS; kind < KINDS; kind++) {
        double start;

        if (strcmp(what, names[kind]) != 0)
            continue;
        batch(kind, WARM_UP, in, out);
        start = now();
        batch(kind, count, in, out);
        printf("%.3f\n", (now() - start) / (double)count);
        fflush(stdout);
        return true;
    }
    return false;
}

/* The next process of the ring, which is told its turns at IN. Returns where it tells the one
 * behind it. */
static int start_next(int in, int other)
{
    pid_t parent = getpid();
    int out[2];

    if (pipe(out) != 0)
        fail("pipe");
    switch (fork()) {
    case -1:
        fail("fork");
    case 0:
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() != parent)
            _exit(1);
        close(other);
        close(out[0]);
        take_turns(in, out[1]);
    default:
        close(in);
        close(out[1]);
        return out[0];
    }
}

int main(int argc, char **argv)
{
    int processes = argc > 2 ? atoi(argv[1]) : 0;
    char line[64];
    int first[2];
    int in, fd;

    if (processes < 2 || processes > PROCESSES || argc - 2 > SERVERS) {
        fprintf(stderr, "usage: %s PROCESSES IP:PORT... (up to %d)\n", argv[0], SERVERS);
        return 2;
    }
    alarm(DEADLINE);
    check_preload();
    for (; server_count < argc - 2; server_count++)
        servers[server_count] = read_address(argv[server_count + 2]);
    fd = open_connection(&servers[0]);
    store(fd);
    close(fd);
    if (pipe(first) != 0)
        fail("pipe");
    in = first[0];
    for (int i = 1; i < processes; i++)
        in = start_next(in, first[1]);
    while (fgets(line, sizeof(line), stdin)) {
        if (!obey(line, in, first[1]))
            return 2;
    }
    return 0;
}
