/*
 * The first byte of a user decides the protocol of its connection, whichever call sends it. A
 * user that is given a connection of the other protocol still gets its answer.
 */
#include "harness.h"

#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <criterion/parameterized.h>

int pidfd_getfd(int pidfd, int fd, unsigned int flags);
int __dprintf_chk(int fd, int flag, const char *format, ...);
int __vdprintf_chk(int fd, int flag, const char *format, va_list list);

/* What a user sends first, and how the answer begins. */
struct words {
    const char *said;
    size_t length;
    const char *answer;
    size_t answer_length;
};

static const char noop[24] = "\x80\x0a";

static const struct words text = {"get nothing\r\n", 13, "END\r\n", 5};
static const struct words binary = {noop, sizeof(noop), "\x81\x0a", 24};

static void expect_answer(int fd, const struct words *words, const char *how)
{
    struct pollfd poller = {fd, POLLIN, 0};
    char got[24];
    size_t n = 0;

    while (n < words->answer_length) {
        ssize_t more;

        cr_assert(poll(&poller, 1, 3000) == 1, "%s: no answer", how);
        more = recv(fd, got + n, words->answer_length - n, 0);
        cr_assert(more > 0, "%s: no answer but the end, errno %d", how, errno);
        n += (size_t)more;
    }
    cr_assert(memcmp(got, words->answer, strlen(words->answer)) == 0, "%s: a wrong answer",
              how);
}

/* A reused connection whose former user spoke USED. */
static int dial_reused(const struct words *used)
{
    int fd = dial_server();

    cr_assert(send(fd, used->said, used->length, 0) == (ssize_t)used->length);
    expect_answer(fd, used, "first user");
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    return fd;
}

/* A file, or the reading end of a pipe, that holds the WORDS. */
static int file_of(const struct words *words)
{
    int fd = memfd_create("words", 0);

    cr_assert(unseen(SYS_write, fd, words->said, words->length) == (long)words->length);
    cr_assert(lseek(fd, 0, SEEK_SET) == 0);
    return fd;
}

static int pipe_of(const struct words *words)
{
    int pair[2];

    cr_assert(pipe(pair) == 0);
    cr_assert(unseen(SYS_write, pair[1], words->said, words->length) == (long)words->length);
    return pair[0];
}

static void say_seen(int fd, const struct words *words)
{
    cr_assert(send(fd, words->said, words->length, MSG_NOSIGNAL) == (ssize_t)words->length,
              "errno %d", errno);
}

static void say_unseen(int fd, const struct words *words)
{
    cr_assert(unseen(SYS_write, fd, words->said, words->length) == (long)words->length);
}

#define FORMAT "%.*s%s%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c%c"
#define ZEROS  0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0

/* A printing call that can send WORDS: text as a string, binary with its zero bytes. */
#define SAY_PRINTING(print, ...)                                                               \
    cr_assert((words == &text ? print(__VA_ARGS__, "%.*s", 13, words->said)                    \
                              : print(__VA_ARGS__, FORMAT, 1, noop, noop + 1, ZEROS)) ==       \
              (int)words->length)

static void say_dprintf(int fd, const struct words *words)
{
    SAY_PRINTING(dprintf, fd);
}

static void say_dprintf_chk(int fd, const struct words *words)
{
    SAY_PRINTING(__dprintf_chk, fd, 1);
}

static int through_vdprintf(int fd, const char *format, ...)
{
    va_list list;
    int result;

    va_start(list, format);
    result = vdprintf(fd, format, list);
    va_end(list);
    return result;
}

static int through_vdprintf_chk(int fd, const char *format, ...)
{
    va_list list;
    int result;

    va_start(list, format);
    result = __vdprintf_chk(fd, 1, format, list);
    va_end(list);
    return result;
}

static void say_vdprintf(int fd, const struct words *words)
{
    SAY_PRINTING(through_vdprintf, fd);
}

static void say_vdprintf_chk(int fd, const struct words *words)
{
    SAY_PRINTING(through_vdprintf_chk, fd);
}

static void say_sendfile(int fd, const struct words *words)
{
    cr_assert(sendfile(fd, file_of(words), NULL, words->length) == (ssize_t)words->length);
}

static void say_sendfile64(int fd, const struct words *words)
{
    cr_assert(sendfile64(fd, file_of(words), NULL, words->length) == (ssize_t)words->length);
}

