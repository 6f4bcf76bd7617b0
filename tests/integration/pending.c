/*
 * A receive that was begun and not waited for never gets what the connection's next user is
 * sent.
 */
#include "harness.h"

#include <aio.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/aio_abi.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <unistd.h>

#define ROUNDS 30

/* Closes FD, on which a receive into BUFFER is pending, and lets another user have a reply. The
 * fd stays taken, as glibc serves the requests for one fd one after the other. */
static void expect_nothing_in(const char *buffer, int fd)
{
    struct pollfd ready = {.events = POLLIN};

    close(fd);
    cr_assert(open("/dev/null", O_RDONLY | O_CLOEXEC) == fd);
    ready.fd = dial_server();
    send_text(ready.fd, "get nothing\r\n");
    cr_expect(poll(&ready, 1, 1000) == 1, "the reply went elsewhere");
    usleep(10000); /* both waited for it */
    cr_assert(*buffer == '\0', "the first user got '%.5s'", buffer);
    expect_text(ready.fd, "END\r\n");
    close(ready.fd);
}

Test(pending, lio_listio, .timeout = 60)
{
    static struct aiocb blocks[ROUNDS];
    static char buffers[ROUNDS][64];

    aio_init(&(struct aioinit){.aio_threads = 2 * ROUNDS, .aio_num = 2 * ROUNDS});
    for (int i = 0; i < ROUNDS; i++) {
        int fd = dial_server();

        exchange(fd);
        blocks[i] = (struct aiocb){.aio_fildes = fd,
                                   .aio_lio_opcode = LIO_READ,
                                   .aio_buf = buffers[i],
                                   .aio_nbytes = sizeof(buffers[i])};
        if (i % 2 == 0)
            cr_assert(lio_listio(LIO_NOWAIT, (struct aiocb *[]){NULL, &blocks[i]}, 2, NULL) ==
                      0);
        else
            cr_assert(lio_listio64(LIO_NOWAIT,
                                   (struct aiocb64 *[]){NULL, (struct aiocb64 *)&blocks[i]}, 2,
                                   NULL) == 0);
        usleep(10000); /* its thread is in read() by then */
        expect_nothing_in(buffers[i], fd);
    }
    cr_expect(log_count(": not kept: UNTRACKED_IO ") == ROUNDS);
}

/* Calls that glibc refuses, or does not look at, are treated as without us. */
Test(pending, lists_that_glibc_does_not_read, .timeout = 20)
{
    struct aiocb **volatile nowhere = (struct aiocb **)8;
    struct aiocb block = {.aio_lio_opcode = LIO_NOP};

    block.aio_fildes = dial_server();
    cr_expect(lio_listio(-1, nowhere, 1, NULL) == -1 && errno == EINVAL);
    cr_expect(lio_listio(LIO_WAIT, nowhere, 0, NULL) == 0);
    cr_expect(lio_listio(LIO_WAIT, (struct aiocb *[]){&block}, 1, NULL) == 0);
    exchange(block.aio_fildes);
    close(block.aio_fildes);
    EXPECT_KEPT();
}

static aio_context_t context;

struct submission {
    struct iocb block;
    _Atomic pid_t tid;
    pthread_t thread;
    long result;
};

static void *submit(void *argument)
{
    struct submission *submission = argument;
    struct iocb *list[] = {&submission->block};

    submission->tid = gettid();
    submission->result = syscall(SYS_io_submit, context, 1, list);
    return NULL;
}

/* The kernel makes a receive on a blocking socket within io_submit(). */
Test(pending, submitted_receive, .timeout = 60)
{
    static struct submission submissions[ROUNDS];
    static char buffers[ROUNDS][64];

    cr_assert(syscall(SYS_io_setup, 64, &context) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        struct submission *submission = &submissions[i];
        int fd = dial_server();

        exchange(fd);
        submission->block = (struct iocb){.aio_fildes = (uint32_t)fd,
                                          .aio_lio_opcode = IOCB_CMD_PREAD,
                                          .aio_buf = (uintptr_t)buffers[i],
                                          .aio_nbytes = sizeof(buffers[i])};
        cr_assert(pthread_create(&submission->thread, NULL, submit, submission) == 0);
        while (submission->tid == 0)
            sched_yield();
        wait_inside(submission->tid, SYS_io_submit);
        expect_nothing_in(buffers[i], fd);
    }
    cr_expect(log_count(": not kept: RAW_SYSCALL ") == ROUNDS);
}

Test(pending, submitted_poll, .timeout = 60)
{
    struct io_event event = {0};
    struct timespec soon = {0, 10000000};

    cr_assert(syscall(SYS_io_setup, 64, &context) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        int fd = dial_server();
        struct iocb block = {.aio_data = 42,
                             .aio_fildes = (uint32_t)fd,
                             .aio_lio_opcode = IOCB_CMD_POLL,
                             .aio_buf = POLLIN};

        exchange(fd);
        cr_assert(syscall(SYS_io_submit, context, 1, (struct iocb *[]){&block}) == 1);
        expect_nothing_in("", fd);
        cr_assert(syscall(SYS_io_getevents, context, 0, 1, &event, &soon) == 0,
                  "an event of a connection that was closed: %llx", event.res);
    }
    cr_expect(log_count(": not kept: RAW_SYSCALL ") == ROUNDS);
}

Test(pending, lists_that_cannot_be_read, .timeout = 20)
{
    struct iocb *nowhere = (struct iocb *)8;

    park();
    cr_assert(syscall(SYS_io_setup, 64, &context) == 0);
    cr_expect(syscall(SYS_io_submit, context, 1L, 8L) == -1 && errno == EFAULT);
    cr_expect(syscall(SYS_io_submit, context, 1, &nowhere) == -1 && errno == EFAULT);
    cr_expect(syscall(SYS_io_submit, context, -1L, 8L) == -1 && errno == EINVAL);
}

static long make_ring(void)
{
    static struct io_uring_params params = {.flags = IORING_SETUP_SQPOLL};

    return syscall(SYS_io_uring_setup, 4, &params);
}

Test(pending, ring, .timeout = 20)
{
    int fd;

    park();
    if (make_ring() < 0)
        cr_skip_test("no ring may be made here");
    EXPECT_EVENT(": discarded: IO_URING ");
    fd = dial_server();
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("IO_URING");
}

/* Containers forbid the call. When the kernel refused it there is no ring. */
Test(pending, ring_that_was_refused, .timeout = 20)
{
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_io_uring_setup, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {sizeof(code) / sizeof(code[0]), code};
    int port;

    /* Set unseen by the library, like a filter installed before the program started. */
    cr_assert(unseen(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    if (unseen(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) != 0)
        cr_skip_test("no seccomp filter can be made here");
    port = park();
    cr_expect(make_ring() == -1 && errno == EPERM);
    cr_expect(local_port(dial_server()) == port, "%s", last_event());
}
