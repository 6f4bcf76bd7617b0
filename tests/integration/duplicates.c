/*
 * Duplicates of fds. The holder of one could read the replies of the next user. So a connection
 * is kept only when all its fds are closed, and never after a duplicate was made by a call that
 * we do not follow, that is by any other than dup() and its kin.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/wait.h>
#include <unistd.h>

#define ROUNDS 30

/* pidfd_getfd() came with glibc 2.36. Called by its function where there is one, and by
 * syscall(). */
extern int pidfd_getfd(int pidfd, int fd, unsigned int flags) __attribute__((weak));

enum way { BY_FUNCTION, BY_SYSCALL };

static int duplicate(enum way way, int pidfd, int fd)
{
    if (way == BY_FUNCTION && pidfd_getfd)
        return pidfd_getfd(pidfd, fd, 0);
    return (int)syscall(SYS_pidfd_getfd, pidfd, fd, 0);
}

static int own_pidfd(void)
{
    int pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);

    if (pidfd < 0 || duplicate(BY_SYSCALL, pidfd, 2) < 0)
        cr_skip_test("this kernel gives no duplicates by pidfd");
    return pidfd;
}

/* The next user gets its own reply; the duplicate COPY sees none of it. */
static void expect_nothing_at(int copy)
{
    struct pollfd ready = {.events = POLLIN};
    char byte;

    ready.fd = dial_server();
    send_text(ready.fd, "get nothing\r\n");
    cr_expect(poll(&ready, 1, 1000) == 1);
    cr_assert(unseen(SYS_recvfrom, copy, &byte, 1, MSG_DONTWAIT | MSG_PEEK, NULL, NULL) ==
                  -EAGAIN,
              "the duplicate has another user's reply");
    expect_text(ready.fd, "END\r\n");
    close(ready.fd);
}

Test(duplicates, pidfd, .timeout = 20)
{
    int pidfd = own_pidfd();

    for (int i = 0; i < ROUNDS; i++) {
        enum way way = i % 2 ? BY_SYSCALL : BY_FUNCTION;
        int fd = dial_server();
        int copy;

        exchange(fd);
        copy = duplicate(way, pidfd, fd);
        cr_assert(copy >= 0);
        close(fd);
        expect_nothing_at(copy);
        close(copy);
    }
    cr_expect(log_count(": not kept: DUPLICATED ") + log_count(": not kept: RAW_SYSCALL ") ==
              ROUNDS);
}

static void expect_idle_one_is_given_up(int (*duplicate_of)(int fd))
{
    int copy;

    park();
    copy = duplicate_of(shadow_fd());
    if (copy >= 0)
        expect_nothing_at(copy);
    exchange(dial_server());
}

static int by_pidfd(int fd)
{
    return duplicate(BY_FUNCTION, own_pidfd(), fd);
}

static int by_dup(int fd)
{
    return dup(fd);
}

static int by_fcntl(int fd)
{
    return fcntl(fd, F_DUPFD_CLOEXEC, 20);
}

static int by_message(int fd)
{
    struct fd_message message;
    int pair[2];

    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    fill_fd_message(&message, fd);
    /* The library closed that connection before the call: without us the fd is not open. */
    if (sendmsg(pair[0], &message.msg.msg_hdr, 0) == -1 && errno == EBADF)
        return -1;
    cr_assert(recvmsg(pair[1], &message.msg.msg_hdr, 0) == 1);
    return fd_of_message(&message);
}

/* A program may try to duplicate any fd that /proc/self/fd shows. */
Test(duplicates, of_an_idle_connection, .timeout = 20)
{
    expect_idle_one_is_given_up(by_message);
    expect_idle_one_is_given_up(by_pidfd);
}

/* A connection in use that came from the pool has a shadow fd as well. Without the library no
 * file is open there. */
