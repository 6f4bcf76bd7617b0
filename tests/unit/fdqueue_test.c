/*
 * A queue of fds in the kernel.
 */
#include "conn/fdqueue.h"
#include "conn/limits.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "conn/fdmap.h"

static struct fdqueue queue;
static char got[16];

static void make_one(void)
{
    cr_assert(fdqueue_make(&queue));
}

TestSuite(fdqueue, .init = make_one);

static ino_t file_at(int fd)
{
    struct stat file;

    return fstat(fd, &file) == 0 ? file.st_ino : 0;
}

/* How many fds are open. */
static int count_fds(void)
{
    int n = 0;

    for (int fd = 0; fd < 4096; fd++)
        n += fcntl(fd, F_GETFD) >= 0;
    return n;
}

Test(fdqueue, first_in_is_first_out)
{
    int pipes[2], fd, before;

    cr_assert(pipe(pipes) == 0);
    before = count_fds();
    cr_assert(fdqueue_give(&queue, pipes[0], "one", 4) == 0);
    cr_assert(fdqueue_give(&queue, pipes[1], "other", 6) == 0);
    cr_assert(fdqueue_peek(&queue, got, sizeof(got)) == 4 && strcmp(got, "one") == 0);
    cr_expect(count_fds() == before, "a peek takes no fd");
    cr_assert(fdqueue_take(&queue, got, sizeof(got), &fd) == 4 && strcmp(got, "one") == 0);
    cr_expect(file_at(fd) == file_at(pipes[0]) && fcntl(fd, F_GETFD) == FD_CLOEXEC);
    cr_assert(fdqueue_take(&queue, got, sizeof(got), &fd) == 6 && strcmp(got, "other") == 0);
    cr_expect(file_at(fd) == file_at(pipes[1]));
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == -EAGAIN && fd == -1);
    cr_expect(fdqueue_peek(&queue, got, sizeof(got)) == -EAGAIN);
}

Test(fdqueue, size_tells_the_number)
{
    unsigned int one;

    cr_expect(fdqueue_size(&queue) == 0);
    cr_assert(fdqueue_give(&queue, 0, "one", 4) == 0);
    one = fdqueue_size(&queue);
    cr_expect(one > 0);
    for (unsigned int n = 2; n < 20; n++) {
        cr_assert(fdqueue_give(&queue, 0, "one", 4) == 0);
        cr_expect(fdqueue_size(&queue) == n * one);
    }
}

/* It neither blocks nor drops. */
Test(fdqueue, full)
{
    long result = 0;
    unsigned int n = 0;
    int fd;

    while (n < 100000 && (result = fdqueue_give(&queue, 0, got, sizeof(got))) == 0)
        n++;
    cr_expect(result == -EAGAIN && n > 64, "%ld after %u", result, n);
    for (; n > 0; n--) {
        cr_assert(fdqueue_take(&queue, got, sizeof(got), &fd) == sizeof(got));
        close(fd);
    }
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == -EAGAIN);
}

/* Sends N fds with LENGTH bytes. */
static void send_fds(const int *fds, size_t n, size_t length)
{
    static char bytes[64];
    char control[CMSG_SPACE(4 * sizeof(int))] __attribute__((aligned(8))) = {0};
    struct cmsghdr *header = (void *)control;
    struct iovec iov = {bytes, length};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};

    if (n > 0) {
        *header = (struct cmsghdr){CMSG_LEN(n * sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), fds, n * sizeof(int));
        msg.msg_control = control;
        msg.msg_controllen = header->cmsg_len;
    }
    cr_assert(sendmsg(queue.fd, &msg, 0) == (ssize_t)length);
}

/* All that is not one fd with a message that fits can be told from it. */
Test(fdqueue, odd_messages)
{
    const int fds[] = {0, 1, 2, 0};
    int fd, before = count_fds();

    send_fds(fds, 0, 4);
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == 4 && fd == -1, "no fd");
    send_fds(fds, 1, 0);
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == 0 && fd >= 0, "no bytes");
    close(fd);
    send_fds(fds, 1, sizeof(got) + 1);
    cr_expect(fdqueue_peek(&queue, got, sizeof(got)) > (long)sizeof(got), "too long");
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) > (long)sizeof(got) && fd >= 0);
    close(fd);
    for (size_t n = 2; n <= 4; n++) {
        send_fds(fds, n, 4);
        cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) > (long)sizeof(got) && fd >= 0,
                  "%zu fds", n);
        close(fd);
    }
    cr_expect(count_fds() == before);
}

