/*
 * A client whose request is gone from memory when the call that sent it returns. Another thread
 * may have received the reply meanwhile and freed the memory:
 *
 *     gone PORT CALL REQUEST
 *
 * Runs above the library of below.c. With the REQUEST "threads" another thread really gets the
 * reply. With "passed" an fd is sent. With "watched" the event given to epoll_ctl() is gone.
 * Prints what was received.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define TURNS 4
#define VALUE 9000 /* more than two pages */
#define PIECE 7    /* bytes of the pieces that a request is sent in */

/* All of a call's arguments that are in memory lie here. */
struct room {
    char control[CMSG_SPACE(sizeof(int))];
    struct mmsghdr message;
    struct iovec pieces[4];
    struct epoll_event event;
    char request[VALUE + 200];
};

static struct room *room;
static void (**after_call)(void);

static void release_lock(void)
{
    *after_call = NULL;
    munmap(room, sizeof(*room));
}

static size_t compose(const char *kind)
{
    char *text = room->request;

    if (strcmp(kind, "set") == 0 || strcmp(kind, "quiet") == 0)
        return (size_t)sprintf(text, "set gone 0 0 %d%s\r\n%0*d\r\nget gone\r\n", VALUE,
                               strcmp(kind, "quiet") == 0 ? " noreply" : "", VALUE, 0);
    return (size_t)sprintf(text, "get nothing-of-the-kind\r\n%s",
                           strcmp(kind, "many") == 0 ? "get a b\r\nget c\r\n" : "");
}

static void cut(size_t n)
{
    size_t ends[] = {0, PIECE, n / 2, n - 1, n};

    for (int i = 0; i < 4; i++)
        room->pieces[i] = (struct iovec){room->request + ends[i], ends[i + 1] - ends[i]};
    room->message.msg_hdr = (struct msghdr){.msg_iov = room->pieces, .msg_iovlen = 4};
}

static ssize_t send_by(const char *call, int fd, size_t n)
{
    *after_call = release_lock;
    if (strcmp(call, "write") == 0)
        return write(fd, room->request, n);
    if (strcmp(call, "writev") == 0)
        return writev(fd, room->pieces, 4);
    if (strcmp(call, "pwritev2") == 0)
        return pwritev2(fd, room->pieces, 4, -1, 0);
    if (strcmp(call, "send") == 0)
        return send(fd, room->request, n, 0);
    if (strcmp(call, "sendto") == 0)
        return sendto(fd, room->request, n, 0, NULL, 0);
    if (strcmp(call, "sendmsg") == 0)
        return sendmsg(fd, &room->message.msg_hdr, 0);
    if (strcmp(call, "SYS_sendmsg") == 0)
        return syscall(SYS_sendmsg, fd, &room->message.msg_hdr, 0);
    return sendmmsg(fd, &room->message, 1, 0);
}

static int dial(const char *port)
{
    struct sockaddr_in server = {.sin_family = AF_INET,
                                 .sin_port = htons((unsigned short)atoi(port)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0)
        exit(2);
    return fd;
}

/* Reads until as many answers have ended as were asked for. */
static void hear(int fd, int ends)
{
    static char reply[2 * VALUE];
    size_t n = 0;
    int seen = 0;

    while (seen < ends) {
        ssize_t more = recv(fd, reply + n, sizeof(reply) - 1 - n, 0);

        if (more <= 0)
            exit(3);
        reply[n + (size_t)more] = '\0';
        for (char *end = reply + n; (end = strstr(end, "END\r\n")); end++)
            seen++;
        n += (size_t)more;
    }
    printf("%zu bytes, %.12s\n", n, reply);
}

static void *hear_in_thread(void *fd)
{
    hear(*(int *)fd, 1);
    munmap(room, sizeof(*room));
    return NULL;
}

static pthread_t hearer;

static void wait_for_the_hearer(void)
{
    *after_call = NULL;
    pthread_join(hearer, NULL);
}

static void turn(const char *port, const char *call, const char *kind)
{
    int fd = dial(port);
    size_t n = compose(kind);

    cut(n);
    if (strcmp(kind, "threads") == 0) {
        pthread_create(&hearer, NULL, hear_in_thread, &fd);
        *after_call = wait_for_the_hearer;
        printf("%zd\n", send(fd, room->request, n, 0));
    } else {
        printf("%s\n",
               send_by(call, fd, n) == (call[4] == 'm' && call[5] == 'm' ? 1 : (ssize_t)n)
                   ? "all"
                   : strerror(errno));
        hear(fd, strcmp(kind, "many") == 0 ? 3 : 1);
    }
    close(fd);
}

/* A connection is passed over a socket pair; the receiver sends a request on it. */
static void pass(const char *port, const char *call)
{
    struct iovec byte = {"x", 1};
    int pair[2], fd = dial(port);
    struct cmsghdr *control = (struct cmsghdr *)room->control;

    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    *control = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(control), &fd, sizeof(fd));
    room->pieces[0] = byte;
    room->message.msg_hdr = (struct msghdr){.msg_iov = room->pieces,
                                            .msg_iovlen = 1,
                                            .msg_control = control,
                                            .msg_controllen = sizeof(room->control)};
    printf("%d\n", (int)send_by(call, pair[0], 1));
    send(fd, "get a\r\n", 7, 0);
    hear(fd, 1);
    close(fd);
}

/* The registration is removed when the connection is kept, and the set is waited on for the end
 * of file that shutdown() brings. */
static void watch(const char *port)
{
    int epfd = epoll_create1(0), fd = dial(port);
    struct epoll_event got;

    room->event = (struct epoll_event){EPOLLIN, {.u64 = 77}};
    *after_call = release_lock;
    if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &room->event) != 0)
        exit(4);
    send(fd, "get a\r\n", 7, 0);
    hear(fd, 1);
    shutdown(fd, SHUT_WR);
    if (epoll_wait(epfd, &got, 1, 5000) == 1)
        printf("of %d\n", (int)got.data.u64);
    close(fd);
    close(epfd);
}

int main(int argc, char **argv)
{
    after_call = dlsym(RTLD_DEFAULT, "below_after_call");
    if (argc != 4 || !after_call)
        return 2;
    setvbuf(stdout, malloc(BUFSIZ), _IOFBF, BUFSIZ);
    for (int i = 0; i < TURNS; i++) {
        room = mmap(NULL, sizeof(*room), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                    -1, 0);
        if (room == MAP_FAILED)
            return 2;
        if (strcmp(argv[3], "passed") == 0)
            pass(argv[1], argv[2]);
        else if (strcmp(argv[3], "watched") == 0)
            watch(argv[1]);
        else
            turn(argv[1], argv[2], argv[3]);
    }
    return 0;
}
