/*
 * io_uring: a ring that only registers for epoll leaves connections pooled, as libuv's does.
 * Every other operation refuses its connection.
 */
#include "harness.h"

#include <errno.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define ENTRIES 8

struct ring {
    int fd;
    char *queues;
    size_t queues_size;
    struct io_uring_params params;
    struct io_uring_sqe *sqes;
};

static void open_ring(struct ring *ring, unsigned flags)
{
    *ring = (struct ring){.params = {.flags = flags}};
    ring->fd = (int)syscall(SYS_io_uring_setup, ENTRIES, &ring->params);
    if (ring->fd < 0)
        cr_skip_test("io_uring_setup() is not to be had here");
    ring->queues_size =
        ring->params.cq_off.cqes + ring->params.cq_entries * sizeof(struct io_uring_cqe);
    ring->queues = mmap(NULL, ring->queues_size, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd,
                        IORING_OFF_SQ_RING);
    ring->sqes = mmap(NULL, ENTRIES * sizeof(struct io_uring_sqe), PROT_READ | PROT_WRITE,
                      MAP_SHARED, ring->fd, IORING_OFF_SQES);
    cr_assert(ring->queues != MAP_FAILED && ring->sqes != MAP_FAILED);
}

static void close_ring(struct ring *ring)
{
    munmap(ring->queues, ring->queues_size);
    munmap(ring->sqes, ENTRIES * sizeof(struct io_uring_sqe));
    close(ring->fd);
}

static unsigned *word(const struct ring *ring, unsigned offset)
{
    return (unsigned *)(ring->queues + offset);
}

/* The entry that the next push() submits. */
static struct io_uring_sqe *entry(const struct ring *ring)
{
    unsigned at = *word(ring, ring->params.sq_off.tail) & (ENTRIES - 1);

    memset(&ring->sqes[at], 0, sizeof(ring->sqes[at]));
    return &ring->sqes[at];
}

static void push(const struct ring *ring)
{
    unsigned tail = *word(ring, ring->params.sq_off.tail);

    word(ring, ring->params.sq_off.array)[tail & (ENTRIES - 1)] = tail & (ENTRIES - 1);
    __atomic_store_n(word(ring, ring->params.sq_off.tail), tail + 1, __ATOMIC_RELEASE);
}

static void enter(const struct ring *ring, unsigned n)
{
    long entered =
        syscall(SYS_io_uring_enter, ring->fd, n, n, IORING_ENTER_GETEVENTS, NULL, 0L);

    cr_assert(entered == n, "io_uring_enter() gave %ld, %s", entered, strerror(errno));
}

static int completion(const struct ring *ring)
{
    unsigned *head = word(ring, ring->params.cq_off.head);
    struct io_uring_cqe *cqes =
        (struct io_uring_cqe *)(ring->queues + ring->params.cq_off.cqes);
    int result = cqes[*head & (ring->params.cq_entries - 1)].res;

    cr_assert(*head != *word(ring, ring->params.cq_off.tail), "nothing has completed");
    __atomic_store_n(head, *head + 1, __ATOMIC_RELEASE);
    return result;
}

static void put_epoll_ctl(const struct ring *ring, int epfd, int op, int fd,
                          struct epoll_event *event)
{
    struct io_uring_sqe *sqe = entry(ring);

    sqe->opcode = IORING_OP_EPOLL_CTL;
    sqe->fd = epfd;
    sqe->len = (unsigned)op;
    sqe->off = (unsigned)fd;
    sqe->addr = (uintptr_t)event;
    sqe->user_data = (uint64_t)fd << 32 | (unsigned)op;
    push(ring);
}

static int epoll_ctl_by(const struct ring *ring, int epfd, int op, int fd,
                        struct epoll_event *event)
{
    put_epoll_ctl(ring, epfd, op, fd, event);
    enter(ring, 1);
    return completion(ring);
}

static int add_by(const struct ring *ring, int epfd, int fd, uint64_t data)
{
    struct epoll_event event = {EPOLLIN, {.u64 = data}};

    return epoll_ctl_by(ring, epfd, EPOLL_CTL_ADD, fd, &event);
}

