/*
 * A thread that is stopped while it has the pool's lock: stopped PORT. Garbage collectors stop
 * all other threads by a signal whose handler waits in sigsuspend(), and go on themselves. Here
 * the library calls the program before each of its atomic operations, so that the signal always
 * comes under the lock. The last line counts like a test runner.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/rawsys.h"

int close_range(unsigned int first, unsigned int last, int flags);

enum { PRIVATE = 20, CYCLES = 500, IDLE = 4, FEW_FDS = 64 };

static struct sockaddr_in server;
static int failed;
static int slowness; /* as in tests/integration/harness.h */

/* Whether the thread stops when it has the lock next: it reads &torn first then. connect() and
 * close() take the lock once each. */
static _Thread_local bool is_to_stop;
static atomic_bool is_stopped, may_go_on;

void pause_visit(const char *at)
{
    if (is_to_stop && strcmp(at, "&torn") == 0) {
        is_to_stop = false;
        raise(SIGUSR1);
    }
}

static void stop_the_thread(int signal)
{
    sigset_t all_but_go;

    (void)signal;
    sigfillset(&all_but_go);
    sigdelset(&all_but_go, SIGUSR2);
    is_stopped = true;
    /* setgid() interrupts it, too: libc notifies every thread by a signal of its own. */
    while (!may_go_on)
        sigsuspend(&all_but_go);
}

static void go_on(int signal)
{
    (void)signal;
}

static void give_up(int signal)
{
    static const char text[] = "FAILED hangs\n0 passed, 1 failed\n";

    (void)signal;
    write(STDOUT_FILENO, text, sizeof(text) - 1);
    _exit(1);
}

static void expect(bool good, const char *what, const char *where)
{
    if (good)
        return;
    printf("FAILED %s: %s (errno %d)\n", where, what, errno);
    failed = 1;
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    if (fd >= 0 && connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0)
        return fd;
    return -1;
}

static bool exchange(int fd)
{
    static atomic_int numbers;
    char request[128], expected[64], got[64];
    int number = numbers++, n;

    n = snprintf(request, sizeof(request), "set k%d 0 0 6\r\n%06d\r\nget k%d\r\n", number,
                 number, number);
    if (send(fd, request, (size_t)n, MSG_NOSIGNAL) != n)
        return false;
    n = snprintf(expected, sizeof(expected), "STORED\r\nVALUE k%d 0 6\r\n%06d\r\nEND\r\n",
                 number, number);
    return recv(fd, got, (size_t)n, MSG_WAITALL) == n && memcmp(got, expected, (size_t)n) == 0;
}

static bool cycle(void)
{
    int fd = dial();

    return fd >= 0 && exchange(fd) && close(fd) == 0;
}

static int local_port(int fd)
{
    struct sockaddr_in addr = {0};

    getsockname(fd, (struct sockaddr *)&addr, &(socklen_t){sizeof(addr)});
    return ntohs(addr.sin_port);
}

/* All fds of this process that lead to the server, shadow fds too. */
static int fds_to_server(void)
{
    struct sockaddr_in addr;
    int n = 0;

    for (int fd = 3; fd < 9000; fd++) {
        socklen_t len = sizeof(addr);

        n += getpeername(fd, (struct sockaddr *)&addr, &len) == 0 &&
             addr.sin_port == server.sin_port;
    }
    return n;
}

static void fork_a_child(const char *where)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        if (fds_to_server() != 0)
            _exit(2);
        for (int i = 0; i < 3; i++) {
            if (!cycle())
                _exit(3);
        }
        _exit(0);
    }
    expect(child > 0 && waitpid(child, &status, 0) == child, "fork()", where);
    expect(WIFEXITED(status) && WEXITSTATUS(status) != 2, "the child has idle connections",
           where);
    expect(status == 0, "the child", where);
}

struct scene {
    const char *name;
    bool connects; /* the thread is stopped in connect(), else in close() */
    void (*meanwhile)(void);
    int idle_after; /* at most */
    void (*before)(void);
};

static bool thread_did_well;

static void *connect_and_close(void *argument)
{
    const struct scene *scene = argument;
    int fd;

    is_to_stop = scene->connects;
    fd = dial();
    thread_did_well = fd >= 0 && exchange(fd);
    is_to_stop = !scene->connects;
    thread_did_well &= close(fd) == 0;
    return NULL;
}

