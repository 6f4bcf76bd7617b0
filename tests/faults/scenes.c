/*
 * What a client does, with a library whose system calls fail: scenes PORT. Every call must have
 * the result it would have without the library, every value must be its key's, and no fd may
 * stay open at the end. Exit code 1 and a line on stderr otherwise.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

static struct sockaddr_in server;
static const char *scene;

#define MUST(holds)                                                                            \
    do {                                                                                       \
        if (!(holds)) {                                                                        \
            fprintf(stderr, "%s: line %d: %s (errno %d)\n", scene, __LINE__, #holds, errno);   \
            exit(1);                                                                           \
        }                                                                                      \
    } while (0)

static int dial_after(void (*prepare)(int fd))
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    MUST(fd >= 0);
    if (prepare)
        prepare(fd);
    errno = EXDEV;
    MUST(connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0);
    MUST(errno == EXDEV);
    return fd;
}

static int dial(void)
{
    return dial_after(NULL);
}

static void tell(int fd, const void *bytes, size_t n)
{
    MUST(send(fd, bytes, n, MSG_NOSIGNAL) == (ssize_t)n);
}

static void tell_text(int fd, const char *text)
{
    tell(fd, text, strlen(text));
}

static void hear(int fd, const void *bytes, size_t n)
{
    char got[512];

    MUST(recv(fd, got, n, MSG_WAITALL) == (ssize_t)n);
    MUST(memcmp(got, bytes, n) == 0);
}

static void hear_text(int fd, const char *text)
{
    hear(fd, text, strlen(text));
}

/* The value names the key, and each call has another key. */
static void exchange(int fd)
{
    static unsigned int count;
    char request[128], answer[128];
    unsigned int n = ++count;

    snprintf(request, sizeof(request), "set key-%u 0 0 11\r\nvalue-%05u\r\nget key-%u\r\n", n,
             n, n);
    snprintf(answer, sizeof(answer), "STORED\r\nVALUE key-%u 0 11\r\nvalue-%05u\r\nEND\r\n", n,
             n);
    tell_text(fd, request);
    hear_text(fd, answer);
}

static void hang_up(int fd)
{
    errno = EXDEV;
    MUST(close(fd) == 0);
    MUST(errno == EXDEV);
    MUST(fcntl(fd, F_GETFD) == -1 && errno == EBADF);
}

static void cycles(void)
{
    for (int i = 0; i < 3; i++) {
        int fd = dial();

        exchange(fd);
        hang_up(fd);
    }
}

static void quiet_tail(void)
{
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        exchange(fd);
        tell_text(fd, "delete nothing noreply\r\n");
        hang_up(fd);
        usleep(3000);
    }
    cycles();
}

static void quit(void)
{
    int fd = dial();

    exchange(fd);
    tell_text(fd, "quit\r\n");
    MUST(recv(fd, &(char){0}, 1, 0) == 0);
    hang_up(fd);
}

static void shut_down(void)
{
    static const int hows[] = {SHUT_WR, SHUT_RDWR};

    for (int i = 0; i < 2; i++) {
        struct pollfd poller;
        int fd = dial();

        exchange(fd);
        MUST(shutdown(fd, hows[i]) == 0);
        poller = (struct pollfd){fd, POLLIN, 0};
        MUST(poll(&poller, 1, 5000) == 1);
        MUST(recv(fd, &(char){0}, 1, 0) == 0);
        MUST(send(fd, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
        hang_up(fd);
    }
}

static void given_up(void)
{
    int fd = dial();

    tell_text(fd, "get a\r\nget b\r\n");
    hang_up(fd);
    usleep(3000);
    cycles();
}

/* When a wrong guess of the protocol cannot be repaired, an error is right. */
static void ask(const char *request, const char *answer, size_t n, size_t answer_n)
{
    int fd = dial();

    if (send(fd, request, n, MSG_NOSIGNAL) == -1)
        MUST(errno == ECONNRESET);
    else
        hear(fd, answer, answer_n);
    hang_up(fd);
}

static void both_protocols(void)
{
    static const char noop[24] = {'\x80', '\x0a'}, answer[24] = {'\x81', '\x0a'};

    for (int i = 0; i < 4; i++) {
        ask(noop, answer, sizeof(noop), sizeof(answer));
        ask("get nothing\r\n", "END\r\n", 13, 5);
        ask("get nothing\r\n", "END\r\n", 13, 5);
    }
}

static int epfd;

static void watch(int fd)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 42}};

    MUST(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) == 0);
}