static void say_splice(int fd, const struct words *words)
{
    cr_assert(splice(pipe_of(words), NULL, fd, NULL, words->length, 0) ==
              (ssize_t)words->length);
}

static void say_pwritev2(int fd, const struct words *words)
{
    struct iovec iov = {(void *)words->said, words->length};

    cr_assert(pwritev2(fd, &iov, 1, -1, 0) == (ssize_t)words->length);
}

static void say_pwritev64v2(int fd, const struct words *words)
{
    struct iovec iov = {(void *)words->said, words->length};

    cr_assert(pwritev64v2(fd, &iov, 1, -1, 0) == (ssize_t)words->length);
}

/* Nothing, then the words. */
static void say_after_empty_piece(int fd, const struct words *words)
{
    struct iovec iov[] = {{(void *)text.said, 0}, {(void *)words->said, words->length}};

    cr_assert(writev(fd, iov, 2) == (ssize_t)words->length);
}

static void say_after_empty_message(int fd, const struct words *words)
{
    struct iovec iov[] = {{(void *)text.said, 0}, {(void *)words->said, words->length}};
    struct mmsghdr msgs[] = {{.msg_hdr = {.msg_iovlen = 0}},
                             {.msg_hdr = {.msg_iov = &iov[0], .msg_iovlen = 1}},
                             {.msg_hdr = {.msg_iov = &iov[1], .msg_iovlen = 1}}};

    cr_assert(sendmmsg(fd, msgs, 3, 0) == 3);
}

static void say_aio_write(int fd, const struct words *words)
{
    static struct aiocb block;

    block.aio_fildes = fd;
    block.aio_buf = (void *)words->said;
    block.aio_nbytes = words->length;
    cr_assert(aio_write(&block) == 0);
}

static void say_aio_write64(int fd, const struct words *words)
{
    static struct aiocb64 block;

    block.aio_fildes = fd;
    block.aio_buf = (void *)words->said;
    block.aio_nbytes = words->length;
    cr_assert(aio_write64(&block) == 0);
}

static void say_lio_listio(int fd, const struct words *words)
{
    static struct aiocb block;
    struct aiocb *list[] = {&block};

    block.aio_lio_opcode = LIO_WRITE;
    block.aio_fildes = fd;
    block.aio_buf = (void *)words->said;
    block.aio_nbytes = words->length;
    cr_assert(lio_listio(LIO_WAIT, list, 1, NULL) == 0);
}

static void say_lio_listio64(int fd, const struct words *words)
{
    static struct aiocb64 block;
    struct aiocb64 *list[] = {&block};

    block.aio_lio_opcode = LIO_WRITE;
    block.aio_fildes = fd;
    block.aio_buf = (void *)words->said;
    block.aio_nbytes = words->length;
    cr_assert(lio_listio64(LIO_WAIT, list, 1, NULL) == 0);
}

static void say_io_submit_by_syscall(int fd, const struct words *words)
{
    struct iocb block = {.aio_lio_opcode = IOCB_CMD_PWRITE,
                         .aio_fildes = (uint32_t)fd,
                         .aio_buf = (uintptr_t)words->said,
                         .aio_nbytes = words->length};
    struct iocb *list[] = {&block};
    aio_context_t context = 0;

    if (unseen(SYS_io_setup, 1, &context) != 0)
        cr_skip_test("the kernel has no Linux AIO");
    cr_assert(syscall(SYS_io_submit, context, 1, list) == 1);
}

static void say_by_syscall(int fd, const struct words *words)
{
    cr_assert(syscall(SYS_write, fd, words->said, words->length) == (long)words->length);
}

static void say_sendto_by_syscall(int fd, const struct words *words)
{
    cr_assert(syscall(SYS_sendto, fd, words->said, words->length, 0, NULL, 0) ==
              (long)words->length);
}

static void say_splice_by_syscall(int fd, const struct words *words)
{
    cr_assert(syscall(SYS_splice, pipe_of(words), NULL, fd, NULL, words->length, 0) ==
              (long)words->length);
}

static void say_fdopen(int fd, const struct words *words)
{
    FILE *stream = fdopen(fd, "w");

    cr_assert(fwrite(words->said, 1, words->length, stream) == words->length);
    cr_assert(fflush(stream) == 0);
}

static void say_dup(int fd, const struct words *words)
{
    say_unseen(dup(fd), words);
}

/* The library may have known another connection at the duplicate's fd; it sees what is sent
 * there. */