Test(duplicates, of_what_the_program_never_got, .timeout = 20)
{
    for (int in_use = 0; in_use < 2; in_use++) {
        int port = park(), fd = in_use ? dial_server() : -1;

        cr_expect(by_dup(shadow_fd()) == -1 && errno == EBADF);
        cr_expect(by_fcntl(shadow_fd()) == -1 && errno == EBADF);
        if (in_use) {
            exchange(fd);
            close(fd);
            EXPECT_KEPT();
        }
        cr_expect(park() == port);
    }
}

/* Control messages with a length for which the kernel refuses the call do not count as passed
 * fds. */
Test(duplicates, message_with_a_bad_length, .timeout = 20)
{
    static const size_t lengths[] = {0, 1, CMSG_LEN(0) - 1, CMSG_SPACE(sizeof(int)) + 1,
                                     (size_t)1 << 30};
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.bytes = {0}};
    char byte = 0;
    struct iovec iov = {&byte, 1};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &iov,
                                          .msg_iovlen = 1,
                                          .msg_control = &control,
                                          .msg_controllen = sizeof(control)}};
    int pair[2];

    park();
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        control.header = (struct cmsghdr){lengths[i], SOL_SOCKET, SCM_RIGHTS};
        errno = 0;
        cr_expect(sendmsg(pair[0], &message.msg_hdr, 0) == -1 && errno == EINVAL);
        errno = 0;
        cr_expect(sendmmsg(pair[0], &message, 1, 0) == -1 && errno == EINVAL);
        errno = 0;
        cr_expect(syscall(SYS_sendmsg, pair[0], &message.msg_hdr, 0) == -1 && errno == EINVAL);
    }
}

/* A connection is closed unseen, and its fd is given to one that comes in a message. */
Test(duplicates, fd_that_was_received, .timeout = 20)
{
    int fd = dial_server();
    int file = open("/dev/null", O_RDWR);
    struct fd_message message;
    int pair[2], received;

    for (int way = 0; way < 3; way++) {
        cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
        if (way > 0)
            fd = dial_server();
        exchange(fd);
        fill_fd_message(&message, file);
        cr_assert(sendmsg(pair[0], &message.msg.msg_hdr, 0) == 1);
        unseen(SYS_close, fd);
        if (way == 0)
            cr_assert(recvmsg(pair[1], &message.msg.msg_hdr, 0) == 1);
        else if (way == 1)
            cr_assert(recvmmsg(pair[1], &message.msg, 1, 0, NULL) == 1);
        else
            cr_assert(syscall(SYS_recvmsg, pair[1], &message.msg.msg_hdr, 0) == 1);
        received = fd_of_message(&message);
        cr_assert(received == fd, "the numbers are %d and %d", received, fd);
        EXPECT_NOT_KEPT("OTHER_SOCKET");
        cr_expect(shutdown(received, SHUT_RDWR) == -1 && errno == ENOTSOCK);
        cr_expect(write(received, "quit\r\n", 6) == 6);
        close(received);
        close(pair[0]);
        close(pair[1]);
    }
}

/* The ways to duplicate that the library follows. */
#define DUPS 5

static int dup_by(int way, int fd)
{
    switch (way) {
    case 0:
        return dup(fd);
    case 1:
        return dup2(fd, 40);
    case 2:
        return dup3(fd, 40, O_CLOEXEC);
    case 3:
        return fcntl(fd, F_DUPFD, 30);
    default:
        return fcntl(fd, F_DUPFD_CLOEXEC, 30);
    }
}

/* Closes one of several fds: the connection is still in use. */
static void close_one(int fd)
{
    int kept = log_count(": kept");

    cr_expect(close(fd) == 0);
    cr_expect(log_count(": kept") == kept);
}

Test(duplicates, that_are_gone_again, .timeout = 20)
{
    for (int round = 0; round < 4 * DUPS; round++) {
        bool reused = round / DUPS % 2, original_first = round / DUPS / 2;
        int fd, copy, port;

        if (reused)
            port = park();
        fd = dial_server();
        exchange(fd);
        port = local_port(fd);
        copy = dup_by(round % DUPS, fd);
        cr_assert(copy >= 0);
        send_text(copy, "get nothing\r\n");
        expect_text(fd, "END\r\n");
        close_one(original_first ? fd : copy);
        exchange(original_first ? copy : fd);
        close(original_first ? copy : fd);
        EXPECT_KEPT();
        fd = dial_server();
        cr_expect(local_port(fd) == port, "round %d", round);
        exchange(fd);
        cr_expect(shutdown(fd, SHUT_RD) == 0);
        close(fd);
    }
}

