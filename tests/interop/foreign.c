/*
 * A client that is linked with another libc: foreign PORT FILE. It makes calls of every kind
 * that is hooked, among them sendmsg() with a struct whose members differ from glibc's.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int dial(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET,
                             .sin_port = htons((unsigned short)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        exit(3);
    return fd;
}

static void expect(int fd, const char *text)
{
    char got[64] = "";

    if (recv(fd, got, strlen(text), MSG_WAITALL) != (ssize_t)strlen(text) ||
        strcmp(got, text) != 0) {
        printf("expected %s, got %s\n", text, got);
        exit(4);
    }
}

static void turn(int fd, int i)
{
    struct iovec iov = {"set key 0 0 5\r\nvalue\r\n", 22};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct msghdr msg;
    struct pollfd ready = {fd, POLLIN, 0};

    /* Fills the padding between the members with other bytes. */
    memset(&msg, 0xff, sizeof(msg));
    memset(&control, 0xff, sizeof(control));
    msg.msg_name = NULL;
    msg.msg_namelen = 0;
    msg.msg_iov = &iov;
    msg.msg_iovlen = 1;
    msg.msg_control = i % 2 ? &control : NULL;
    msg.msg_controllen = 0;
    msg.msg_flags = 0;
    if (sendmsg(fd, &msg, 0) != (ssize_t)iov.iov_len || poll(&ready, 1, 5000) != 1)
        exit(5);
    expect(fd, "STORED\r\n");
    if (write(fd, "get key\r\n", 9) != 9)
        exit(6);
    expect(fd, "VALUE key 0 5\r\nvalue\r\nEND\r\n");
}

int main(int argc, char **argv)
{
    int status = 0, file, epfd = epoll_create1(0);
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    pid_t child;
    FILE *stream;

    for (int i = 0; i < 20; i++) {
        int fd = dial(argv[1]);

        if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) != 0)
            return 7;
        turn(fd, i);
        if (i % 3 == 0)
            shutdown(fd, SHUT_RDWR);
        if (i % 2 ? close(fd) : (int)syscall(SYS_close, fd))
            return 8;
    }
    child = fork();
    if (child == 0) {
        turn(dial(argv[1]), 0);
        _exit(9);
    }
    waitpid(child, &status, 0);
    printf("fork %d\n", WEXITSTATUS(status));
    child = vfork();
    if (child == 0)
        _exit(10);
    waitpid(child, &status, 0);
    printf("vfork %d, system %d\n", WEXITSTATUS(status), system("exit 11"));
    stream = popen("echo popen", "r");
    if (!stream || !fgets((char[64]){""}, 64, stream) || pclose(stream) != 0)
        return 12;
    file = open(argv[2], O_CREAT | O_RDWR, 0600);
    stream = fdopen(file, "w");
    if (!stream || fputs("written", stream) < 0 || fclose(stream) != 0)
        return 13;
    return argc == 3 ? 0 : 2;
}