static void say_seen_on_dup(int fd, const struct words *words)
{
    say_seen(dup(fd), words);
}

static void say_dup2(int fd, const struct words *words)
{
    cr_assert(dup2(fd, 300) == 300);
    say_unseen(300, words);
}

static void say_dup3(int fd, const struct words *words)
{
    cr_assert(dup3(fd, 300, O_CLOEXEC) == 300);
    say_unseen(300, words);
}

static void say_dup_over_itself(int fd, const struct words *words)
{
    cr_assert(dup2(fd, fd) == fd);
    say_seen(fd, words);
}

static void say_dupfd(int fd, const struct words *words)
{
    say_unseen(fcntl(fd, F_DUPFD, 300), words);
}

static void say_dupfd_cloexec(int fd, const struct words *words)
{
    say_seen(fcntl64(fd, F_DUPFD_CLOEXEC, 300), words);
}

static int pidfd_of_self(void)
{
    int self = (int)unseen(SYS_pidfd_open, getpid(), 0);

    if (self < 0)
        cr_skip_test("the kernel has no pidfd");
    return self;
}

static void say_pidfd_getfd(int fd, const struct words *words)
{
    say_unseen(pidfd_getfd(pidfd_of_self(), fd, 0), words);
}

static void say_pidfd_getfd_by_syscall(int fd, const struct words *words)
{
    say_unseen((int)syscall(SYS_pidfd_getfd, pidfd_of_self(), fd, 0), words);
}

static void say_dup_by_syscall(int fd, const struct words *words)
{
    say_unseen((int)syscall(SYS_dup, fd), words);
}

/* FD over a socket pair; MANY by sendmmsg(). */
static void pass(int fd, const struct words *words, bool many)
{
    union {
        struct cmsghdr header;
        char room[CMSG_SPACE(sizeof(int))];
    } control = {.header = {CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec iov = {"x", 1};
    struct msghdr msg = {.msg_iov = &iov,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    struct mmsghdr msgs;
    int pair[2], passed;
    char byte;

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    cr_assert(socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    msgs.msg_hdr = msg;
    cr_assert(many ? sendmmsg(pair[0], &msgs, 1, 0) == 1 : sendmsg(pair[0], &msg, 0) == 1);
    iov.iov_base = &byte;
    cr_assert(unseen(SYS_recvmsg, pair[1], &msg, 0) == 1);
    memcpy(&passed, CMSG_DATA(&control.header), sizeof(passed));
    say_unseen(passed, words);
}

static void say_passed(int fd, const struct words *words)
{
    pass(fd, words, false);
}

static void say_passed_with_many(int fd, const struct words *words)
{
    pass(fd, words, true);
}

/* The WORDS in the notation of printf(1). */
static const char *printed(const struct words *words)
{
    static char octal[200];

    for (size_t i = 0; i < words->length; i++)
        sprintf(octal + 4 * i, "\\%03o", (unsigned char)words->said[i]);
    return octal;
}

static void say_spawned(int fd, const struct words *words)
{
    char command[300];
    char *arguments[] = {"sh", "-c", command, NULL};
    posix_spawn_file_actions_t actions;
    pid_t child;

    sprintf(command, "printf '%s' >&9", printed(words));
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, fd, 9);
    cr_assert(posix_spawn(&child, "/bin/sh", &actions, NULL, arguments, environ) == 0);
    expect_good_end(child);
}

/* Events that end pooling before the first byte. The library sees that byte all the same. */

static void say_after_unseen_reading(int fd, const struct words *words)
{
    char byte;
    struct iovec iov = {&byte, 1};

    cr_assert(preadv2(fd, &iov, 1, -1, 8 /* RWF_NOWAIT */) == -1);
    say_seen(fd, words);
}

static void say_after_option(int fd, const struct words *words)
{
    int value = 3, got = 0;
    socklen_t size = sizeof(got);

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &value, sizeof(value)) == 0);
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_RCVLOWAT, &got, &size) == 0 && got == value);
    say_seen(fd, words);
}

static void say_after_setown(int fd, const struct words *words)
{
    cr_assert(fcntl(fd, F_SETOWN, getpid()) == 0);
    cr_assert(fcntl(fd, F_GETOWN) == getpid());
    say_seen(fd, words);
}