/* Also what a stranger sends before the queue is connected, and what is thrown away then. */
Test(fdqueue, what_is_taken_does_not_linger)
{
    struct linger linger = {1, 20};
    socklen_t length = sizeof(linger);
    int fd, given = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(setsockopt(given, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    cr_assert(fdqueue_give(&queue, given, "one", 4) == 0);
    cr_assert(fdqueue_take(&queue, got, sizeof(got), &fd) == 4 && fd >= 0);
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &length) == 0);
    cr_expect(linger.l_onoff == 0);
}

Test(fdqueue, after_a_shutdown)
{
    int fd;

    cr_assert(fdqueue_give(&queue, 0, "one", 4) == 0);
    cr_assert(shutdown(queue.fd, SHUT_RDWR) == 0);
    cr_expect(fdqueue_give(&queue, 0, "one", 4) == -EPIPE);
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == 4, "what is there stays there");
    close(fd);
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == -EAGAIN);
}

/* The kernel refuses what comes from another socket. */
Test(fdqueue, no_stranger_can_send_to_it)
{
    struct sockaddr_un name;
    socklen_t length = sizeof(name);
    int stranger = socket(AF_UNIX, SOCK_DGRAM, 0);

    cr_assert(getsockname(queue.fd, (struct sockaddr *)&name, &length) == 0);
    cr_expect(sendto(stranger, "x", 1, 0, (struct sockaddr *)&name, length) == -1 &&
              errno == EPERM);
    cr_expect(connect(stranger, (struct sockaddr *)&name, length) == -1 && errno == EPERM);
}

Test(fdqueue, lies_among_the_shadow_fds)
{
    cr_expect(fdmap_get(queue.fd) == FDMAP_QUEUE && limits_queues() == 1);
    cr_expect(fcntl(queue.fd, F_GETFD) == FD_CLOEXEC);
    cr_expect(fdqueue_is_there(&queue));
    fdqueue_close(&queue);
    cr_expect(queue.fd == -1 && limits_queues() == 0 && !fdqueue_is_there(&queue));
}

/* What the program has put there in the meantime stays open. */
Test(fdqueue, that_is_another_file_by_now)
{
    int fd = queue.fd;

    cr_assert(dup2(0, fd) == fd);
    cr_expect(!fdqueue_is_there(&queue));
    fdqueue_close(&queue);
    cr_expect(fcntl(fd, F_GETFD) >= 0 && fdmap_get(fd) == FDMAP_NONE);
}

Test(fdqueue, moves)
{
    int former = queue.fd, fd;

    cr_assert(fdqueue_give(&queue, 0, "one", 4) == 0);
    cr_assert(fdqueue_move(&queue, false));
    cr_expect(queue.fd != former && fcntl(former, F_GETFD) == -1);
    cr_expect(fdmap_get(former) == FDMAP_NONE && fdmap_get(queue.fd) == FDMAP_QUEUE);
    former = queue.fd;
    cr_assert(fdqueue_move(&queue, true));
    cr_expect(fcntl(former, F_GETFD) >= 0);
    cr_expect(fdqueue_take(&queue, got, sizeof(got), &fd) == 4 && limits_queues() == 1);
}

/* At the limit of fds the kernel would lose one: it is asked before. */
Test(fdqueue, room_for_one_more)
{
    struct rlimit limit = {(rlim_t)queue.fd + 1, (rlim_t)queue.fd + 1};
    int fd = 0, last = 0;

    cr_expect(fdqueue_has_room(&queue));
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    while ((fd = dup(0)) >= 0)
        last = fd;
    cr_expect(!fdqueue_has_room(&queue));
    close(last);
    cr_expect(fdqueue_has_room(&queue));
}