/* The end of a ring interrupts waits of the thread that made it. */
static int wait_for_event(int epfd, struct epoll_event *event, int timeout)
{
    int n;

    do
        n = epoll_wait(epfd, event, 1, timeout);
    while (n == -1 && errno == EINTR);
    return n;
}

static void expect_event(int epfd, uint64_t data)
{
    struct epoll_event event = {0, {.u64 = 0}};

    cr_assert(wait_for_event(epfd, &event, 5000) == 1);
    cr_expect(event.data.u64 == data, "an event of %lu", (unsigned long)event.data.u64);
}

static void expect_silence(int epfd)
{
    struct epoll_event event;

    cr_expect(wait_for_event(epfd, &event, 50) == 0);
}

/* Registered before connect(), as libuv does. The former user's registration is gone, the new
 * one's is there. */
static void expect_pooling(const struct ring *ring)
{
    struct sockaddr_in addr;
    int epfd = epoll_create1(0);
    int fd = dial_server(), again;

    cr_assert(add_by(ring, epfd, fd, 1) == 0);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    again = socket(AF_INET, SOCK_STREAM, 0);
    cr_expect(again == fd);
    cr_assert(add_by(ring, epfd, again, 2) == 0);
    loopback(&addr, server_port());
    cr_assert(connect(again, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    EXPECT_EVENT(": reused as ");
    send_text(again, "get none_of_ring\r\n");
    expect_event(epfd, 2);
    expect_text(again, "END\r\n");
    expect_silence(epfd);
    cr_expect(add_by(ring, epfd, again, 3) == -EEXIST);
    close(again);
    EXPECT_KEPT();
    expect_silence(epfd);
    close(epfd);
}

static int used_connection(void)
{
    int fd = dial_server();

    exchange(fd);
    return fd;
}

static void expect_refusal(void)
{
    close(used_connection());
    EXPECT_NOT_KEPT("IO_URING");
}

Test(ring, registrations_pool, .timeout = 20)
{
    struct ring ring;

    open_ring(&ring, 0);
    expect_pooling(&ring);
}

Test(ring, modified_and_deleted, .timeout = 20)
{
    struct ring ring;
    struct epoll_event event = {EPOLLIN, {.u64 = 2}};
    int epfd = epoll_create1(0);
    int fd = dial_server();

    open_ring(&ring, 0);
    cr_assert(add_by(&ring, epfd, fd, 1) == 0);
    cr_assert(epoll_ctl_by(&ring, epfd, EPOLL_CTL_MOD, fd, &event) == 0);
    send_text(fd, "get none_of_ring\r\n");
    expect_event(epfd, 2);
    expect_text(fd, "END\r\n");
    cr_assert(epoll_ctl_by(&ring, epfd, EPOLL_CTL_DEL, fd, &event) == 0);
    close(fd);
    EXPECT_KEPT();
}

/* When the kernel refused io_uring_setup() there is no ring: containers forbid it. */
Test(ring, refused_is_none, .timeout = 20)
{
    park();
    cr_assert(syscall(SYS_io_uring_setup, 0, NULL) == -1);
    close(used_connection());
    EXPECT_KEPT();
}

Test(ring, many_at_once, .timeout = 20)
{
    struct ring ring;
    struct epoll_event events[ENTRIES];
    int fds[ENTRIES];
    int epfd = epoll_create1(0);

    open_ring(&ring, 0);
    for (int i = 0; i < ENTRIES; i++) {
        fds[i] = dial_server();
        events[i] = (struct epoll_event){EPOLLIN, {.u64 = (uint64_t)i}};
        put_epoll_ctl(&ring, epfd, EPOLL_CTL_ADD, fds[i], &events[i]);
    }
    enter(&ring, ENTRIES);
    for (int i = 0; i < ENTRIES; i++) {
        cr_expect(completion(&ring) == 0);
        exchange(fds[i]);
        close(fds[i]);
        EXPECT_KEPT();
    }
    expect_silence(epfd);
}

/* Any other operation refuses only the connection that it names. */
Test(ring, other_operation_refuses_the_connection, .timeout = 20)
{
    struct ring ring;
    struct io_uring_sqe *sqe;
    char buf[16];
    int fd = dial_server();

    open_ring(&ring, 0);
    send_text(fd, "get none_of_ring\r\n");
    sqe = entry(&ring);
    sqe->opcode = IORING_OP_READ;
    sqe->fd = fd;
    sqe->addr = (uintptr_t)buf;
    sqe->len = sizeof(buf);
    sqe->off = (uint64_t)-1;
    push(&ring);
    enter(&ring, 1);
    cr_assert(completion(&ring) == 5);
    close(fd);
    EXPECT_NOT_KEPT("IO_URING");
    expect_pooling(&ring);
}

/* Operations on files concern no connection. */
Test(ring, operation_on_a_file, .timeout = 20)
{
    struct ring ring;
    struct io_uring_sqe *sqe;
    int pipes[2];

    open_ring(&ring, 0);
    cr_assert(pipe(pipes) == 0);
    sqe = entry(&ring);
    sqe->opcode = IORING_OP_WRITE;
    sqe->fd = pipes[1];
    sqe->addr = (uintptr_t) "x";
    sqe->len = 1;
    push(&ring);
    enter(&ring, 1);
    cr_assert(completion(&ring) == 1);
    expect_pooling(&ring);
}

static void push_one(const struct ring *ring, uint8_t opcode, uint8_t flags)
{
    struct io_uring_sqe *sqe = entry(ring);

    sqe->opcode = opcode;
    sqe->flags = flags;
    sqe->fd = -1;
    push(ring);
}

/* The library does not read which fds these operations name. */
Test(ring, operation_not_understood, .timeout = 20)
{
    struct ring ring;

    open_ring(&ring, 0);
    push_one(&ring, IORING_OP_SPLICE, 0);
    enter(&ring, 1);
    expect_refusal();
}

Test(ring, entry_with_flags, .timeout = 20)
{
    struct ring ring;

    open_ring(&ring, 0);
    push_one(&ring, IORING_OP_NOP, IOSQE_ASYNC);
    enter(&ring, 1);
    expect_refusal();
}

static void receive_unseen(const struct ring *ring, int fd, char *buf, unsigned n)
{
    struct io_uring_sqe *sqe = entry(ring);

    sqe->opcode = IORING_OP_RECV;
    sqe->fd = fd;
    sqe->addr = (uintptr_t)buf;
    sqe->len = n;
    push(ring);
    cr_assert(unseen(SYS_io_uring_enter, ring->fd, 1, 0, 0, NULL, 0) == 1);
}

/* The entries are submitted by a call that no hook saw, a read of a connection among them. */
Test(ring, entered_unseen, .timeout = 20)
{
    struct ring ring;
    char buf[16];
    int fd = used_connection();

    open_ring(&ring, 0);
    receive_unseen(&ring, fd, buf, sizeof(buf));
    close(fd);
    EXPECT_NOT_KEPT("IO_URING");
}

/* The same, and then the ring is closed: pending operations end a little later. */
Test(ring, entered_unseen_and_closed, .timeout = 20)
{
    struct ring ring;
    char buf[16];
    int fd = used_connection();

    open_ring(&ring, 0);
    receive_unseen(&ring, fd, buf, sizeof(buf));
    close_ring(&ring);
    close(fd);
    EXPECT_NOT_KEPT("IO_URING");
}

Test(ring, made_unseen, .timeout = 20)
{
    struct io_uring_params params = {0};
    int fd = (int)unseen(SYS_io_uring_setup, ENTRIES, &params);

    if (fd < 0)
        cr_skip_test("io_uring_setup() is not to be had here");
    park();
    cr_assert(syscall(SYS_io_uring_enter, fd, 0, 0, 0, NULL, 0L) == 0);
    EXPECT_EVENT(": discarded: IO_URING ");
    expect_refusal();
}

Test(ring, files_registered, .timeout = 20)
{
    struct ring ring;
    int fd = used_connection();

    open_ring(&ring, 0);
    cr_assert(syscall(SYS_io_uring_register, ring.fd, IORING_REGISTER_FILES, &fd, 1) == 0);
    close(fd);
    EXPECT_NOT_KEPT("IO_URING");
}

Test(ring, polled_by_the_kernel, .timeout = 20)
{
    struct ring ring;

    open_ring(&ring, IORING_SETUP_SQPOLL);
    expect_refusal();
}

/* The memory of a closed ring is unmapped, and its fd may become another ring. */
Test(ring, closed_and_made_again, .timeout = 20)
{
    for (int i = 0; i < 200; i++) {
        struct ring ring;

        open_ring(&ring, 0);
        if (i % 50 == 0)
            expect_pooling(&ring);
        close_ring(&ring);
    }
}

Test(ring, replaced, .timeout = 20)
{
    struct ring first, second;

    open_ring(&first, 0);
    open_ring(&second, 0);
    cr_assert(dup2(second.fd, first.fd) == first.fd);
    expect_pooling(&second);
    put_epoll_ctl(&second, 0, EPOLL_CTL_ADD, -1, NULL);
    cr_assert(syscall(SYS_io_uring_enter, first.fd, 1, 0, 0, NULL, 0L) == 1);
    expect_refusal();
}

static void *pool_with_own_ring(void *unused)
{
    struct ring ring;

    (void)unused;
    open_ring(&ring, 0);
    for (int i = 0; i < 200; i++) {
        int epfd = epoll_create1(0);
        int fd = dial_server();

        cr_assert(add_by(&ring, epfd, fd, 1) == 0);
        exchange(fd);
        close(fd);
        close(epfd);
    }
    close_ring(&ring);
    return NULL;
}

/* While one thread is in io_uring_enter(), another thread's connection is still kept. */
Test(ring, several_threads, .timeout = 60)
{
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, pool_with_own_ring, NULL);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    cr_expect(log_count("IO_URING") == 0);
    cr_expect(log_count(": reused as ") > 700, "%d were reused", log_count(": reused as "));
}

/* The child makes a ring of its own, as libuv does; the parent goes on with the first. */
Test(ring, fork_with_new_ring, .timeout = 20)
{
    struct ring ring, own;
    pid_t child;

    open_ring(&ring, 0);
    expect_pooling(&ring);
    child = fork();
    if (child == 0) {
        close_ring(&ring);
        open_ring(&own, 0);
        expect_pooling(&own);
        _exit(0);
    }
    expect_good_end(child);
    expect_pooling(&ring);
}

/* The parent does not see what a child submits to the parent's ring. */
Test(ring, fork_with_old_ring, .timeout = 20)
{
    struct ring ring;
    pid_t child;

    open_ring(&ring, 0);
    child = fork();
    if (child == 0) {
        push_one(&ring, IORING_OP_NOP, 0);
        enter(&ring, 1);
        expect_refusal();
        _exit(0);
    }
    expect_good_end(child);
    expect_refusal();
}

static void put_timeout(const struct ring *ring, struct __kernel_timespec *end)
{
    struct io_uring_sqe *sqe = entry(ring);

    sqe->opcode = IORING_OP_TIMEOUT;
    sqe->fd = -1;
    sqe->addr = (uintptr_t)end;
    sqe->len = 1;
    push(ring);
}

/* A thread registers a connection, and waits for something else in the same call. */
struct registers_and_waits {
    struct ring ring;
    int epfd, fd;
    _Atomic pid_t tid;
};

static void *register_and_wait(void *argument)
{
    struct registers_and_waits *call = argument;
    struct __kernel_timespec end = {.tv_sec = 1};
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};

    put_epoll_ctl(&call->ring, call->epfd, EPOLL_CTL_ADD, call->fd, &event);
    put_timeout(&call->ring, &end);
    call->tid = (pid_t)syscall(SYS_gettid);
    enter(&call->ring, 2);
    return NULL;
}