static double seconds(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void do_nothing(void)
{
}

static void change_identity(void)
{
    setgid(getgid());
}

/* An idle connection was closed unseen, and its shadow fd is the program's now. */
static void change_identity_over_a_stranger(void)
{
    struct sockaddr_in addr;
    int fd = 9000;

    do
        fd--;
    while (fd > PRIVATE &&
           getpeername(fd, (struct sockaddr *)&addr, &(socklen_t){sizeof(addr)}) != 0);
    expect(raw_syscall(SYS_dup3, STDIN_FILENO, fd, 0) == fd, "dup3()", "over a stranger");
    setgid(getgid());
    expect(raw_syscall(SYS_close, fd) == 0, "the fd was closed", "over a stranger");
}

static void close_all(void)
{
    close_range(PRIVATE, ~0U, 0);
}

static void close_each(void)
{
    for (int fd = PRIVATE; fd < 9000; fd++)
        close(fd);
}

/* The program gets every fd that its limit allows, also those that the pool had. */
static void use_all_fds(void)
{
    int fds[FEW_FDS], n = 0;

    while (n < FEW_FDS && (fds[n] = dup(STDIN_FILENO)) >= 0)
        n++;
    expect(n < FEW_FDS && errno == EMFILE && fds_to_server() == 0, "all fds", "fds used up");
    while (n > 0)
        close(fds[--n]);
}

static void few_fds(void)
{
    struct rlimit few = {FEW_FDS, FEW_FDS};

    setrlimit(RLIMIT_NOFILE, &few);
    sleep(2); /* the library reads it once a second */
}

static const struct scene scenes[] = {
    {"stopped in close()", false, do_nothing, IDLE + 1},
    {"stopped in connect()", true, do_nothing, IDLE + 1},
    {"stopped in close(), identity changed", false, change_identity, 1},
    {"stopped in connect(), identity changed", true, change_identity, 1},
    {"stopped in close(), over a stranger", false, change_identity_over_a_stranger, 1},
    {"stopped in close(), bulk close", false, close_all, 1},
    {"stopped in connect(), each fd closed", true, close_each, 1},
    {"stopped in connect(), fds used up", true, use_all_fds, 1, few_fds},
};

static void fill_the_pool(const char *where)
{
    int fds[IDLE];

    for (int i = 0; i < IDLE; i++)
        fds[i] = dial();
    for (int i = 0; i < IDLE; i++)
        expect(exchange(fds[i]) && close(fds[i]) == 0, "before", where);
}

/* What the running thread does while the other one is stopped. */
static void play_on(const struct scene *scene)
{
    double began = seconds();

    for (int i = 0; i < CYCLES; i++)
        expect(cycle(), "a cycle meanwhile", scene->name);
    expect(seconds() - began < slowness * CYCLES * 0.008, "each call waited", scene->name);
    fork_a_child(scene->name);
    scene->meanwhile();
    expect(fds_to_server() <= scene->idle_after, "fds of the pool are still open", scene->name);
    expect(cycle(), "a cycle after", scene->name);
}

static void play(const struct scene *scene)
{
    pthread_t thread;
    int fd, port;

    if (scene->before)
        scene->before();
    fill_the_pool(scene->name);
    is_stopped = may_go_on = false;
    pthread_create(&thread, NULL, connect_and_close, (void *)scene);
    while (!is_stopped)
        usleep(1000);
    play_on(scene);
    may_go_on = true;
    pthread_kill(thread, SIGUSR2);
    pthread_join(thread, NULL);
    expect(thread_did_well, "the stopped thread", scene->name);
    expect(fds_to_server() <= scene->idle_after, "idle connections were not given up",
           scene->name);
    expect(cycle(), "a cycle in the end", scene->name);
    fd = dial();
    port = local_port(fd);
    expect(exchange(fd) && close(fd) == 0, "an exchange in the end", scene->name);
    fd = dial();
    expect(local_port(fd) == port, "pooling does not go on", scene->name);
    close(fd);
}

int main(int argc, char **argv)
{
    sigset_t go;
    int passed = 0, failures = 0;

    if (argc != 2)
        return 2;
    slowness = getenv("TEST_SLOWNESS") ? atoi(getenv("TEST_SLOWNESS")) : 1;
    setvbuf(stdout, NULL, _IOLBF, 0);
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    signal(SIGUSR1, stop_the_thread);
    signal(SIGUSR2, go_on);
    signal(SIGALRM, give_up);
    sigemptyset(&go);
    sigaddset(&go, SIGUSR2);
    pthread_sigmask(SIG_BLOCK, &go, NULL);
    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        failed = 0;
        alarm((unsigned int)(60 * slowness));
        play(&scenes[i]);
        printf("%s: %s\n", scenes[i].name, failed ? "FAILED" : "ok");
        passed += !failed;
        failures += failed;
    }
    printf("%d passed, %d failed\n", passed, failures);
    return failures ? 1 : 0;
}