/* While one duplicate is open the connection is not reused: the next user gets another. */
Test(duplicates, that_are_open, .timeout = 20)
{
    for (int way = 0; way < DUPS; way++) {
        int fd = dial_server();
        int copy;

        exchange(fd);
        copy = dup_by(way, fd);
        close(fd);
        expect_nothing_at(copy);
        exchange(copy);
        close(copy);
        EXPECT_KEPT();
    }
}

/* Duplicates of duplicates, and one put over another. */
Test(duplicates, of_duplicates, .timeout = 20)
{
    int fd = dial_server();
    int port = local_port(fd);
    int second = dup(fd), third = fcntl(second, F_DUPFD_CLOEXEC, 0);

    exchange(third);
    cr_expect(dup2(third, second) == second);
    cr_expect(dup2(fd, fd) == fd);
    close_one(fd);
    exchange(second);
    cr_expect(dup2(open("/dev/null", O_RDONLY), second) == second);
    cr_expect(dup2(63, third) == -1 && errno == EBADF);
    exchange(third);
    cr_expect(dup2(second, third) == third);
    EXPECT_KEPT();
    cr_expect(local_port(dial_server()) == port);
}

static const char no_op[24] = "\x80\x0a", no_op_answer[24] = "\x81\x0a";

static void expect_binary(int from, int to)
{
    char answer[sizeof(no_op)];

    cr_assert(send(from, no_op, sizeof(no_op), 0) == sizeof(no_op));
    for (size_t n = 0; n < sizeof(answer);) {
        ssize_t got = recv(to, answer + n, sizeof(answer) - n, 0);

        cr_assert(got > 0, "%zd", got);
        n += (size_t)got;
    }
    cr_expect(memcmp(answer, no_op_answer, sizeof(answer)) == 0);
}

/* A duplicate made before the first byte. The connection stays, because the guess of its
 * protocol was never in doubt. */
Test(duplicates, made_before_the_first_byte, .timeout = 20)
{
    for (int round = 0; round < 3; round++) {
        int port = park();
        int fd = dial_server();
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        cr_expect(local_port(fd) == port && local_port(copy) == port);
        exchange(copy);
        close(fd);
        close(copy);
        EXPECT_KEPT();
    }
}

/* The guess was wrong: all fds get another connection, and keep their flags. */
Test(duplicates, that_speak_the_other_protocol, .timeout = 20)
{
    int port = park();
    int fd = dial_server();
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0), third = fcntl(copy, F_DUPFD_CLOEXEC, 0);

    cr_expect(local_port(fd) == port && fcntl(copy, F_SETFD, 0) == 0);
    expect_binary(copy, fd);
    cr_expect(log_count(": swapped at ") == 1);
    cr_expect(local_port(fd) != port && local_port(fd) == local_port(copy) &&
              local_port(fd) == local_port(third));
    cr_expect(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(copy, F_GETFD) == 0);
    expect_binary(fd, third);
    close(fd);
    close_one(third);
    expect_binary(copy, copy);
    close(copy);
    EXPECT_KEPT();
    /* Now both protocols have been seen at this server, so the guess is in doubt: the
     * connection is replaced by a new one before it is duplicated. */
    port = park();
    fd = dial_server();
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    cr_expect(local_port(fd) != port && local_port(copy) == local_port(fd));
    expect_binary(copy, fd);
}

