/*
 * Everything at once: stress PORT SECONDS SEED. Threads use connections in every way, while
 * others fork, flush, close shadow fds, cancel and interrupt. One stops all others by signals,
 * as garbage collectors do, and goes on itself. Every value names its key; a value of another
 * key ends the run with exit code 1. So does a failed call at the run's end, because nothing
 * here closes what another thread uses.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "dice.h"

int close_range(unsigned int first, unsigned int last, int flags);

enum { THREADS = 10, PRIVATE = 48 };

static struct sockaddr_in server;
static atomic_int answers, troubles;
static time_t end;

static void fail(const char *what, const char *got)
{
    char line[512];
    int n = snprintf(line, sizeof(line), "%s: %s (errno %d)\n", what, got, errno);

    write(STDERR_FILENO, line, (size_t)n);
    _exit(1);
}

/* A call did what it would never do without the library. */
static void in_vain(const char *what)
{
    char line[128];
    int saved = errno;
    int n = snprintf(line, sizeof(line), "in vain: %s (errno %d)\n", what, saved);

    write(STDERR_FILENO, line, (size_t)n);
    troubles++;
    errno = saved;
}

/* False when no answer comes. */
static bool hear(int fd, const char *expected)
{
    char got[256];
    size_t n = strlen(expected), have = 0;

    while (have < n) {
        ssize_t more = recv(fd, got + have, n - have, 0);

        if (more < 0 && errno == EINTR)
            continue;
        if (more <= 0) {
            in_vain(more < 0 ? "recv()" : "recv() of nothing");
            return false;
        }
        have += (size_t)more;
        if (memcmp(got, expected, have) != 0) {
            got[have] = '\0';
            fail(expected, got);
        }
    }
    answers++;
    return true;
}

static bool tell(int fd, const char *text)
{
    bool told = send(fd, text, strlen(text), MSG_NOSIGNAL) == (ssize_t)strlen(text);

    if (!told)
        in_vain("send()");
    return told;
}

static bool exchange(int fd, unsigned int who, unsigned int number)
{
    char request[128], expected[128];

    snprintf(request, sizeof(request),
             "set k-%u-%u 0 0 17\r\nvalue-%04u-%06u\r\nget k-%u-%u\r\n", who, number,
             who % 10000, number % 1000000, who, number);
    snprintf(expected, sizeof(expected),
             "STORED\r\nVALUE k-%u-%u 0 17\r\nvalue-%04u-%06u\r\nEND\r\n", who, number,
             who % 10000, number % 1000000);
    return tell(fd, request) && hear(fd, expected);
}

static int dial(struct dice *dice)
{
    int fd = socket(AF_INET, SOCK_STREAM | (roll(dice, 2) ? SOCK_CLOEXEC : 0), 0);

    if (fd >= 0 && roll(dice, 4) == 0)
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
    if (fd >= 0 && connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0)
        return fd;
    in_vain(fd < 0 ? "socket()" : "connect()");
    if (fd >= 0)
        close(fd);
    return -1;
}

static void cycle(struct dice *dice, unsigned int who)
{
    static atomic_uint numbers;
    int fd = dial(dice);

    if (fd < 0)
        return;
    for (unsigned int i = 0; i <= roll(dice, 2); i++)
        exchange(fd, who, numbers++);
    close(fd);
}

static void replaced(struct dice *dice)
{
    int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd = dial(dice);

    if (fd >= 0) {
        exchange(fd, 77, roll(dice, 1000000));
        dup2(null, fd);
        close(fd);
    }
    close(null);
}

/* Its duplicate is closed before, after, or at the same time by another thread. */
static void duplicated(struct dice *dice)
{
    static atomic_int left_open = -1;
    int fd = dial(dice), copy = fd < 0 ? -1 : fcntl(fd, F_DUPFD_CLOEXEC, 0);

    if (copy >= 0) {
        exchange(copy, 79, roll(dice, 1000000));
        copy = roll(dice, 2) ? copy : atomic_exchange(&left_open, copy);
        if (roll(dice, 2) && copy >= 0) {
            close(copy);
            copy = -1;
        }
        exchange(fd, 80, roll(dice, 1000000));
    }
    if (fd >= 0)
        close(fd);
    if (copy >= 0)
        close(copy);
}

static void given_up(struct dice *dice)
{
    int fd = dial(dice);

    tell(fd, "get k-1-1\r\nget k-2-2\r\n");
    close(fd);
}

static void quiet(struct dice *dice)
{
    int fd = dial(dice);

    tell(fd, "set quiet 0 0 1 noreply\r\nx\r\n");
    close(fd);
}

static void quit(struct dice *dice)
{
    int fd = dial(dice);

    if (fd >= 0 && exchange(fd, 78, roll(dice, 1000000))) {
        if (roll(dice, 2))
            tell(fd, "quit\r\n");
        else
            shutdown(fd, SHUT_RDWR);
        if (recv(fd, &(char){0}, 1, 0) > 0)
            fail("after a quit", "bytes");
    }
    close(fd);
}

static void watched(struct dice *dice)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    int epfd = epoll_create1(EPOLL_CLOEXEC), fd = dial(dice);

    epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
    if (fd >= 0 && tell(fd, "get nothing\r\n") && epoll_wait(epfd, &event, 1, 1000) == 1)
        hear(fd, "END\r\n");
    if (roll(dice, 2))
        epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL);
    close(fd);
    close(epfd);
}

