/*
 * A program whose results must be the same with and without the shim: it makes every hooked
 * call with good and bad arguments and prints what came back. Not part of the test program:
 * run.sh compiles it, runs it both ways, and compares.
 *
 *     victim PORT
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);

/* Prints the call, its result, and errno, which must stay what it was on success. */
#define STEP(call)                                                                             \
    do {                                                                                       \
        long result_;                                                                          \
        errno = 4711;                                                                          \
        result_ = (long)(call);                                                                \
        printf("%s = %ld errno %d\n", #call, result_, errno);                                  \
    } while (0)

static struct sockaddr_in server;
static struct sockaddr_in refused;
static struct epoll_event event = {EPOLLIN, {.u64 = 1}};
static char buffer[256];
static struct iovec iov = {buffer, 5};
static struct msghdr message = {.msg_iov = &iov, .msg_iovlen = 1};
static struct mmsghdr messages = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};

static void every_call_on(int fd)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    int on = 1;

    printf("-- on %s\n", fd < 0 ? "nothing" : "a file");
    STEP(connect(fd, (struct sockaddr *)&server, sizeof(server)));
    STEP(bind(fd, (struct sockaddr *)&server, sizeof(server)));
    STEP(listen(fd, 1));
    STEP(accept(fd, (struct sockaddr *)&addr, &len));
    STEP(accept4(fd, (struct sockaddr *)&addr, &len, 0));
    STEP(shutdown(fd, SHUT_RDWR));
    STEP(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(sendto(fd, "x", 1, MSG_NOSIGNAL, NULL, 0));
    STEP(sendmsg(fd, &message, MSG_NOSIGNAL));
    STEP(sendmmsg(fd, &messages, 1, MSG_NOSIGNAL));
    STEP(recv(fd, buffer, 1, MSG_DONTWAIT));
    STEP(recvfrom(fd, buffer, 1, MSG_DONTWAIT, NULL, NULL));
    STEP(recvmsg(fd, &message, MSG_DONTWAIT));
    STEP(recvmmsg(fd, &messages, 1, MSG_DONTWAIT, NULL));
    STEP(read(fd, buffer, 0));
    STEP(readv(fd, &iov, 0));
    STEP(write(fd, "x", 0));
    STEP(writev(fd, &iov, 0));
    STEP(epoll_ctl(fd, EPOLL_CTL_ADD, fd, &event));
    STEP(ioctl(fd, FIONBIO, &on));
    STEP(ioctl(fd, TCGETS, buffer));
    STEP(fcntl(fd, F_GETFL));
    STEP(fcntl(fd, F_SETFL, O_NONBLOCK));
    STEP(fcntl(fd, F_SETFD, FD_CLOEXEC));
    STEP(fcntl(fd, 4711, 0));
    STEP(sendfile(fd, fd, NULL, 1));
    STEP(splice(fd, NULL, fd, NULL, 1, 0));
    STEP(dup2(fd, fd));
    STEP(dup3(fd, fd, 0));
    STEP(fdopen(fd, "x"));
}

static void calls_that_fail(void)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    puts("-- bad arguments");
    STEP(socket(-1, SOCK_STREAM, 0));
    STEP(socket(AF_INET, 77, 0));
    STEP(socket(AF_INET, SOCK_STREAM, 4711));
    STEP(connect(fd, NULL, sizeof(server)));
    STEP(connect(fd, (struct sockaddr *)&server, 3));
    STEP(connect(fd, (struct sockaddr *)&path, sizeof(path)));
    STEP(connect(fd, (struct sockaddr *)&refused, sizeof(refused)));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(recv(fd, buffer, 1, 0));
    STEP(shutdown(fd, SHUT_WR));
    STEP(setsockopt(fd, IPPROTO_TCP, 4711, buffer, 4));
    STEP(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, buffer, 1));
    STEP(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4));
    STEP(sendmsg(fd, NULL, 0));
    STEP(recvmsg(fd, NULL, 0));
    STEP(close(fd));
    STEP(close(fd));
    STEP(close(-1));
    STEP(dup(-1));
    STEP(dup2(0, -1));
    STEP(dup3(0, 100, 4711));
    STEP(fcntl(0, F_DUPFD, -1));
    STEP(close_range(10, 5, 0));
    STEP(close_range(0, 5, 4711));
    STEP(epoll_create(0));
    STEP(epoll_create1(4711));
    STEP(setuid((uid_t)-1));
    STEP(setresuid((uid_t)-1, (uid_t)-1, (uid_t)-1));
    STEP(setgroups(1000000, NULL));
    STEP(chroot("/nonexistent"));
    STEP(syscall(SYS_getpid) == getpid());
    STEP(syscall(100000));
    STEP(syscall(SYS_close, -1));
}

/* The same session three times over: from the second on it is answered from the pool. */
static void session(int flags)
{
    struct pollfd wait = {-1, POLLIN, 0};
    struct sockaddr_in peer;
    socklen_t len = sizeof(peer);
    int error = 0;
    socklen_t size = sizeof(error);
    int on = 1;
    int epfd;
    int fd;

    printf("-- a session, flags %x\n", flags);
    STEP(fd = socket(AF_INET, SOCK_STREAM | (flags & SOCK_CLOEXEC), 0));
    STEP(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
    STEP(connect(fd, (struct sockaddr *)&server, sizeof(server)));
    STEP(connect(fd, (struct sockaddr *)&server, sizeof(server)));
    STEP(fcntl(fd, F_SETFL, flags & SOCK_NONBLOCK ? O_NONBLOCK : 0));
    STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size));
    STEP(error);
    STEP(getpeername(fd, (struct sockaddr *)&peer, &len));
    STEP(memcmp(&peer, &server, sizeof(peer)));
    STEP(fcntl(fd, F_GETFL));
    STEP(fcntl(fd, F_GETFD));
    STEP(epfd = epoll_create1(EPOLL_CLOEXEC));
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
    STEP(epoll_wait(epfd, &event, 1, 0));
    STEP(send(fd, "get nothing\r\n", 13, 0));
    STEP(epoll_wait(epfd, &event, 1, 5000));
    wait.fd = fd;
    STEP(poll(&wait, 1, 5000));
    STEP(wait.revents);
    STEP(ioctl(fd, FIONREAD, &on));
    STEP(on);
    STEP(recv(fd, buffer, 3, MSG_PEEK));
    STEP(readv(fd, &iov, 1));
    STEP(memcmp(buffer, "END\r\n", 5));
    STEP(epoll_wait(epfd, &event, 1, 0));
    STEP(close(fd));
    STEP(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
    STEP(epoll_wait(epfd, &event, 1, 50));
    STEP(close(epfd));
    STEP(close(fd));
}

int main(int argc, char **argv)
{
    if (argc != 2)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    refused = server;
    refused.sin_port = htons(1);
    every_call_on(-1);
    every_call_on(open("/dev/null", O_RDWR));
    calls_that_fail();
    for (int i = 0; i < 12; i++)
        session((i % 2 ? SOCK_CLOEXEC : 0) | (i / 2 % 2 ? SOCK_NONBLOCK : 0));
    return 0;
}
