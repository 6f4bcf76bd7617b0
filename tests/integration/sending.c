/*
 * Requests of which the kernel takes only a part: there is no room for more, or a part of their
 * memory cannot be read.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096

enum way { BY_SEND, BY_WRITE, BY_SENDTO, BY_WRITEV, BY_SENDMSG, BY_SENDMMSG, WAYS };

/* In pieces of an odd size, for calls that send pieces. */
static ssize_t send_by(enum way way, int fd, char *bytes, size_t n)
{
    struct iovec iov[2] = {{bytes, n / 3}, {bytes + n / 3, n - n / 3}};
    struct mmsghdr msgs[2] = {{{.msg_iov = &iov[0], .msg_iovlen = 1}, 0},
                              {{.msg_iov = &iov[1], .msg_iovlen = 1}, 0}};
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};
    int sent;

    switch (way) {
    case BY_WRITE:
        return write(fd, bytes, n);
    case BY_SENDTO:
        return sendto(fd, bytes, n, MSG_NOSIGNAL, NULL, 0);
    case BY_WRITEV:
        return writev(fd, iov, 2);
    case BY_SENDMSG:
        return sendmsg(fd, &msg, 0);
    case BY_SENDMMSG:
        sent = sendmmsg(fd, msgs, 2, 0);
        return sent <= 0 ? sent : (ssize_t)msgs[0].msg_len + (sent > 1 ? msgs[1].msg_len : 0);
    default:
        return send(fd, bytes, n, 0);
    }
}

/* What the test's own server reads, unseen by the library: at most N bytes. */
static void serve_some(long server, size_t n)
{
    static char bytes[1 << 16];

    while (n > 0) {
        long got = unseen(SYS_recvfrom, server, bytes, n < sizeof(bytes) ? n : sizeof(bytes),
                          MSG_DONTWAIT, NULL, NULL);

        if (got <= 0)
            return;
        n -= (size_t)got;
    }
}

/* How often the kernel took only a part. The server reads only when there is no room. */
static int send_whole(enum way way, int fd, long server, char *bytes, size_t n)
{
    int parts = 0;

    while (n > 0) {
        ssize_t sent = send_by(way, fd, bytes, n);

        if (sent < 0) {
            cr_assert(errno == EAGAIN);
            serve_some(server, 1000003);
            continue;
        }
        parts += (size_t)sent != n;
        bytes += sent;
        n -= (size_t)sent;
    }
    return parts;
}

/* Small values, and some that fill a buffer, so that lines are cut as well. */
static size_t compose(char *bytes)
{
    size_t n = 0;

    for (int i = 0; i < 60000; i++) {
        size_t size = i % 9000 == 0 ? 1000000 : (size_t)(i % 200);

        n += (size_t)sprintf(bytes + n, "set sending-%d 0 0 %zu noreply\r\n", i, size);
        memset(bytes + n, 'v', size);
        n += size;
        n += (size_t)sprintf(bytes + n, "\r\n");
    }
    return n;
}

static void converse(int fd, long server, const char *question, const char *answer)
{
    send_text(fd, question);
    while (unseen(SYS_recvfrom, server, &(char){0}, 1, MSG_PEEK | MSG_DONTWAIT, NULL, NULL) > 0)
        serve_some(server, SIZE_MAX);
    unseen(SYS_write, server, answer, strlen(answer));
    expect_text(fd, answer);
}

Test(reused_sending, parts, .timeout = 60)
{
    static char bytes[20 << 20];
    size_t n = compose(bytes);
    int port, listener = listen_here(&port), fd = dial(port);
    long server = unseen(SYS_accept4, listener, NULL, NULL, 0);

    converse(fd, server, "mn\r\n", "MN\r\n");
    close(fd);
    for (enum way way = 0; way < WAYS; way++) {
        fd = dial(port);
        EXPECT_EVENT(": reused as ");
        cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
        cr_expect(send_whole(way, fd, server, bytes, n) > 0, "%d: all at once", way);
        cr_assert(fcntl(fd, F_SETFL, 0) == 0);
        converse(fd, server, "mn\r\n", "MN\r\n");
        close(fd);
        EXPECT_KEPT();
    }
}

/* Two pages of which the second cannot be read. */
static char *make_room(void)
{
    char *room =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    cr_assert(room != MAP_FAILED);
    return room;
}

/* What the kernel says of these two pages without the library. */
static ssize_t plainly(char *bytes, size_t n)
{
    struct sockaddr_in addr;
    int fd = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    ssize_t sent;

    cr_assert(unseen(SYS_connect, fd, loopback(&addr, server_port()), sizeof(addr)) == 0);
    sent = unseen(SYS_sendto, fd, bytes, n, MSG_NOSIGNAL, NULL, 0);
    unseen(SYS_close, fd);
    return sent;
}