/* Another thread closes the connection during that call. The connection must not get another
 * user, whose replies the epoll set would report. */
Test(ring, closed_while_the_registration_is_under_way, .timeout = 20)
{
    struct registers_and_waits call = {.fd = used_connection(), .epfd = epoll_create1(0)};
    pthread_t thread;
    int again;

    open_ring(&call.ring, 0);
    pthread_create(&thread, NULL, register_and_wait, &call);
    while (call.tid == 0)
        usleep(1000);
    wait_inside(call.tid, SYS_io_uring_enter);
    close(call.fd);
    EXPECT_NOT_KEPT("IN_FLIGHT");
    pthread_join(thread, NULL);
    cr_assert(completion(&call.ring) == 0 && completion(&call.ring) == -ETIME);
    again = dial_server();
    send_text(again, "get none_of_ring\r\n");
    expect_silence(call.epfd);
    expect_text(again, "END\r\n");
    expect_pooling(&call.ring);
}

static sigjmp_buf out;

static void jump_out(int signal)
{
    siglongjmp(out, signal);
}

/* A signal handler jumps out of a call that waits: what the call submitted is known all the
 * same. */
Test(ring, jumped_out_of, .timeout = 20)
{
    struct registers_and_waits call = {.fd = used_connection(), .epfd = epoll_create1(0)};

    open_ring(&call.ring, 0);
    signal(SIGALRM, jump_out);
    if (sigsetjmp(out, 1) == 0) {
        ualarm(100000, 0);
        register_and_wait(&call);
    }
    cr_assert(completion(&call.ring) == 0);
    close(call.fd);
    EXPECT_KEPT();
    call.fd = dial_server();
    send_text(call.fd, "get none_of_ring\r\n");
    expect_silence(call.epfd);
    expect_text(call.fd, "END\r\n");
    close(call.fd);
    EXPECT_KEPT();
}

