/*
 * A family in which everything happens at once: families PORT SECONDS SEED. Threads use and end
 * connections while one forks children, which use some and end in every way. So connections go
 * from one process to another all the time. Every value names its key; a value of another key
 * ends the run with exit code 1.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dice.h"

enum { THREADS = 3, AT_ONCE = 3, CHILDREN = 6, PORTS = 65536 };

static struct sockaddr_in server;
static time_t end;

/* What all processes count. */
static struct counts {
    atomic_int exchanges, taken, forks;
    atomic_int last_user[PORTS]; /* the process that used the connection at this port last */
} * counts;

static void fail(const char *what, long number)
{
    char line[256];
    int n =
        snprintf(line, sizeof(line), "%d: %s %ld (errno %d)\n", getpid(), what, number, errno);

    write(STDERR_FILENO, line, (size_t)n);
    _exit(1);
}

static void hear(int fd, const char *expected)
{
    size_t n = strlen(expected), have = 0;
    char got[256];

    while (have < n) {
        ssize_t more = recv(fd, got + have, n - have, 0);

        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0)
            fail("no answer at", fd);
        have += (size_t)more;
    }
    if (memcmp(got, expected, n) != 0)
        fail("another value at", fd);
}

static void exchange(int fd)
{
    static atomic_uint number;
    char request[256], answer[256];
    char key[32];

    snprintf(key, sizeof(key), "%09d-%010u", getpid(), atomic_fetch_add(&number, 1));
    snprintf(request, sizeof(request), "set %s 0 0 20\r\n%s\r\nget %s\r\n", key, key, key);
    snprintf(answer, sizeof(answer), "STORED\r\nVALUE %s 0 20\r\n%s\r\nEND\r\n", key, key);
    if (send(fd, request, strlen(request), MSG_NOSIGNAL) != (ssize_t)strlen(request))
        fail("cannot send at", fd);
    hear(fd, answer);
    atomic_fetch_add(&counts->exchanges, 1);
}

static int port_of(int fd)
{
    struct sockaddr_in name;
    socklen_t length = sizeof(name);

    if (getsockname(fd, (struct sockaddr *)&name, &length) != 0)
        fail("no name at", fd);
    return ntohs(name.sin_port);
}

static void note_user(int fd)
{
    int self = getpid(), port = port_of(fd), former;

    former = atomic_exchange(&counts->last_user[port], self);
    if (former != 0 && former != self)
        atomic_fetch_add(&counts->taken, 1);
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd < 0)
        fail("no socket", 0);
    while (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0) {
        if (errno != EINTR)
            fail("no connection at", fd);
    }
    note_user(fd);
    return fd;
}

/* Some connections at once, of which some are not kept. */
static void use_some(struct dice *dice)
{
    int fds[AT_ONCE];
    unsigned int n = 1 + roll(dice, AT_ONCE);

    for (unsigned int i = 0; i < n; i++)
        fds[i] = dial();
    for (unsigned int i = 0; i < n; i++)
        exchange(fds[i]);
    for (unsigned int i = 0; i < n; i++) {
        if (roll(dice, 8) == 0)
            send(fds[i], "get ", 4, MSG_NOSIGNAL);
        if (close(fds[i]) != 0)
            fail("cannot close", fds[i]);
    }
}

static void *work(void *number)
{
    struct dice dice = {(uint64_t)((long)number + 1) * 0x9e3779b97f4a7c15};

    while (time(NULL) < end) {
        use_some(&dice);
        if (roll(&dice, 4) == 0)
            poll(NULL, 0, (int)roll(&dice, 3));
    }
    return NULL;
}

static void end_now(int signal)
{
    (void)signal;
    _exit(0);
}

/* A signal comes at any time from now. */
static void end_soon(struct dice *dice, int signal)
{
    struct itimerval soon = {{0, 0}, {0, 1 + roll(dice, 5000)}};

    if (signal != 0)
        sigaction(SIGALRM, &(struct sigaction){.sa_handler = end_now}, NULL);
    setitimer(ITIMER_REAL, &soon, NULL);
}

static void live(struct dice *dice)
{
    unsigned int kind = roll(dice, 8);

    if (kind < 2)
        end_soon(dice, kind == 0);
    for (unsigned int i = 0; i <= roll(dice, 6); i++) {
        use_some(dice);
        poll(NULL, 0, (int)roll(dice, 4));
    }
    if (kind == 2)
        quick_exit(0);
    if (kind == 3)
        syscall(SYS_exit_group, 0);
    _exit(0);
}

/* A child ends as it should, or by the signal that it has asked for. */
static void wait_for_one(void)
{
    int status;

    while (waitpid(-1, &status, 0) < 0) {
        if (errno != EINTR)
            fail("no child", 0);
    }
    if (status != 0 && !(WIFSIGNALED(status) && WTERMSIG(status) == SIGALRM))
        fail("a child ended with status", status);
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    struct dice dice = {0};
    int children = 0;

    if (argc != 4)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    end = time(NULL) + atoi(argv[2]);
    dice.state = (uint64_t)atol(argv[3]) * 0x9e3779b97f4a7c15 + 1;
    counts =
        mmap(NULL, sizeof(*counts), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (counts == MAP_FAILED)
        fail("no memory", 0);
    for (long i = 0; i < THREADS; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)i) != 0)
            fail("no thread", i);
    }
    while (time(NULL) < end) {
        struct dice childs = {dice.state + roll(&dice, 1000)};
        pid_t child = fork();

        if (child < 0)
            fail("no fork", 0);
        if (child == 0)
            live(&childs);
        atomic_fetch_add(&counts->forks, 1);
        if (++children == CHILDREN) {
            wait_for_one();
            children--;
        }
    }
    for (; children > 0; children--)
        wait_for_one();
    for (int i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    printf("%d exchanges, %d forks, %d connections from another process\n", counts->exchanges,
           counts->forks, counts->taken);
    if (counts->taken == 0)
        fail("nothing was taken", 0);
    return 0;
}
