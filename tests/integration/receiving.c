/*
 * Buffers that are not as usual: several name the same memory, or what comes lies over the
 * memory that says where it is to come. The server is this thread, past the library.
 */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#define PAGE 4096

/* Of 25 bytes; the last five are a whole reply. */
#define REPLY "VALUE aaaaa 0 1\r\nA\r\nEND\r\n"
#define PART  5
#define PARTS 5

enum way { BY_READV, BY_RECVMSG, BY_RECVMMSG, BY_MESSAGES, WAYS };

static struct server {
    int listener, port, fd; /* FD: the last connection */
} server;

/* A connection to the server. */
static int dial_here(void)
{
    int fd;

    if (server.port == 0)
        server.listener = listen_here(&server.port);
    fd = dial(server.port);
    server.fd = (int)unseen(SYS_accept4, server.listener, NULL, NULL, 0);
    return fd;
}

static void serve(int fd, const char *text)
{
    cr_assert(unseen(SYS_sendto, fd, text, strlen(text), 0, NULL, 0) == (long)strlen(text));
}

/* Receives into the COUNT buffers at IOV; how many bytes came. */
static ssize_t receive_by(enum way way, int fd, struct iovec *iov, size_t count)
{
    struct msghdr msg = {.msg_iov = iov, .msg_iovlen = count};
    struct mmsghdr msgs[PARTS] = {{msg, 0}};
    ssize_t moved = 0;
    int n = 1;

    switch (way) {
    case BY_READV:
        return readv(fd, iov, (int)count);
    case BY_RECVMSG:
        return recvmsg(fd, &msg, 0);
    case BY_MESSAGES:
        for (n = 0; n < (int)count; n++)
            msgs[n].msg_hdr = (struct msghdr){.msg_iov = &iov[n], .msg_iovlen = 1};
        break;
    default:
        break;
    }
    n = recvmmsg(fd, msgs, (unsigned int)n, 0, NULL);
    for (int i = 0; i < n; i++)
        moved += msgs[i].msg_len;
    return moved;
}

/* The first user asks for five values, skips the first by a small buffer that it names five
 * times, and leaves. The others are still to come then. */
static void skip_and_leave(enum way way)
{
    struct iovec iov[PARTS];
    char skipped[PART];
    int fd = dial_here();

    for (int i = 0; i < PARTS; i++)
        iov[i] = (struct iovec){skipped, sizeof(skipped)};
    for (int i = 0; i < PARTS; i++)
        send_text(fd, "get aaaaa\r\n");
    serve(server.fd, REPLY);
    cr_assert(receive_by(way, fd, iov, PARTS) == PARTS * PART);
    close(fd);
}

Test(receiving, pieces_that_overlap_give_no_other_value, .timeout = 20)
{
    for (enum way way = 0; way < WAYS; way++) {
        struct pollfd dialled;
        int fd, first;

        skip_and_leave(way);
        EXPECT_NOT_KEPT("UNTRACKED_IO");
        first = server.fd;
        fd = dial(server.port);
        send_text(fd, "get own\r\n");
        dialled = (struct pollfd){.fd = server.listener, .events = POLLIN};
        if (unseen(SYS_ppoll, &dialled, 1, &(struct timespec){0}, NULL, 8) == 1) {
            server.fd = (int)unseen(SYS_accept4, server.listener, NULL, NULL, 0);
            serve(server.fd, "VALUE own 0 3\r\nown\r\nEND\r\n");
        } else {
            serve(first, REPLY);
        }
        expect_text(fd, "VALUE own 0 3\r\nown\r\nEND\r\n");
        unseen(SYS_close, first);
        unseen(SYS_close, server.fd);
        close(fd);
    }
}

/* A request whose reply, of five bytes, is on its way. */
static int ask(void)
{
    int fd = dial_here();

    send_text(fd, "get a\r\n");
    serve(server.fd, "END\r\n");
    return fd;
}

/* The last user of FD is gone, and so is the server's side of a connection that is kept. */
static void leave(int fd)
{
    close(fd);
    unseen(SYS_close, server.fd);
}

/* One byte that two buffers share is enough. */
Test(receiving, pieces_that_share_a_byte, .timeout = 20)
{
    static const struct {
        int first, second; /* three bytes of the reply, and two */
        bool kept;
    } cases[] = {{0, 3, true}, {2, 0, true}, {0, 2, false}, {1, 0, false}, {0, 0, false}};

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char bytes[16];
        struct iovec iov[] = {
            {bytes + cases[i].first, 3}, {bytes, 0}, {bytes + cases[i].second, 8}};
        int fd = ask();

        cr_assert(readv(fd, iov, 3) == 5);
        leave(fd);
        if (cases[i].kept)
            EXPECT_KEPT();
        else
            EXPECT_NOT_KEPT("UNTRACKED_IO");
    }
}

/* More buffers than the library notes do no harm if nothing came to the last ones. */
Test(receiving, many_pieces, .timeout = 20)
{
    enum { MANY = 20 };
    char bytes[MANY * PART];
    struct iovec iov[MANY];

    for (int length = 0; length < 2; length++) {
        int fd = ask();

        for (int i = 0; i < MANY; i++)
            iov[i] = (struct iovec){bytes + i * PART, length == 0 ? PART
                                                      : i == 0    ? 4
                                                                  : i == MANY - 1};
        cr_assert(readv(fd, iov, MANY) == 5);
        leave(fd);
        if (length == 0)
            EXPECT_KEPT();
        else
            EXPECT_NOT_KEPT("UNTRACKED_IO");
    }
}

/* What comes lies over what says where it is to come. The kernel has read that before; it
 * writes into the header afterwards, so the bytes there are not those that came. ASan's own
 * hooks crash by that. */
