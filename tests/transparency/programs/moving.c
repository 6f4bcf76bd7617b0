/*
 * Bytes: every call that sends or receives.
 */
#include "program.h"

#include <linux/sockios.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>

static char buffer[4096];

static void say_got(long n)
{
    SAY("got: %.*s\n", n > 0 ? (int)n : 0, buffer);
}

POOLED_PROGRAM(read_and_write)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        STEP(write(fd, "get one\r\n", 9));
        wait_for(fd, POLLIN);
        say_got(STEP(read(fd, buffer, 5)));
        STEP(read(fd, buffer, 0));
        STEP(write(fd, "", 0));
        hear_until(fd, "END\r\n");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(looked_at_first)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        tell(fd, "get one\r\n");
        wait_for(fd, POLLIN);
        say_got(STEP(recv(fd, buffer, 5, MSG_PEEK)));
        say_got(STEP(recv(fd, buffer, ANSWER, MSG_WAITALL | MSG_PEEK)));
        STEP(ioctl(fd, FIONREAD, buffer));
        SAY("FIONREAD %d\n", *(int *)buffer);
        say_got(STEP(recv(fd, buffer, ANSWER, MSG_WAITALL)));
        STEP(recv(fd, buffer, 1, MSG_DONTWAIT));
        STEP(recv(fd, buffer, 1, MSG_DONTWAIT | MSG_PEEK));
        STEP(recv(fd, buffer, 1, MSG_ERRQUEUE));
        STEP(close(fd));
    }
}

PROGRAM(thrown_away)
{
    int fd;

    park();
    fd = dial();
    tell(fd, "get one\r\n");
    wait_for(fd, POLLIN);
    STEP(recv(fd, NULL, 7, MSG_TRUNC));
    hear_until(fd, "END\r\n");
    STEP(close(fd));
}

POOLED_PROGRAM(in_pieces)
{
    park();
    for (int i = 0; i < 2; i++) {
        struct iovec out_pieces[] = {{"get ", 4}, {"one", 3}, {NULL, 0}, {"\r\n", 2}};
        struct iovec in_pieces[] = {{buffer, 6}, {buffer + 6, 0}, {buffer + 6, ANSWER - 6}};
        int fd = dial();

        STEP(writev(fd, out_pieces, 4));
        recv(fd, buffer, ANSWER, MSG_WAITALL | MSG_PEEK);
        say_got(STEP(readv(fd, in_pieces, 3)));
        STEP(readv(fd, in_pieces, 0));
        STEP(writev(fd, out_pieces, -1));
        STEP(readv(fd, in_pieces, 4711));
        STEP(close(fd));
    }
}