static void drain(void)
{
    struct epoll_event got[4];

    while (epoll_wait(epfd, got, 4, 0) > 0)
        MUST(got[0].data.u64 == 42);
}

static void watched(void)
{
    struct epoll_event got;

    epfd = epoll_create1(0);
    for (int i = 0; i < 3; i++) {
        int fd = dial_after(watch);

        drain();
        tell_text(fd, "get nothing\r\n");
        MUST(epoll_wait(epfd, &got, 1, 5000) == 1 && got.data.u64 == 42);
        hear_text(fd, "END\r\n");
        MUST(epoll_wait(epfd, &got, 1, 0) == 0);
        if (i == 1) {
            MUST(shutdown(fd, SHUT_WR) == 0);
            MUST(epoll_wait(epfd, &got, 1, 5000) == 1 && got.data.u64 == 42);
        }
        hang_up(fd);
        MUST(epoll_wait(epfd, &got, 1, 0) == 0);
    }
    hang_up(epfd);
}

static void prepare(int fd)
{
    struct timeval limit = {3, 0};
    int on = 1;

    MUST(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    MUST(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
    MUST(fcntl(fd, F_SETFD, FD_CLOEXEC) == 0);
}

static void prepared(void)
{
    for (int i = 0; i < 4; i++) {
        struct timeval limit = {0, 0};
        socklen_t len = sizeof(limit);
        int on = -1;
        int fd = dial_after(i % 2 ? NULL : prepare);

        MUST(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &len) == 0);
        MUST(limit.tv_sec == (i % 2 ? 0 : 3));
        len = sizeof(on);
        MUST(getsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, &len) == 0 && on == (i % 2 == 0));
        MUST(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0 && on == 0);
        MUST(fcntl(fd, F_GETFD) == (i % 2 ? 0 : FD_CLOEXEC));
        MUST((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0);
        exchange(fd);
        hang_up(fd);
    }
}

static void impatient(void)
{
    for (int i = 0; i < 2; i++) {
        struct pollfd poller;
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
        int result = connect(fd, (struct sockaddr *)&server, sizeof(server));
        int error = -1;
        socklen_t len = sizeof(error);

        MUST(result == 0 || errno == EINPROGRESS);
        poller = (struct pollfd){fd, POLLOUT, 0};
        MUST(poll(&poller, 1, 5000) == 1);
        MUST(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len) == 0 && error == 0);
        MUST(fcntl(fd, F_GETFL) & O_NONBLOCK);
        tell_text(fd, "get nothing\r\n");
        poller = (struct pollfd){fd, POLLIN, 0};
        MUST(poll(&poller, 1, 5000) == 1);
        hear_text(fd, "END\r\n");
        hang_up(fd);
    }
}

static void replaced(void)
{
    int null = open("/dev/null", O_RDWR);
    int fd = dial();

    exchange(fd);
    MUST(dup2(null, fd) == fd);
    MUST(write(fd, "x", 1) == 1);
    MUST(close(fd) == 0 && close(null) == 0);
    cycles();
}

/* A reused connection is replaced by a new one for the duplicate, or it ends: an error is right
 * as well. */
static void duplicated(void)
{
    static const char request[] = "get nothing\r\n";

    for (int i = 0; i < 2; i++) {
        int fd, copy;

        cycles();
        fd = dial();
        copy = dup(fd);
        MUST(copy >= 0);
        if (send(copy, request, strlen(request), MSG_NOSIGNAL) == -1)
            MUST(errno == EPIPE);
        else
            hear_text(copy, "END\r\n");
        MUST(close(copy) == 0 && close(fd) == 0);
    }
}

static void parent(void)
{
    int fd = dial(), status;
    pid_t child = fork();

    if (child == 0) {
        cycles();
        _exit(0);
    }
    MUST(waitpid(child, &status, 0) == child && status == 0);
    exchange(fd);
    hang_up(fd);
    cycles();
}