static void polled(struct dice *dice)
{
    int fd = dial(dice);
    struct pollfd wanted = {fd, POLLIN, 0};

    if (fd >= 0 && tell(fd, "get nothing\r\n") && poll(&wanted, 1, 1000) == 1)
        hear(fd, "END\r\n");
    close(fd);
}

/* Threads inside a libc function that takes libc's own locks. A thread stopped there keeps all
 * others from forking, with any library. */
static atomic_int in_libc;

static void family(struct dice *dice)
{
    pid_t child;
    int status = 0;

    in_libc++;
    child = fork();
    in_libc--;
    if (child == 0) {
        for (unsigned int i = 0; i < 3; i++)
            cycle(dice, 5000 + (unsigned int)getpid() % 1000);
        _exit(0);
    }
    while (child > 0 && waitpid(child, &status, 0) < 0 && errno == EINTR)
        continue;
    if (status != 0)
        fail("a child", "failed");
}

/* Under ThreadSanitizer a signal is handled late and blocks all others. libc's setuid() waits
 * until every thread has handled a signal of its own. One thread may be in a handler that waits
 * for ThreadSanitizer's locks, held by a fork() that waits for setuid(): a deadlock. */
static void flush(struct dice *dice)
{
    (void)dice;
#ifdef __SANITIZE_THREAD__
    syscall(SYS_setuid, getuid());
#else
    in_libc++;
    setuid(getuid());
    in_libc--;
#endif
}

static void bulk_close(struct dice *dice)
{
    (void)dice;
    close_range(PRIVATE, ~0U, 0);
}

static void *wait_for_ever(void *fd)
{
    recv(*(int *)fd, &(char){0}, 1, 0);
    return NULL;
}

static void cancelled(struct dice *dice)
{
    pthread_t thread;
    int fd = dial(dice);

    if (fd < 0)
        return;
    in_libc++;
    if (pthread_create(&thread, NULL, wait_for_ever, &fd) == 0) {
        pthread_cancel(thread);
        pthread_join(thread, NULL);
    }
    in_libc--;
    close(fd);
}

/* One alarm at a time: with pauses a handler may take longer than any interval. */
static void set_alarm(void)
{
    struct itimerval soon = {{0, 0}, {0, 5000}};

    if (time(NULL) < end)
        setitimer(ITIMER_REAL, &soon, NULL);
}

static void on_alarm(int signal)
{
    struct dice dice = {(uint64_t)(uintptr_t)&signal | 1};
    int saved = errno;

    (void)signal;
    cycle(&dice, 9999);
    set_alarm();
    errno = saved;
}

static const struct {
    void (*act)(struct dice *dice);
    unsigned int weight;
} acts[] = {{replaced, 8}, {duplicated, 8},  {given_up, 8}, {quiet, 8},
            {quit, 8},     {watched, 8},     {polled, 8},   {family, 1},
            {flush, 1},    {bulk_close, 16}, {cancelled, 4}};

/* The collector is at work; how many threads are stopped for it; it has ended. */
static atomic_bool collecting, collected;
static atomic_int stopped;

static void *live(void *argument)
{
    unsigned int who = (unsigned int)(size_t)argument;
    struct dice dice = {who * UINT64_C(0x9e3779b97f4a7c15) | 1};

    while (time(NULL) < end) {
        unsigned int what = roll(&dice, 110);

        for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
            if (what < acts[i].weight)
                acts[i].act(&dice);
            what -= acts[i].weight;
        }
        if (what < 110)
            cycle(&dice, who);
    }
    while (!collected)
        usleep(1000);
    return NULL;
}

static void stand_still(int signal)
{
    int saved = errno;

    (void)signal;
    stopped++;
    while (collecting)
        usleep(200);
    stopped--;
    errno = saved;
}

/* Under ThreadSanitizer a signal is handled late and blocks all others, which setuid() waits
 * for. */
#ifdef __SANITIZE_THREAD__
#define CAN_COLLECT false
#else
#define CAN_COLLECT true
#endif

/* Stops all THREADS wherever they are, and then uses connections as they do. */
static void *collect(void *threads)
{
    struct dice dice = {4711};

    while (CAN_COLLECT && time(NULL) < end) {
        collecting = true;
        for (int i = 0; i < THREADS; i++)
            pthread_kill(((pthread_t *)threads)[i], SIGUSR1);
        while (stopped < THREADS)
            sched_yield();
        for (int i = 0; i < 3; i++)
            cycle(&dice, 8888);
        if (in_libc == 0)
            family(&dice);
        collecting = false;
        while (stopped > 0)
            sched_yield();
        usleep(roll(&dice, 20000));
    }
    collected = true;
    return NULL;
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct sigaction stop = {.sa_handler = stand_still, .sa_flags = SA_RESTART};
    pthread_t threads[THREADS], collector;
    unsigned int seed;

    if (argc != 4)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    end = time(NULL) + atoi(argv[2]);
    seed = (unsigned int)atoi(argv[3]);
    sigfillset(&stop.sa_mask);
    sigaction(SIGUSR1, &stop, NULL);
    sigaction(SIGALRM, &action, NULL);
    set_alarm();
    for (size_t i = 0; i < THREADS; i++)
        pthread_create(&threads[i], NULL, live, (void *)(seed % 1000 * THREADS + i + 1));
    pthread_create(&collector, NULL, collect, threads);
    for (size_t i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
    pthread_join(collector, NULL);
    printf("%d right answers, %d calls in vain\n", answers, troubles);
    return answers > 0 && troubles == 0 ? 0 : 1;
}
