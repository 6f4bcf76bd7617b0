/*
 * Duplicates that come by roads other than dup(): who has one reads what the next user is sent.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 30

/* pidfd_getfd(), which came with glibc 2.36: the function if there is one, and by syscall(). */
extern int pidfd_getfd(int pidfd, int fd, unsigned int flags) __attribute__((weak));

enum way { BY_FUNCTION, BY_NUMBER };

static int duplicate(enum way way, int pidfd, int fd)
{
    if (way == BY_FUNCTION && pidfd_getfd)
        return pidfd_getfd(pidfd, fd, 0);
    return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

static int own_pidfd(void)
{
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    if (pidfd < 0 || duplicate(BY_NUMBER, pidfd, 2) < 0)
        cr_skip_test("this kernel gives no duplicates by pidfd");
    return pidfd;
}

/* The next user gets its own reply. */
static void expect_nothing_at(int twin)
{
    struct pollfd ready = {.events = POLLIN};
    char byte;

    ready.fd = dial_server();
    send_text(ready.fd, "get nothing\r\n");
    cr_expect(poll(&ready, 1, 1000) == 1);
    cr_assert(unseen(SYS_recvfrom, twin, &byte, 1, MSG_DONTWAIT | MSG_PEEK, NULL, NULL) ==
                  -EAGAIN,
              "the duplicate has another user's reply");
    expect_text(ready.fd, "END\r\n");
    close(ready.fd);
}

Test(duplicates, pidfd, .timeout = 20)
{
    int pidfd = own_pidfd();

    for (int i = 0; i < ROUNDS; i++) {
        enum way way = i % 2 ? BY_NUMBER : BY_FUNCTION;
        int fd = dial_server();
        int twin;

        exchange(fd);
        twin = duplicate(way, pidfd, fd);
        cr_assert(twin >= 0);
        close(fd);
        expect_nothing_at(twin);
        close(twin);
    }
    cr_expect(log_count(": not kept: DUPLICATED ") + log_count(": not kept: RAW_SYSCALL ") ==
              ROUNDS);
}

static void expect_idle_one_is_given_up(int (*duplicate_of)(int number))
{
    int twin;

    park();
    twin = duplicate_of(private_number());
    if (twin >= 0)
        expect_nothing_at(twin);
    exchange(dial_server());
}

static int by_pidfd(int number)
{
    return duplicate(BY_FUNCTION, own_pidfd(), number);
}

static int by_dup(int number)
{
    return dup(number);
}

static int by_fcntl(int number)
{
    return fcntl(number, F_DUPFD_CLOEXEC, 20);
}

static int by_message(int number)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    int pair[2], twin;

    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(&control.header), &number, sizeof(number));
    /* The idle connection there was closed before the call: without us that fd is not open. */
    if (sendmsg(pair[0], &msg, 0) == -1 && errno == EBADF)
        return -1;
    cr_assert(recvmsg(pair[1], &msg, 0) == 1);
    memcpy(&twin, CMSG_DATA(&control.header), sizeof(twin));
    return twin;
}

/* A program may go through all fds that /proc/self/fd shows. */
Test(duplicates, of_an_idle_connection, .timeout = 20)
{
    expect_idle_one_is_given_up(by_dup);
    expect_idle_one_is_given_up(by_fcntl);
    expect_idle_one_is_given_up(by_message);
    expect_idle_one_is_given_up(by_pidfd);
}

/* While it is lent, a connection has its private fd as well. */
Test(duplicates, of_a_lent_connection, .timeout = 20)
{
    int fd, twin;

    park();
    fd = dial_server();
    exchange(fd);
    twin = dup(private_number());
    cr_assert(twin >= 0);
    close(fd);
    EXPECT_NOT_KEPT("DUPLICATED");
    expect_nothing_at(twin);
}

/* A connection whose close was not seen, and its number comes back by a message. */
Test(duplicates, number_that_was_received, .timeout = 20)
{
    int fd = dial_server();
    int file = open("/dev/null", O_RDWR);
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct mmsghdr msgs[1] = {{.msg_hdr = {.msg_iov = &iov,
                                           .msg_iovlen = 1,
                                           .msg_control = &control,
                                           .msg_controllen = sizeof(control)}}};
    int pair[2], received;

    for (int way = 0; way < 3; way++) {
        cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        if (way > 0)
            fd = dial_server();
        exchange(fd);
        control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(&control.header), &file, sizeof(file));
        msgs[0].msg_hdr.msg_controllen = sizeof(control);
        cr_assert(sendmsg(pair[0], &msgs[0].msg_hdr, 0) == 1);
        unseen(SYS_close, fd);
        if (way == 0)
            cr_assert(recvmsg(pair[1], &msgs[0].msg_hdr, 0) == 1);
        else if (way == 1)
            cr_assert(recvmmsg(pair[1], msgs, 1, 0, NULL) == 1);
        else
            cr_assert(syscall(SYS_recvmsg, pair[1], &msgs[0].msg_hdr, 0) == 1);
        memcpy(&received, CMSG_DATA(&control.header), sizeof(received));
        cr_assert(received == fd, "the numbers are %d and %d", received, fd);
        EXPECT_NOT_KEPT("OTHER_SOCKET");
        cr_expect(shutdown(received, SHUT_RDWR) == -1 && errno == ENOTSOCK);
        cr_expect(write(received, "quit\r\n", 6) == 6);
        close(received);
        close(pair[0]);
        close(pair[1]);
    }
}
