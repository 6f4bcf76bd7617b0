/*
 * The worker of fork.py: a small process that uses a connection to PORT and closes it; with
 * PORT 0 it uses none. With FLUSHED the idle connection is closed, too. Each input line is a
 * count of forks. The answer is the processor time of one fork in microseconds, and its page
 * faults: in parent and child, until the child's end.
 *
 *     fork PORT [FLUSHED]
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int use_connection(int port)
{
    struct sockaddr_in server = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[5];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    return connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0 &&
           send(fd, "get nothing\r\n", 13, 0) == 13 &&
           recv(fd, answer, sizeof(answer), MSG_WAITALL) == sizeof(answer) && close(fd) == 0;
}

static double of(struct timeval time)
{
    return (double)time.tv_sec * 1e6 + (double)time.tv_usec;
}

struct cost {
    double microseconds;
    double faults;
};

static struct cost cost_so_far(void)
{
    struct rusage parent, children;

    getrusage(RUSAGE_SELF, &parent);
    getrusage(RUSAGE_CHILDREN, &children);
    return (struct cost){of(parent.ru_utime) + of(parent.ru_stime) + of(children.ru_utime) +
                             of(children.ru_stime),
                         (double)(parent.ru_minflt + children.ru_minflt)};
}

static struct cost one_of(long count)
{
    struct cost before = cost_so_far(), after;

    for (long i = 0; i < count; i++) {
        pid_t child = fork();

        if (child == 0)
            _exit(0);
        if (child < 0 || waitpid(child, NULL, 0) != child)
            exit(1);
    }
    after = cost_so_far();
    return (struct cost){(after.microseconds - before.microseconds) / (double)count,
                         (after.faults - before.faults) / (double)count};
}

int main(int argc, char **argv)
{
    char line[32];
    int port;

    if (argc < 2) {
        fputs("usage: fork PORT [FLUSHED]\n", stderr);
        return 2;
    }
    port = atoi(argv[1]);
    /* No idle connection outlives a change of identity. */
    if ((port != 0 && !use_connection(port)) || (argc > 2 && setuid(getuid()) != 0)) {
        perror("fork");
        return 1;
    }
    while (fgets(line, sizeof(line), stdin)) {
        struct cost one = one_of(strtol(line, NULL, 10));

        printf("%.3f %.1f\n", one.microseconds, one.faults);
        fflush(stdout);
    }
    return 0;
}