static void say_after_fiosetown(int fd, const struct words *words)
{
    pid_t pid = getpid();

    cr_assert(ioctl(fd, FIOSETOWN, &pid) == 0);
    cr_assert(fcntl(fd, F_GETOWN) == getpid());
    say_seen(fd, words);
}

static void say_after_polling_by_syscall(int fd, const struct words *words)
{
    struct pollfd poller = {fd, POLLOUT, 0};
    struct timespec second = {1, 0};

    cr_assert(syscall(SYS_ppoll, &poller, 1, &second, NULL, 0) == 1);
    say_seen(fd, words);
}

static void say_after_a_child(int fd, const struct words *words)
{
    cr_assert(system("true") == 0);
    say_seen(fd, words);
}

static void say_after_changing_user(int fd, const struct words *words)
{
    cr_assert(setuid(getuid()) == 0);
    say_seen(fd, words);
}

/* The connection is registered in five sets, and the library remembers four. So it cannot be
 * swapped, and the program gets an error. */
Test(swaps, first_write_in_too_many_epoll_sets, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 5}};
    int fd = dial_reused(&text);

    for (int i = 0; i < 5; i++)
        cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
    cr_expect(send(fd, noop, sizeof(noop), MSG_NOSIGNAL) == -1 && errno == ECONNRESET);
}

static void say_after_o_async(int fd, const struct words *words)
{
    cr_assert(fcntl(fd, F_SETFL, O_ASYNC) == 0);
    say_seen(fd, words);
}

/* A one-shot registration cannot be made again on a new connection. The connection is still not
 * cut off when its first byte will be seen and is of the right protocol. */
Test(swaps, first_write_in_an_epoll_set_for_one_shot, .timeout = 20)
{
    static void (*const says[])(int fd, const struct words *words) = {
        say_after_option, say_after_setown, say_after_fiosetown, say_after_o_async};

    signal(SIGIO, SIG_IGN);
    for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); i++) {
        struct epoll_event event = {EPOLLOUT | EPOLLONESHOT, {.u64 = 5}};
        int fd = dial_reused(&text);

        cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
        says[i](fd, &text);
        expect_answer(fd, &text, "one-shot");
        close(fd);
    }
}

struct reader {
    int fd;
    atomic_int tid;
    char got[5];
};

static void *read_answer(void *argument)
{
    struct reader *reader = argument;

    reader->tid = gettid();
    recv(reader->fd, reader->got, sizeof(reader->got), MSG_WAITALL);
    return NULL;
}

/* A thread that waits for the answer would go on waiting on the old socket. */
Test(swaps, first_write_while_a_thread_reads, .timeout = 20)
{
    struct reader reader = {.fd = dial_reused(&text)};
    pthread_t thread;

    cr_assert(pthread_create(&thread, NULL, read_answer, &reader) == 0);
    while (reader.tid == 0)
        sched_yield();
    wait_inside(reader.tid, SYS_recvfrom);
    say_dup(reader.fd, &text);
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_expect(memcmp(reader.got, "END\r\n", 5) == 0, "no answer");
}

static atomic_int looked_at = -1;
static _Atomic bool looks;

static void *look_again_and_again(void *unused)
{
    char byte;
    int fd;

    (void)unused;
    do {
        looks = true;
        fd = looked_at;
        if (fd >= 0)
            recv(fd, &byte, 1, MSG_DONTWAIT);
        looks = false;
    } while (fd != -2);
    return NULL;
}

/* A thread whose calls begin and end while the connection is about to be replaced. That is no
 * reason to cut the connection off. */
Test(swaps, first_write_while_a_thread_comes_and_goes, .timeout = 60)
{
    time_t end = time(NULL) + 30;
    pthread_t thread;

    cr_assert(pthread_create(&thread, NULL, look_again_and_again, NULL) == 0);
    /* The time is for valgrind, which runs one thread at a time. */
    for (int i = 0; i < 500 && time(NULL) < end; i++) {
        int fd = dial_reused(&text);
        int copy;

        looked_at = fd;
        usleep(50);
        copy = dup(fd);
        /* The thread must not read the next connection's answer at this fd. */
        looked_at = -1;
        while (looks)
            sched_yield();
        close(copy);
        close(fd);
    }
    looked_at = -2;
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_expect(log_count(": swap failed at ") == 0, "%d connections were cut off",
              log_count(": swap failed at "));
}

static atomic_int asked_on = -1, lost;