POOLED_PROGRAM(as_messages)
{
    park();
    for (int i = 0; i < 2; i++) {
        struct iovec piece = {"get one\r\n", 9};
        struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
        struct sockaddr_in from;
        socklen_t len = sizeof(from);
        int fd = dial();

        STEP(sendmsg(fd, &message, MSG_NOSIGNAL));
        wait_for(fd, POLLIN);
        piece = (struct iovec){buffer, 6};
        message.msg_name = &from;
        message.msg_namelen = sizeof(from);
        say_got(STEP(recvmsg(fd, &message, 0)));
        SAY("flags %x, name of %u bytes\n", message.msg_flags, message.msg_namelen);
        say_got(STEP(recvfrom(fd, buffer, 4, 0, (struct sockaddr *)&from, &len)));
        SAY("name of %u bytes\n", len);
        hear_until(fd, "END\r\n");
        STEP(sendto(fd, "get two\r\n", 9, 0, SERVER));
        hear_until(fd, "END\r\n");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(many_messages_at_once)
{
    park();
    for (int i = 0; i < 2; i++) {
        struct iovec first = {"get one\r\n", 9}, second = {"get two\r\n", 9};
        struct mmsghdr messages[] = {{.msg_hdr = {.msg_iov = &first, .msg_iovlen = 1}},
                                     {.msg_hdr = {.msg_iov = &second, .msg_iovlen = 1}}};
        int fd = dial();

        STEP(sendmmsg(fd, messages, 2, 0));
        SAY("%u %u\n", messages[0].msg_len, messages[1].msg_len);
        recv(fd, buffer, 2 * ANSWER, MSG_WAITALL | MSG_PEEK);
        first = (struct iovec){buffer, ANSWER};
        second = (struct iovec){buffer + ANSWER, ANSWER};
        STEP(recvmmsg(fd, messages, 2, 0, NULL));
        SAY("%u %u\n", messages[0].msg_len, messages[1].msg_len);
        say_got(2 * ANSWER);
        STEP(close(fd));
    }
}

PROGRAM(bad_moves)
{
    void *volatile nowhere = (void *)8;
    void *volatile nothing = NULL;
    struct iovec piece = {nowhere, 5};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    int fd;

    park();
    fd = dial();
    STEP(send(fd, nowhere, 9, MSG_NOSIGNAL));
    STEP(write(fd, nowhere, 9));
    STEP(writev(fd, nowhere, 1));
    STEP(writev(fd, &piece, 1));
    STEP(sendmsg(fd, nowhere, 0));
    STEP(sendmsg(fd, &message, 0));
    STEP(sendmmsg(fd, nowhere, 1, 0));
    STEP(sendto(fd, "x", 1, 0x40000000 | MSG_NOSIGNAL, NULL, 0));
    STEP(send(fd, nothing, 24, MSG_NOSIGNAL));
    STEP(write(fd, nothing, 6));
    STEP(writev(fd, nothing, 1));
    STEP(sendmsg(fd, nothing, 0));
    STEP(sendmmsg(fd, nothing, 1, 0));
    tell(fd, "get one\r\n");
    wait_for(fd, POLLIN);
    STEP(recv(fd, nowhere, 9, 0));
    STEP(readv(fd, nowhere, 1));
    STEP(readv(fd, &piece, 1));
    STEP(recvmsg(fd, nowhere, 0));
    STEP(recvmsg(fd, &message, 0));
    STEP(recvmmsg(fd, nowhere, 1, 0, NULL));
    STEP(read(fd, buffer, (size_t)-1) > 0);
    STEP(close(fd));
}

static void every_call_on(int fd)
{
    struct iovec piece = {buffer, 1};
    struct msghdr message = {.msg_iov = &piece, .msg_iovlen = 1};
    struct mmsghdr messages = {.msg_hdr = message};
    int on = 1;

    signal(SIGPIPE, SIG_IGN);
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
    STEP(readv(fd, &piece, 0));
    STEP(write(fd, "x", 0));
    STEP(writev(fd, &piece, 0));
    STEP(preadv2(fd, &piece, 1, -1, 0));
    STEP(pwritev2(fd, &piece, 1, -1, 0));
    STEP(ioctl(fd, FIONBIO, &on));
    STEP(ioctl(fd, 4711, buffer));
    STEP(fcntl(fd, F_GETFL));
    STEP(fcntl(fd, F_SETFL, O_NONBLOCK));
    STEP(fcntl(fd, F_SETFD, FD_CLOEXEC));
    STEP(dprintf(fd, "%s", ""));
    STEP(sendfile(fd, fd, NULL, 1));
    STEP(splice(fd, NULL, fd, NULL, 1, 0));
}

PROGRAM(calls_on_nothing)
{
    park();
    every_call_on(-1);
    every_call_on(4711);
    every_call_on(70000);
}

PROGRAM(calls_on_a_file)
{
    park();
    every_call_on(open("/dev/null", O_RDWR));
}

PROGRAM(calls_before_connect)
{
    park();
    every_call_on(socket(AF_INET, SOCK_STREAM, 0));
}

static int print_to(int fd, const char *format, ...)
{
    va_list list;
    int n;

    va_start(list, format);
    n = vdprintf(fd, format, list);
    va_end(list);
    return n;
}

PROGRAM(printed)
{
    int fd;

    park();
    fd = dial();
    STEP(dprintf(fd, "get %s\r\n", "one"));
    hear_until(fd, "END\r\n");
    STEP(print_to(fd, "get %s\r\n", "two"));
    hear_until(fd, "END\r\n");
    STEP(shutdown(fd, SHUT_WR));
    signal(SIGPIPE, SIG_IGN);
    STEP(dprintf(fd, "x"));
    STEP(close(fd));
    STEP(dprintf(fd, "x"));
}

PROGRAM(from_a_file)
{
    FILE *file = tmpfile();
    int fd;

    fputs("get one\r\nget two\r\n", file);
    fflush(file);
    park();
    fd = dial();
    STEP(sendfile(fd, fileno(file), &(off_t){0}, 9));
    hear_until(fd, "END\r\n");
    STEP(sendfile(fd, fileno(file), &(off_t){9}, 9));
    hear_until(fd, "END\r\n");
    STEP(close(fd));
}

PROGRAM(through_a_pipe)
{
    int pipes[2], fd;

    park();
    fd = dial();
    STEP(pipe(pipes));
    STEP(write(pipes[1], "get one\r\n", 9));
    STEP(splice(pipes[0], NULL, fd, NULL, 9, 0));
    recv(fd, buffer, ANSWER, MSG_WAITALL | MSG_PEEK);
    STEP(splice(fd, NULL, pipes[1], NULL, ANSWER, 0));
    say_got(STEP(read(pipes[0], buffer, sizeof(buffer))));
    STEP(close(fd));
    park();
}

PROGRAM(at_offsets)
{
    struct iovec piece = {"get one\r\n", 9};
    int fd;

    park();
    fd = dial();
    STEP(pwritev2(fd, &piece, 1, -1, 0));
    piece = (struct iovec){buffer, ANSWER};
    recv(fd, buffer, ANSWER, MSG_WAITALL | MSG_PEEK);
    say_got(STEP(preadv2(fd, &piece, 1, -1, 0)));
    STEP(pwrite(fd, "x", 1, 0));
    STEP(pread(fd, buffer, 1, 0));
    STEP(lseek(fd, 0, SEEK_SET));
    STEP(close(fd));
}

PROGRAM(handed_to_a_neighbour)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec piece = {"x", 1};
    struct msghdr message = {.msg_iov = &piece,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = sizeof(control)};
    int pair[2], fd, received;

    park();
    socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    fd = dial();
    ask(fd, "one");
    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    STEP(sendmsg(pair[0], &message, 0));
    STEP(close(fd));
    piece.iov_base = buffer;
    STEP(recvmsg(pair[1], &message, 0));
    memcpy(&received, CMSG_DATA(&control.header), sizeof(received));
    SAY("received %d\n", received);
    ask(received, "two");
    STEP(close(received));
    park();
}

POOLED_PROGRAM(large_values)
{
    park();
    for (int i = 0; i < 3; i++) {
        size_t n = 0, sum = 0;
        int fd = dial();

        tell(fd, "get large\r\n");
        while (n < 300000 + 29 + 7) {
            ssize_t more = recv(fd, buffer, sizeof(buffer), 0);

            if (more <= 0)
                break;
            for (ssize_t j = 0; j < more; j++)
                sum += (unsigned char)buffer[j];
            n += (size_t)more;
            if (memcmp(buffer + more - 5, "END\r\n", 5) == 0)
                break;
        }
        SAY("%zu bytes, sum %zu\n", n, sum);
        STEP(close(fd));
    }
}

PROGRAM(out_of_band)
{
    int fd;

    park();
    fd = dial();
    STEP(send(fd, "x", 1, MSG_OOB));
    STEP(recv(fd, buffer, 1, MSG_OOB));
    STEP(ioctl(fd, SIOCATMARK, buffer));
    STEP(close(fd));
    park();
}

ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
                       struct sockaddr *from, socklen_t *len);

