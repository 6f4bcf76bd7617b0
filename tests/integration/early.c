/*
 * A library that talks to memcached in its constructor, its destructor, and handlers of fork()
 * and atexit(). It ends the process with code 1 when something goes wrong. It is not part of
 * the test program: it becomes early.so, which is preloaded into another program after
 * libmcpool.so, and so is initialised before it. With TEST_EARLY_RING it makes an io_uring in
 * its constructor and enters it later.
 */
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

static int ring = -1;

static void converse(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)atoi(getenv("TEST_PORT"))),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    int on = 1;
    char answer[8];

    for (int i = 0; i < 3; i++) {
        int epfd = epoll_create1(0);
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        int copy = i == 0 ? dup(fd) : socket(AF_INET, SOCK_STREAM, 0);
        int same = dup2(fd, fd);

        if (copy < 0 || close(copy) != 0 || same != fd || dup2(-1, -1) != -1 ||
            setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) != 0 ||
            connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
            epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) != 0 || write(fd, "get a\r\n", 7) != 7 ||
            recv(fd, answer, 5, MSG_WAITALL) != 5 || close(epfd) != 0 || close(fd) != 0)
            _exit(1);
    }
}

/* dash handles SIGCHLD without SA_RESTART, which would interrupt recv(). */
static void speak(void)
{
    sigset_t every, before;

    sigfillset(&every);
    sigprocmask(SIG_SETMASK, &every, &before);
    if (ring >= 0)
        syscall(SYS_io_uring_enter, ring, 0, 0, 0, NULL, 0L);
    converse();
    sigprocmask(SIG_SETMASK, &before, NULL);
}

__attribute__((constructor)) static void begin(void)
{
    struct io_uring_params parameters = {0};

    speak();
    if (getenv("TEST_EARLY_RING"))
        ring = (int)syscall(SYS_io_uring_setup, 1, &parameters);
    atexit(speak);
    pthread_atfork(speak, speak, speak);
}

__attribute__((destructor)) static void end(void)
{
    speak();
}
