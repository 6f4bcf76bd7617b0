/*
 * The fleet of fleet.py: many processes that ask one server.
 *
 *     fleet IP:PORT PROCESSES CONNECTIONS
 *
 * It understands two lines. When the last process is done it answers "DONE FAILED", the sums
 * over all processes.
 *
 *     fill 0 0              each has CONNECTIONS connections at a time, uses and closes them
 *     load RATE SECONDS     each makes RATE cycles a second, evenly, also after failures
 */
#include "lib/gets.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define PROCESSES   1000
#define CONNECTIONS 1000
#define DEADLINE    300 /* seconds */

struct order {
    bool fill;
    long rate, seconds;
};

struct answer {
    long done, failed;
};

static struct sockaddr_in server;
static long processes, connections;

static void try_cycle(unsigned int number, struct answer *answer)
{
    int fd = try_connection(&server);

    if (fd >= 0 && try_get(fd, number) != GOT_NO_ANSWER)
        answer->done++;
    else
        answer->failed++;
    if (fd >= 0)
        close(fd);
}

static void fill(unsigned int number, struct answer *answer)
{
    static int fds[CONNECTIONS];

    for (long i = 0; i < connections; i++) {
        fds[i] = open_connection(&server);
        get(fds[i], number + (unsigned int)i);
    }
    for (long i = 0; i < connections; i++)
        close(fds[i]);
    answer->done += connections;
}

static void sleep_until(double when)
{
    struct timespec t = {(time_t)(when / 1e6),
                         (long)(when - (double)(time_t)(when / 1e6) * 1e6) * 1000};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL);
}

/* Every process has its own place in the interval, so that the load of the fleet is even. */
static void load(unsigned int number, const struct order *order, struct answer *answer)
{
    double interval = 1e6 / (double)order->rate;
    double start = now() + interval * number / (double)processes;

    for (long i = 0; i < order->rate * order->seconds; i++) {
        sleep_until(start + (double)i * interval);
        try_cycle(number + (unsigned int)i, answer);
    }
}

static _Noreturn void serve(unsigned int number, int orders, int answers)
{
    struct order order;

    prctl(PR_SET_PDEATHSIG, SIGKILL);
    while (read(orders, &order, sizeof(order)) == sizeof(order)) {
        struct answer answer = {0, 0};

        if (order.fill)
            fill(number, &answer);
        else
            load(number, &order, &answer);
        if (write(answers, &answer, sizeof(answer)) != sizeof(answer))
            fail("write");
    }
    exit(0);
}

static int to[PROCESSES];

static int start(void)
{
    int answers[2];

    if (pipe2(answers, O_CLOEXEC) != 0)
        fail("pipe");
    for (long i = 0; i < processes; i++) {
        int orders[2];

        if (pipe2(orders, O_CLOEXEC) != 0)
            fail("pipe");
        switch (fork()) {
        case -1:
            fail("fork");
        case 0:
            for (long j = 0; j < i; j++)
                close(to[j]);
            close(orders[1]);
            serve((unsigned int)i, orders[0], answers[1]);
        default:
            close(orders[0]);
            to[i] = orders[1];
        }
    }
    close(answers[1]);
    return answers[0];
}

static struct answer command(const struct order *order, int answers)
{
    struct answer sum = {0, 0}, one;

    for (long i = 0; i < processes; i++) {
        if (write(to[i], order, sizeof(*order)) != sizeof(*order))
            fail("write");
    }
    for (long i = 0; i < processes; i++) {
        if (read(answers, &one, sizeof(one)) != sizeof(one))
            fail("a process");
        sum.done += one.done;
        sum.failed += one.failed;
    }
    return sum;
}

int main(int argc, char **argv)
{
    char line[64], what[8];
    int answers, fd;

    if (argc == 4) {
        processes = strtol(argv[2], NULL, 10);
        connections = strtol(argv[3], NULL, 10);
    }
    if (processes < 1 || processes > PROCESSES || connections < 1 ||
        connections > CONNECTIONS) {
        fprintf(stderr, "usage: %s IP:PORT PROCESSES CONNECTIONS\n", argv[0]);
        return 2;
    }
    alarm(DEADLINE);
    check_preload();
    server = read_address(argv[1]);
    fd = open_connection(&server);
    store(fd);
    close(fd);
    answers = start();
    while (fgets(line, sizeof(line), stdin)) {
        struct order order;
        struct answer answer;

        if (sscanf(line, "%7s %ld %ld", what, &order.rate, &order.seconds) != 3)
            return 2;
        order.fill = strcmp(what, "fill") == 0;
        answer = command(&order, answers);
        printf("%ld %ld\n", answer.done, answer.failed);
        fflush(stdout);
    }
    return 0;
}