/* Sends a request at a random moment, and waits for the answer outside of any call. */
static void *ask_again_and_again(void *unused)
{
    unsigned int random = 1;
    char answer[5];

    (void)unused;
    for (int fd = asked_on; fd != -2; fd = asked_on) {
        int tries = 0;

        if (fd < 0)
            continue;
        random = random * 1103515245 + 12345;
        for (volatile unsigned int i = 0; i < (random >> 16) % 40000; i++)
            ;
        send(fd, text.said, text.length, MSG_NOSIGNAL);
        while (recv(fd, answer, sizeof(answer), MSG_DONTWAIT) != sizeof(answer) &&
               tries++ < 2000)
            usleep(100);
        lost += tries > 2000;
        asked_on = -1;
    }
    return NULL;
}

/* A thread that sends its first request while the connection is about to be replaced gets its
 * answer. Between our last check and the swap is a microsecond, so one answer may be lost, and
 * as many more as that microsecond is longer on an emulated machine. */
Test(swaps, first_write_while_another_thread_writes, .timeout = 60)
{
    pthread_t thread;

    cr_assert(pthread_create(&thread, NULL, ask_again_and_again, NULL) == 0);
    for (int i = 0; i < 1000; i++) {
        int fd = dial_server();
        int copy;

        exchange(fd);
        close(fd);
        fd = dial_server();
        asked_on = fd;
        copy = dup(fd);
        while (asked_on >= 0)
            usleep(50);
        close(copy);
        close(fd);
    }
    asked_on = -2;
    cr_assert(pthread_join(thread, NULL) == 0);
    cr_expect(lost <= slowness(), "%d answers of 1000 were lost", lost);
}

/* The fd is another connection by now, to a server of the test. */
Test(swaps, first_write_after_another_connect, .timeout = 20)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct sockaddr_in addr;
    int fd = dial_reused(&text);
    int port;
    int listener = listen_here(&port);

    cr_assert(connect(fd, &none, sizeof(none)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == 0);
    say_seen(fd, &binary);
    cr_expect(read(accept(listener, NULL, NULL), (char[24]){0}, 24) == sizeof(noop));
    cr_expect(log_count(": swapped at ") == 0);
}

/* The same with a connection that is no longer pooled for another reason, while a connection of
 * the other protocol is idle. */
Test(swaps, first_write_after_another_connect_of_a_refused_one, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 5}};
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct sockaddr_in addr;
    int fd = dial_reused(&text);
    int other = dial_server();
    int port;
    int listener = listen_here(&port);

    say_seen(other, &binary);
    expect_answer(other, &binary, "another");
    close(other);
    for (int i = 0; i < 5; i++)
        cr_assert(epoll_ctl(epoll_create1(0), EPOLL_CTL_ADD, fd, &event) == 0);
    cr_assert(connect(fd, &none, sizeof(none)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == 0);
    say_seen(fd, &binary);
    cr_expect(read(accept(listener, NULL, NULL), (char[24]){0}, 24) == sizeof(noop));
    cr_expect(log_count(": swapped at ") == 0);
}

/* A connection that cannot be replaced fails, like one that cannot be repaired, where the
 * program has spoken both protocols. */
Test(swaps, first_write_without_descriptors, .timeout = 20)
{
    int other = dial_server(), fd, in = file_of(&binary);

    say_seen(other, &binary);
    expect_answer(other, &binary, "another");
    fd = dial_reused(&text);
    allow_no_more_fds();
    cr_expect(sendfile(fd, in, NULL, sizeof(noop)) == -1 && errno == ECONNRESET);
    cr_expect(recv(fd, (char[1]){0}, 1, 0) == 0);
}