Test(receiving, pieces_that_lie_over_their_list, .timeout = 20)
{
    not_under_asan();
    for (enum way way = 0; way < BY_MESSAGES; way++) {
        union {
            char bytes[1024];
            struct iovec iov;
        } list = {.iov = {&list, sizeof(list)}};
        int fd = dial_here();

        send_text(fd, "get aaaaa\r\n");
        serve(server.fd, REPLY);
        cr_assert(receive_by(way, fd, &list.iov, 1) == PARTS * PART);
        cr_expect(memcmp(list.bytes, REPLY, PARTS * PART) == 0);
        leave(fd);
        EXPECT_KEPT();
    }
}

Test(receiving, pieces_that_lie_over_their_header, .timeout = 20)
{
    not_under_asan();
    for (int many = 0; many < 2; many++) {
        union {
            char bytes[1024];
            struct mmsghdr msg;
        } header = {0};
        struct iovec iov = {&header, sizeof(header)};
        int fd = dial_here();

        header.msg.msg_hdr = (struct msghdr){.msg_iov = &iov, .msg_iovlen = 1};
        send_text(fd, "get aaaaa\r\n");
        serve(server.fd, REPLY REPLY REPLY REPLY);
        if (many)
            cr_expect(recvmmsg(fd, &header.msg, 1, 0, NULL) == 1);
        else
            cr_expect(recvmsg(fd, &header.msg.msg_hdr, 0) ==
                      PARTS * PART * 4); /* longer than the header */
        leave(fd);
        EXPECT_NOT_KEPT("UNTRACKED_IO");
    }
}

/* Other memory that the kernel writes in such a call. */
Test(receiving, pieces_that_lie_over_what_else_is_written, .timeout = 20)
{
    for (int what = 0; what < 3; what++) {
        union {
            char bytes[1024];
            socklen_t length;
            struct timespec timeout;
        } memory = {0};
        struct iovec iov = {&memory, sizeof(memory)};
        struct mmsghdr msg = {.msg_hdr = {.msg_iov = &iov, .msg_iovlen = 1}};
        struct sockaddr_in from;
        int fd = ask();

        if (what == 0) {
            cr_expect(recvfrom(fd, &memory, sizeof(memory), 0, (struct sockaddr *)&from,
                               &memory.length) == 5);
        } else if (what == 1) {
            msg.msg_hdr.msg_control = memory.bytes + 4;
            msg.msg_hdr.msg_controllen = 64;
            cr_expect(recvmsg(fd, &msg.msg_hdr, 0) == 5);
        } else {
            memory.timeout.tv_sec = 1;
            cr_expect(recvmmsg(fd, &msg, 1, 0, &memory.timeout) == 1);
        }
        leave(fd);
        EXPECT_NOT_KEPT("UNTRACKED_IO");
    }
}

/* An address beside the bytes is of no concern. */
Test(receiving, an_address_beside, .timeout = 20)
{
    struct sockaddr_in from;
    socklen_t length = sizeof(from);
    char bytes[16];
    int fd = ask();

    cr_expect(recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&from, &length) == 5);
    leave(fd);
    EXPECT_KEPT();
}

/* A list that cannot be read is the kernel's to refuse; the reply is still there then. */
Test(receiving, lists_that_cannot_be_read, .timeout = 20)
{
    char *page =
        mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct iovec *last = (struct iovec *)(void *)(page + PAGE) - 1;
    char bytes[16];
    int fd = ask();

    cr_assert(page != MAP_FAILED && mprotect(page + PAGE, PAGE, PROT_NONE) == 0);
    *last = (struct iovec){bytes, sizeof(bytes)};
    for (enum way way = 0; way < BY_MESSAGES; way++) {
        cr_expect(receive_by(way, fd, last, 2) == (way == BY_RECVMMSG ? 0 : -1) &&
                  errno == EFAULT);
        cr_expect(receive_by(way, fd, (void *)(page + PAGE), 1) <= 0 && errno == EFAULT);
    }
    cr_expect(recvmsg(fd, (void *)(page + PAGE), 0) == -1 && errno == EFAULT);
    cr_expect(recvmsg(fd, (void *)(page + PAGE - sizeof(*last)), 0) == -1 && errno == EFAULT);
    cr_expect(recvmmsg(fd, (void *)(page + PAGE), 1, 0, NULL) == -1 && errno == EFAULT);
    cr_expect(readv(fd, last, 1) == 5);
    leave(fd);
    EXPECT_KEPT();
}

/* The same for the fds that come with a message: the control messages are found by the header,
 * which may be gone. */
Test(receiving, fds_whose_header_is_overwritten, .timeout = 20)
{
    struct {
        union {
            char bytes[sizeof(struct msghdr)];
            struct msghdr msg;
        } header;
        union {
            struct cmsghdr header;
            char bytes[CMSG_SPACE(sizeof(int))];
        } control;
    } memory = {0};
    struct iovec iov = {&memory.header, sizeof(memory.header)};
    struct fd_message message;
    char text[sizeof(memory.header)];
    int pair[2];

    not_under_asan();
    leave(ask()); /* from now on the library looks at fds */
    memset(text, 'A', sizeof(text));
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    fill_fd_message(&message, pair[0]);
    message.iov = (struct iovec){text, sizeof(text)};
    cr_assert(sendmsg(pair[0], &message.msg.msg_hdr, 0) == (ssize_t)sizeof(text));
    memory.header.msg = (struct msghdr){.msg_iov = &iov,
                                        .msg_iovlen = 1,
                                        .msg_control = &memory.control,
                                        .msg_controllen = sizeof(memory.control)};
    cr_expect(recvmsg(pair[1], &memory.header.msg, 0) == (ssize_t)sizeof(text));
}
