/*
 * What each system call of a pooled connection costs alone: nanoseconds, a line each, the least
 * of many rounds. In real use they cost more, because the caches are cold then.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <linux/tcp.h>

#define ROUNDS  200
#define CALLS   500
#define PRIVATE 1000

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int reused, spare, fd_to_replace;

static void ask_kernel(void)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(reused, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        exit(1);
}

static void look(void)
{
    uint64_t word = 0;

    syscall(SYS_rt_sigprocmask, -1, &word, NULL, sizeof(word));
}

static void duplicate_and_close(void)
{
    int fd = fcntl(spare, F_DUPFD, 0);

    if (fd < 0)
        exit(1);
    close(fd);
}

static void replace(void)
{
    if (dup3(reused, fd_to_replace, 0) != fd_to_replace)
        exit(1);
}

static void make_and_close(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0)
        exit(1);
    close(fd);
}

static void time_of(const char *name, void (*call)(void))
{
    double least = 1e9;

    for (int round = 0; round < ROUNDS; round++) {
        double start = now();

        for (int i = 0; i < CALLS; i++)
            call();
        start = (now() - start) / CALLS;
        if (start < least)
            least = start;
    }
    printf("%s\t%.0f\n", name, least);
}

static void prepare(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(addr);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (bind(listener, (struct sockaddr *)&addr, len) != 0 || listen(listener, 1) != 0 ||
        getsockname(listener, (struct sockaddr *)&addr, &len) != 0 ||
        connect(fd, (struct sockaddr *)&addr, len) != 0)
        exit(1);
    reused = fcntl(fd, F_DUPFD_CLOEXEC, PRIVATE);
    spare = fcntl(socket(AF_INET, SOCK_STREAM, 0), F_DUPFD_CLOEXEC, PRIVATE);
    fd_to_replace = dup(spare);
}

int main(void)
{
    alarm(60);
    prepare();
    time_of("socket() and close() of what is thrown away", make_and_close);
    time_of("fcntl(F_DUPFD) and close()", duplicate_and_close);
    time_of("getsockopt(TCP_INFO)", ask_kernel);
    time_of("dup3()", replace);
    time_of("rt_sigprocmask()", look);
    return 0;
}
