/*
 * A process whose clocks jump while a connection idles: clocks PORT CLOCK SECONDS WHERE. CLOCK
 * is `boot`, as after a suspension of the host, or `wall`. It jumps before or in the call that
 * WHERE names, which waits. Prints whether the next connect() reused the connection.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static volatile long boot_ahead, wall_ahead;
static const char *which;
static long seconds;

/* In place of libc's, for the library too. */
int clock_gettime(clockid_t id, struct timespec *time)
{
    long result = syscall(SYS_clock_gettime, id, time);

    if (id == CLOCK_BOOTTIME)
        time->tv_sec += boot_ahead;
    if (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)
        time->tv_sec += wall_ahead;
    return (int)result;
}

static void jump(int signal)
{
    (void)signal;
    if (strcmp(which, "boot") == 0)
        boot_ahead += seconds;
    else
        wall_ahead += seconds;
}

static int dial(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        exit(1);
    return fd;
}

static int local_port(int fd)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);

    getsockname(fd, (struct sockaddr *)&addr, &len);
    return ntohs(addr.sin_port);
}

/* An alarm interrupts all but the first. */
static void wait_in(const char *where)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};
    struct epoll_event event;
    int listener;

    if (strcmp(where, "before") == 0) {
        jump(0);
        poll(NULL, 0, 1);
        return;
    }
    if (strcmp(where, "poll") == 0)
        poll(NULL, 0, 20000);
    else if (strcmp(where, "select") == 0)
        select(0, NULL, NULL, NULL, &(struct timeval){20, 0});
    else if (strcmp(where, "epoll_wait") == 0)
        epoll_wait(epoll_create1(0), &event, 1, 20000);
    else {
        listener = socket(AF_INET, SOCK_STREAM, 0);
        if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
            listen(listener, 1) != 0)
            exit(1);
        accept(listener, NULL, NULL);
    }
}

int main(int argc, char **argv)
{
    struct sigaction action = {.sa_handler = jump};
    struct itimerval soon = {{0, 0}, {0, 100000}};
    int port = argc == 5 ? atoi(argv[1]) : 0;
    int fd, before;
    char reply[5];

    which = argv[2];
    seconds = atol(argv[3]);
    sigaction(SIGALRM, &action, NULL);
    fd = dial(port);
    before = local_port(fd);
    if (send(fd, "get a\r\n", 7, 0) != 7 || recv(fd, reply, 5, MSG_WAITALL) != 5)
        return 1;
    close(fd);
    if (strcmp(argv[4], "before") != 0)
        setitimer(ITIMER_REAL, &soon, NULL);
    wait_in(argv[4]);
    puts(local_port(dial(port)) == before ? "reused" : "opened");
    return 0;
}