static const struct member {
    const char *name;
    void (*say)(int fd, const struct words *words);
} members[] = {
    {"dprintf", say_dprintf},
    {"vdprintf", say_vdprintf},
    {"__dprintf_chk", say_dprintf_chk},
    {"__vdprintf_chk", say_vdprintf_chk},
    {"sendfile", say_sendfile},
    {"sendfile64", say_sendfile64},
    {"splice", say_splice},
    {"pwritev2", say_pwritev2},
    {"pwritev64v2", say_pwritev64v2},
    {"writev, the first piece empty", say_after_empty_piece},
    {"sendmmsg, the first messages empty", say_after_empty_message},
    {"aio_write", say_aio_write},
    {"aio_write64", say_aio_write64},
    {"lio_listio", say_lio_listio},
    {"lio_listio64", say_lio_listio64},
    {"syscall(SYS_io_submit)", say_io_submit_by_syscall},
    {"syscall(SYS_write)", say_by_syscall},
    {"syscall(SYS_sendto)", say_sendto_by_syscall},
    {"syscall(SYS_splice)", say_splice_by_syscall},
    {"fdopen", say_fdopen},
    {"dup", say_dup},
    {"dup, seen", say_seen_on_dup},
    {"dup2", say_dup2},
    {"dup3", say_dup3},
    {"dup2 over itself", say_dup_over_itself},
    {"F_DUPFD", say_dupfd},
    {"F_DUPFD_CLOEXEC", say_dupfd_cloexec},
    {"syscall(SYS_dup)", say_dup_by_syscall},
    {"pidfd_getfd", say_pidfd_getfd},
    {"syscall(SYS_pidfd_getfd)", say_pidfd_getfd_by_syscall},
    {"sendmsg with SCM_RIGHTS", say_passed},
    {"sendmmsg with SCM_RIGHTS", say_passed_with_many},
    {"posix_spawn with adddup2", say_spawned},
    {"preadv2, then send", say_after_unseen_reading},
    {"setsockopt, then send", say_after_option},
    {"F_SETOWN, then send", say_after_setown},
    {"FIOSETOWN, then send", say_after_fiosetown},
    {"syscall(SYS_ppoll), then send", say_after_polling_by_syscall},
    {"system, then send", say_after_a_child},
    {"setuid, then send", say_after_changing_user},
};

#define MEMBERS (sizeof(members) / sizeof(members[0]))

/* Every way to send, for every pair of protocols, by its place in the table. */
ParameterizedTestParameters(swaps, first_write)
{
    static size_t places[4 * MEMBERS];

    for (size_t i = 0; i < 4 * MEMBERS; i++)
        places[i] = i;
    return cr_make_param_array(size_t, places, 4 * MEMBERS);
}

ParameterizedTest(size_t *place, swaps, first_write, .timeout = 20)
{
    const struct member *member = &members[*place / 4];
    const struct words *used = *place & 1 ? &binary : &text;
    const struct words *wanted = *place & 2 ? &binary : &text;
    char how[100];
    int fd;

    sprintf(how, "%s, %s after %s", member->name, wanted == &text ? "text" : "binary",
            used == &text ? "text" : "binary");
    fd = dial_reused(used);
    member->say(fd, wanted);
    expect_answer(fd, wanted, how);
    say_seen(fd, wanted);
    expect_answer(fd, wanted, how);
    cr_expect(log_count(": swap failed at ") == 0, "%s", how);
    close(fd);
}

/* An inherited connection, or one used in an io_uring, is replaced before its first byte where
 * no other thread can be sending on it. A forked child has no other thread; Criterion's process
 * has. With FORKS a child of that child sends. The exit code is 0 when the answer came. */
static int say_alone(bool forks)
{
    /* For a ring that the library does not understand. */
    struct io_uring_params parameters = {.flags = IORING_SETUP_IOPOLL};
    struct sockaddr_in addr;
    struct pollfd poller;
    char got[24] = "";
    int fd;

    for (int i = 0; i < 2; i++) {
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) != 0)
            return 1;
        if (i == 0 && (send(fd, text.said, text.length, 0) != (ssize_t)text.length ||
                       recv(fd, got, 5, MSG_WAITALL) != 5 || close(fd) != 0))
            return 2;
    }
    if (log_count(": reused as ") != 1)
        return 3;
    if (!forks)
        syscall(SYS_io_uring_setup, 1, &parameters);
    if (!forks || fork() == 0) {
        if (unseen(SYS_write, fd, noop, sizeof(noop)) != sizeof(noop))
            return 4;
        if (forks)
            _exit(0);
    }
    poller = (struct pollfd){fd, POLLIN, 0};
    if (poll(&poller, 1, 3000) != 1)
        return 5;
    return recv(fd, got, sizeof(got), 0) == sizeof(noop) && got[0] == '\x81' ? 0 : 6;
}

Test(swaps, first_write_of_a_child, .timeout = 20)
{
    pid_t child = fork();

    if (child == 0)
        _exit(say_alone(true));
    expect_good_end(child);
}

Test(swaps, first_write_in_a_ring, .timeout = 20)
{
    pid_t child = fork();

    if (child == 0)
        _exit(say_alone(false));
    expect_good_end(child);
}