/* A stdio stream on a duplicate may send unseen, so all fds get a new connection. */
Test(duplicates, of_which_one_becomes_a_stream, .timeout = 20)
{
    int port = park();
    int fd = dial_server();
    int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    FILE *stream = fdopen(copy, "w");

    cr_expect(local_port(fd) != port && local_port(copy) == local_port(fd));
    fwrite(no_op, sizeof(no_op), 1, stream);
    fflush(stream);
    cr_expect(recv(fd, (char[sizeof(no_op)]){0}, sizeof(no_op), MSG_WAITALL) == sizeof(no_op));
    fclose(stream);
    close(fd);
    EXPECT_NOT_KEPT("STDIO");
}

/* The same for a duplicate at the fd of a standard stream. */
Test(duplicates, at_the_fd_of_a_stream, .timeout = 20)
{
    int port = park();
    int fd = dial_server();

    cr_assert(close(STDIN_FILENO) == 0);
    cr_assert(fcntl(fd, F_DUPFD_CLOEXEC, 0) == STDIN_FILENO);
    cr_expect(local_port(fd) != port && local_port(STDIN_FILENO) == local_port(fd));
    expect_binary(STDIN_FILENO, fd);
    close(fd);
    close(STDIN_FILENO);
    EXPECT_KEPT();
}

static void half_a_request(int fd, int copy)
{
    (void)fd;
    send_text(copy, "get no");
}

static void reply_unread(int fd, int copy)
{
    struct pollfd ready = {fd, POLLIN, 0};

    send_text(copy, "get nothing\r\n");
    cr_expect(poll(&ready, 1, 5000) == 1);
    cr_expect(unseen(SYS_recvfrom, copy, &(char){0}, 1, 0, NULL, NULL) == 1);
}

static void register_copy(int fd, int copy)
{
    struct epoll_event event = {EPOLLIN, {.fd = copy}};

    (void)fd;
    cr_expect(epoll_ctl(epoll_create1(EPOLL_CLOEXEC), EPOLL_CTL_ADD, copy, &event) == 0);
}

static void child_of_fork(int fd, int copy)
{
    pid_t child = fork();

    (void)fd;
    (void)copy;
    if (child == 0)
        _exit(0);
    expect_good_end(child);
}

static void stdio_on_copy(int fd, int copy)
{
    (void)fd;
    cr_expect(fdopen(copy, "r") != NULL);
}

static void unseen_duplicate(int fd, int copy)
{
    (void)fd;
    cr_expect(syscall(SYS_dup, copy) >= 0);
}

static void pass_copy(int fd, int copy)
{
    (void)fd;
    close((int)unseen(SYS_dup, by_message(copy)));
}

static void say_quit(int fd, int copy)
{
    send_text(copy, "quit\r\n");
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0, "the server was not told");
}

static void shut_down(int fd, int copy)
{
    cr_expect(shutdown(copy, SHUT_WR) == 0);
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0, "the server was not told");
}

static void close_all(int fd, int copy)
{
    needs_close_range();
    cr_expect(close_range((unsigned int)(fd < copy ? fd : copy),
                          (unsigned int)(fd < copy ? copy : fd), 0) == 0);
}

static void close_copy_unseen(int fd, int copy)
{
    (void)fd;
    unseen(SYS_close, copy);
    cr_expect(dup2(open("/dev/null", O_RDONLY), copy) == copy);
    unseen(SYS_close, copy);
    cr_expect(socket(AF_INET, SOCK_STREAM, 0) >= 0);
}

/* What is done to one duplicate counts for the connection. */
Test(duplicates, by_which_something_happened, .timeout = 40)
{
    static const struct {
        void (*happens)(int fd, int copy);
        const char *event;
    } things[] = {{half_a_request, "REQUEST_PARTIAL"},
                  {register_copy, "DUPLICATED"},
                  {child_of_fork, "FORKED"},
                  {stdio_on_copy, "STDIO"},
                  {unseen_duplicate, "RAW_SYSCALL"},
                  {pass_copy, "PASSED"},
                  {say_quit, "QUIT"},
                  {shut_down, "SHUT_DOWN"},
                  {close_all, "CLOSED_IN_BULK"},
                  {reply_unread, NULL}};

    for (size_t i = 0; i < 2 * sizeof(things) / sizeof(things[0]); i++) {
        int kept = log_count(": kept");
        int fd = dial_server();
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);

        exchange(fd);
        exchange(copy);
        things[i / 2].happens(fd, copy);
        close(i % 2 ? fd : copy);
        close(i % 2 ? copy : fd);
        if (things[i / 2].event)
            cr_expect(strstr(last_event(), things[i / 2].event) &&
                          strstr(last_event(), ": not kept: "),
                      "thing %zu: %s", i, last_event());
        if (things[i / 2].happens != reply_unread)
            cr_expect(log_count(": kept") == kept, "thing %zu", i);
        exchange(dial_server());
    }
}