POOLED_PROGRAM(fortified)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        tell(fd, "get one\r\n");
        recv(fd, buffer, ANSWER, MSG_WAITALL | MSG_PEEK);
        say_got(STEP(__read_chk(fd, buffer, 11, sizeof(buffer))));
        say_got(STEP(__recv_chk(fd, buffer, 11, sizeof(buffer), 0)));
        say_got(STEP(__recvfrom_chk(fd, buffer, 11, sizeof(buffer), 0, NULL, NULL)));
        STEP(close(fd));
    }
}

POOLED_PROGRAM(queues)
{
    park();
    for (int i = 0; i < 2; i++) {
        int n = 4711;
        int fd = dial();

        STEP(ioctl(fd, FIONREAD, &n));
        SAY("%d\n", n);
        tell(fd, "get one\r\n");
        recv(fd, buffer, ANSWER, MSG_WAITALL | MSG_PEEK);
        STEP(ioctl(fd, FIONREAD, &n));
        SAY("%d\n", n);
        STEP(ioctl(fd, SIOCOUTQ, &n));
        SAY("%d\n", n);
        STEP(ioctl(fd, FIONBIO, &(int){1}));
        STEP(fcntl(fd, F_GETFL));
        STEP(recv(fd, buffer, ANSWER, 0));
        STEP(recv(fd, buffer, ANSWER, 0));
        STEP(ioctl(fd, FIONBIO, &(int){0}));
        STEP(close(fd));
    }
}

/* An answer in two pieces, and the timeout of SO_RCVTIMEO. */
PROGRAM(half_an_answer)
{
    struct timeval patience = {0, 200000};
    int fd;

    park();
    fd = dial();
    STEP(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience)));
    tell(fd, "get half\r\n");
    hear_until(fd, "END\r\n");
    STEP(recv(fd, buffer, 1, 0));
    STEP(close(fd));
    fd = dial();
    ask(fd, "one");
    STEP(close(fd));
}

static _Alignas(4096) char page[4096];

/* The library reads what is sent. Here the kernel cannot. */
POOLED_PROGRAM(memory_that_is_protected)
{
    int fd;

    park();
    fd = dial();
    STEP(mprotect(page, sizeof(page), PROT_NONE));
    STEP(send(fd, page, 24, 0));
    STEP(write(fd, page + 100, 2000));
    STEP(connect(fd, (struct sockaddr *)page, sizeof(struct sockaddr_in)));
    STEP(mprotect(page, sizeof(page), PROT_READ | PROT_WRITE));
    STEP(mprotect(page + 1, 1, PROT_READ));
    STEP(mprotect(NULL, 4096, PROT_NONE));
    ask(fd, "one");
    STEP(close(fd));
}