static pid_t child_of_handler = -1;

static void fork_in_handler(int signal)
{
    (void)signal;
    child_of_handler = fork();
}

/* The child goes on after a call on a ring that it no longer has. */
Test(ring, fork_by_a_handler, .timeout = 20)
{
    struct ring ring;
    struct __kernel_timespec end = {.tv_sec = 1};

    open_ring(&ring, 0);
    expect_pooling(&ring);
    signal(SIGALRM, fork_in_handler);
    ualarm(100000, 0);
    put_timeout(&ring, &end);
    syscall(SYS_io_uring_enter, ring.fd, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0L);
    if (child_of_handler == 0)
        _exit(0);
    cr_assert(child_of_handler > 0);
    expect_good_end(child_of_handler);
}

static bool any_ring_is_mapped(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    char line[512];
    bool found = false;

    while (fgets(line, sizeof(line), maps))
        found |= strstr(line, "[io_uring]") != NULL;
    fclose(maps);
    return found;
}

/* In a sandbox the library makes no system call. So it removes its mapping of the ring before:
 * the mapping would keep the ring alive, and its pending operations. */
Test(ring, closed_in_a_sandbox, .timeout = 20)
{
    struct sock_filter allow = BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog filter = {1, &allow};
    struct ring ring;

    open_ring(&ring, 0);
    expect_pooling(&ring);
    cr_assert(any_ring_is_mapped());
    cr_assert(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    cr_assert(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0);
    close_ring(&ring);
    cr_expect(!any_ring_is_mapped());
}

/* The kernel refused the sandbox, and entries submitted meanwhile were not seen. */
Test(ring, used_after_a_refused_sandbox, .timeout = 20)
{
    struct sock_fprog bad = {0, NULL};
    struct ring ring;

    open_ring(&ring, 0);
    expect_pooling(&ring);
    cr_assert(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &bad) == -1);
    close(used_connection());
    EXPECT_KEPT();
    push_one(&ring, IORING_OP_NOP, 0);
    enter(&ring, 1);
    expect_refusal();
}