/* A close that no hook saw: nothing is kept while the count of open fds is too high. */
Test(duplicates, closed_unseen, .timeout = 20)
{
    int fd = dial_server();
    int copy = dup(fd);

    exchange(copy);
    close_copy_unseen(fd, copy);
    exchange(fd);
    close(fd);
    cr_expect(log_count(": kept") == 0 || strstr(last_event(), ": kept") == NULL);
    exchange(dial_server());
}

/* O_NONBLOCK belongs to the open file, FD_CLOEXEC to the fd. The next user has the flags it
 * asked for. */
Test(duplicates, flags, .timeout = 20)
{
    int fd = dial_server();
    int port = local_port(fd);
    int copy = fcntl(fd, F_DUPFD, 0);

    exchange(fd);
    cr_expect(fcntl(copy, F_SETFL, O_NONBLOCK) == 0);
    cr_expect(fcntl(fd, F_GETFL) & O_NONBLOCK);
    cr_expect(fcntl(fd, F_GETFD) == FD_CLOEXEC && fcntl(copy, F_GETFD) == 0);
    close(fd);
    close(copy);
    EXPECT_KEPT();
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    cr_expect((fcntl(fd, F_GETFL) & O_NONBLOCK) == 0 && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    exchange(fd);
}

/* Threads close each other's fds, and duplicate what another thread is about to close. Each
 * must get its own answers. */
#define STRESSED 3
#define STRESS   400

static _Atomic int handed[STRESSED]; /* an fd that another thread is to close, plus 1 */

static void *close_handed(void *unused)
{
    (void)unused;
    for (;;) {
        for (int i = 0; i < STRESSED; i++) {
            int fd = handed[i] > 0 ? atomic_exchange(&handed[i], 0) : 0;

            if (fd > 0) {
                if (fd % 3 == 0)
                    close(dup(fd - 1));
                close(fd - 1);
            }
        }
        sched_yield();
    }
    return NULL;
}

static void *use_and_hand(void *argument)
{
    int which = (int)(long)argument;
    char request[64], reply[64];

    for (int i = 0; i < STRESS; i++) {
        int fd = dial_server();
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
        int side = i % 2 ? fd : copy;

        snprintf(request, sizeof(request), "set own-%d-%d 0 0 4\r\n%04d\r\n", which, i, i);
        send_text(side, request);
        expect_text(i % 2 ? copy : fd, "STORED\r\n");
        snprintf(request, sizeof(request), "get own-%d-%d\r\n", which, i);
        snprintf(reply, sizeof(reply), "VALUE own-%d-%d 0 4\r\n%04d\r\nEND\r\n", which, i, i);
        send_text(side, request);
        expect_text(side, reply);
        while (handed[which] != 0)
            sched_yield();
        handed[which] = copy + 1;
        if (i % 4 == 3) {
            send_text(fd, request);
            expect_text(fd, reply);
        }
        close(fd);
    }
    return NULL;
}

Test(duplicates, in_threads, .timeout = 60)
{
    pthread_t closer, users[STRESSED];

    cr_assert(pthread_create(&closer, NULL, close_handed, NULL) == 0);
    for (long i = 0; i < STRESSED; i++)
        cr_assert(pthread_create(&users[i], NULL, use_and_hand, (void *)i) == 0);
    for (int i = 0; i < STRESSED; i++)
        pthread_join(users[i], NULL);
    cr_expect(log_count(": reused as ") > 0);
}
