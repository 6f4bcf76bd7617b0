/*
 * Calls functions that older libcs lack, while a connection is open: newer PORT FILE. Prints
 * the results.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static int port;

/* An open connection that was used. */
static int dial(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[6] = "";
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        send(fd, "get nothing\r\n", 13, 0) != 13 || recv(fd, answer, 5, MSG_WAITALL) != 5)
        exit(1);
    printf("%d: %s", fd, answer);
    return fd;
}

static void positioned(const char *path)
{
    char got[4] = "";
    struct iovec out = {"abc", 3}, in = {got, 3};
    int fd = open(path, O_RDWR | O_CREAT | O_TRUNC, 0600);

    printf("wrote %zd", pwritev64v2(fd, &out, 1, 2, 0));
    printf(", read %zd", preadv64v2(fd, &in, 1, 2, 0));
    printf(" %s\n", got);
    close(fd);
}

static void child(void)
{
    int status = -1;
    pid_t pid = _Fork();

    if (pid == 0)
        _exit(7);
    printf("waited %d", waitpid(pid, &status, 0) == pid);
    printf(", status %d\n", WEXITSTATUS(status));
}

static void waits(void)
{
    struct timespec at_once = {0, 0};
    struct epoll_event event;
    int set = epoll_create1(0);

    printf("ready %d\n", epoll_pwait2(set, &event, 1, &at_once, NULL));
    close(set);
}

/* There is no such process. */
static void neighbour(void)
{
    printf("got %d", pidfd_getfd(-1, 0, 0));
    printf(", errno %d\n", errno);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    port = atoi(argv[1]);
    for (int i = 0; i < 3; i++)
        close(dial());
    positioned(argv[2]);
    child();
    waits();
    neighbour();
    for (int i = 0; i < 3; i++) {
        unsigned int fd = (unsigned int)dial();

        printf("closed %d\n", close_range(fd, fd, 0));
        close(dial());
        closefrom(dial());
    }
    printf("closed %d\n", fcntl(3, F_GETFD));
    return 0;
}