static void send_over_the_edge(enum way way, const char *line, size_t before, size_t value)
{
    char *room = make_room();
    char *bytes = room + PAGE - before;
    size_t n = (size_t)sprintf(bytes, "%s\r\n", line);
    int port = park(), fd = dial_server();
    ssize_t sent, plain;

    if (value > 0) {
        memset(bytes + n, 'v', value);
        memcpy(bytes + n + value, "\r\n", 2);
        n += value + 2;
    }
    cr_assert(local_port(fd) == port);
    cr_assert(mprotect(room + PAGE, PAGE, PROT_NONE) == 0);
    plain = plainly(bytes, n);
    sent = send_by(way, fd, bytes, n);
    if (way == BY_SEND || way == BY_WRITE || way == BY_SENDTO)
        cr_expect((sent == -1 ? -errno : sent) == plain, "%zd instead of %zd", sent, plain);
    cr_assert(mprotect(room + PAGE, PAGE, PROT_READ) == 0);
    if (sent < 0) {
        cr_expect(errno == EFAULT);
        sent = 0;
    }
    cr_assert(send(fd, bytes + sent, n - (size_t)sent, 0) == (ssize_t)(n - (size_t)sent));
    expect_text(fd, value > 0 ? "STORED\r\n" : "END\r\n");
    close(fd);
    EXPECT_KEPT();
    cr_assert(munmap(room, 2 * PAGE) == 0);
}

/* The library does not touch that memory, and what it has recorded is right all the same. */
Test(reused_sending, memory_that_ends, .timeout = 20)
{
    not_under_valgrind();
    for (enum way way = 0; way < WAYS; way++) {
        send_over_the_edge(way, "get sending-none", 5, 0);
        send_over_the_edge(way, "get sending-none", 17, 0);
        send_over_the_edge(way, "set sending 0 0 100", 60, 100);
        send_over_the_edge(way, "set sending 0 0 3000", 3021, 3000);
        send_over_the_edge(way, "set sending 0 0 4000", 4022, 4000);
    }
}

/* Memory that is readable in most programs. This one makes the page at PAGE_AT unreadable, by
 * libc's function or by the system call. */
static void send_protected(char *page_at, bool by_nr)
{
    struct iovec iov = {page_at, 24};
    int fd = dial_server();

    exchange(fd);
    cr_assert(by_nr ? syscall(SYS_mprotect, page_at, PAGE, PROT_NONE) == 0
                    : mprotect(page_at, PAGE, PROT_NONE) == 0);
    cr_expect(send(fd, page_at, 24, 0) == -1 && errno == EFAULT);
    cr_expect(write(fd, page_at + 8, 600) == -1 && errno == EFAULT);
    cr_expect(writev(fd, &iov, 1) == -1 && errno == EFAULT);
    cr_expect(connect(fd, (struct sockaddr *)page_at, sizeof(struct sockaddr_in)) == -1 &&
              errno == EFAULT);
    cr_assert(mprotect(page_at, PAGE, PROT_READ | PROT_WRITE) == 0);
    exchange(fd);
    close(fd);
}

static _Alignas(PAGE) char variable[PAGE];

Test(reused_sending, variables_made_unreadable, .timeout = 20)
{
    not_under_valgrind();
    send_protected(variable, false);
}

Test(reused_sending, variables_made_unreadable_by_number, .timeout = 20)
{
    not_under_valgrind();
    send_protected(variable, true);
}

Test(reused_sending, heap_made_unreadable, .timeout = 20)
{
    char *page;

    not_under_asan(); /* its heap is not the one of brk(2) */
    not_under_valgrind();
    page = aligned_alloc(PAGE, PAGE);
    cr_assert(page && page < (char *)sbrk(0));
    send_protected(page, false);
    free(page);
}

/* The array of pieces itself ends too early. */
Test(reused_sending, arrays_that_end, .timeout = 20)
{
    char *room, text[] = "get sending-none\r\n";
    struct mmsghdr *msgs;
    struct iovec *iov;
    int port, fd;

    not_under_valgrind();
    room = make_room();
    iov = (struct iovec *)(void *)(room + PAGE) - 1;
    *iov = (struct iovec){text, sizeof(text) - 1};
    port = park();
    fd = dial_server();
    cr_assert(local_port(fd) == port);
    cr_assert(mprotect(room + PAGE, PAGE, PROT_NONE) == 0);
    cr_expect(writev(fd, iov, 2) == -1 && errno == EFAULT);
    cr_expect(sendmsg(fd, &(struct msghdr){.msg_iov = iov, .msg_iovlen = 2}, 0) == -1 &&
              errno == EFAULT);
    cr_expect(writev(fd, iov, 4000) == -1 && errno == EINVAL);
    msgs = (struct mmsghdr *)(void *)(room + PAGE) - 1;
    *msgs = (struct mmsghdr){
        {.msg_iov = &(struct iovec){text, sizeof(text) - 1}, .msg_iovlen = 1}, 0};
    cr_expect(sendmmsg(fd, msgs, 2, 0) == 1 && msgs->msg_len == sizeof(text) - 1);
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_KEPT();
}