static in_port_t local_port(int fd)
{
    struct sockaddr_in name;
    socklen_t length = sizeof(name);

    MUST(getsockname(fd, (struct sockaddr *)&name, &length) == 0);
    return name.sin_port;
}

/* The connection that is kept has this port. */
static in_port_t park(void)
{
    int fd = dial();
    in_port_t port = local_port(fd);

    exchange(fd);
    hang_up(fd);
    return port;
}

static bool may_fail(void)
{
    const char *call = getenv("FAULT_CALL");

    return call && atol(call) > 0;
}

/* The next connection is the one at PORT, which another process has given, where the processes
 * share and no call fails. */
static void expect_taken(in_port_t port)
{
    in_port_t taken = park();

    MUST(taken == port || !getenv("SCENES_SHARED"));
}

static bool is_unix_socket(int fd)
{
    socklen_t length = sizeof(int);
    int domain = 0;

    return getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 && domain == AF_UNIX;
}

/* Puts another file at each of the fds of the family's queues, and closes it. */
static void take_places_of_queues(void)
{
    DIR *directory = opendir("/proc/self/fd");
    struct dirent *entry;
    int fds[64];
    size_t n = 0;

    MUST(directory != NULL);
    while ((entry = readdir(directory)) && n < sizeof(fds) / sizeof(fds[0])) {
        fds[n] = atoi(entry->d_name);
        n += is_unix_socket(fds[n]);
    }
    closedir(directory);
    for (size_t i = 0; i < n; i++) {
        MUST(dup2(epfd, fds[i]) == fds[i]);
        MUST(close(fds[i]) == 0);
    }
}

/* A connection goes from the child to the parent at the end of the child, and from there to the
 * next child while the parent waits. Then the queues are moved. */
static void share(void)
{
    in_port_t *ports =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    int fd, status;
    pid_t child;

    MUST(ports != MAP_FAILED);
    MUST((epfd = epoll_create1(0)) >= 0);
    fd = dial();
    exchange(fd);
    tell_text(fd, "get "); /* it is not kept */
    hang_up(fd);
    MUST(poll(NULL, 0, 50) == 0); /* does what the operator wishes */
    MUST((child = fork()) >= 0);
    if (child == 0) {
        ports[0] = park();
        _exit(0);
    }
    MUST(waitpid(child, &status, 0) == child && status == 0);
    expect_taken(ports[0]);
    MUST((child = fork()) >= 0);
    if (child == 0) {
        usleep(250000);
        expect_taken(ports[0]);
        _exit(0);
    }
    MUST(poll(NULL, 0, 150) == 0);
    MUST(waitpid(child, &status, 0) == child && status == 0);
    take_places_of_queues();
    expect_taken(ports[0]);
    hang_up(epfd);
    MUST(munmap(ports, 4096) == 0);
}

/* Under a clock that goes back its waits would not end. */
static void shared(void)
{
    if (!getenv("SCENES_WITHOUT_WAITS"))
        share();
}

static int open_descriptors(void)
{
    DIR *directory = opendir("/proc/self/fd");
    int n = 0;

    while (readdir(directory))
        n++;
    closedir(directory);
    return n;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *name;
        void (*play)(void);
    } scenes[] = {
        {"shared", shared},
        {"cycles", cycles},
        {"quiet tail", quiet_tail},
        {"quit", quit},
        {"shutdown", shut_down},
        {"given up", given_up},
        {"both protocols", both_protocols},
        {"watched", watched},
        {"prepared", prepared},
        {"impatient", impatient},
        {"replaced", replaced},
        {"duplicated", duplicated},
        {"parent", parent},
    };
    int before = open_descriptors();

    if (argc != 2)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    for (size_t i = 0; i < sizeof(scenes) / sizeof(scenes[0]); i++) {
        scene = scenes[i].name;
        scenes[i].play();
    }
    scene = "end";
    MUST(syscall(SYS_setuid, getuid()) == 0); /* after which the pool closes everything */
    /* A queue that cannot be asked what it is may be another file by now. */
    MUST(open_descriptors() <= before + may_fail());
    return 0;
}
