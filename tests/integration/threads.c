/*
 * Threads, signal handlers and cancellation. Every answer is the right one, nothing hangs and
 * nothing leaks.
 */
#include "harness.h"

#include <aio.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/time.h>
#include <unistd.h>

static struct sockaddr_in server;
static atomic_int mismatches;
static atomic_int cycles;

/* connect, set, get, close without Criterion's assertions, which threads and signal handlers
 * may not use. The value names the key. */
static void cycle(unsigned int who, unsigned int number)
{
    char request[128], wanted[128], answer[128];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int n, expected;
    ssize_t got = 0;

    n = snprintf(request, sizeof(request),
                 "set k-%u-%u 0 0 16\r\nvalue-%04u-%05u\r\nget k-%u-%u\r\n", who, number, who,
                 number, who, number);
    expected = snprintf(wanted, sizeof(wanted),
                        "STORED\r\nVALUE k-%u-%u 0 16\r\nvalue-%04u-%05u\r\nEND\r\n", who,
                        number, who, number);
    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0 ||
        send(fd, request, (size_t)n, MSG_NOSIGNAL) != n) {
        mismatches++;
    } else {
        while (got < expected) {
            ssize_t more = recv(fd, answer + got, (size_t)(expected - got), 0);

            if (more < 0 && errno == EINTR)
                continue;
            if (more <= 0)
                break;
            got += more;
        }
        mismatches += got != expected || memcmp(answer, wanted, (size_t)expected) != 0;
        cycles++;
    }
    close(fd);
}

static void *many_cycles(void *argument)
{
    for (unsigned int i = 0; i < 500; i++)
        cycle((unsigned int)(size_t)argument, i);
    return NULL;
}

Test(threads, eight_on_one_endpoint, .timeout = 60)
{
    pthread_t threads[8];
    long before;

    loopback(&server, server_port());
    /* The first socket of a process wakes it: a thread that is kept from its processor then may
     * keep the others from being tracked. */
    close(socket(AF_INET, SOCK_STREAM, 0));
    before = opened_at_server();
    for (size_t i = 0; i < 8; i++)
        cr_assert(pthread_create(&threads[i], NULL, many_cycles, (void *)i) == 0);
    for (size_t i = 0; i < 8; i++)
        pthread_join(threads[i], NULL);
    cr_expect(mismatches == 0, "%d of %d wrong", mismatches, cycles);
    cr_expect(opened_at_server() - before <= 8 + 4);
}

static volatile sig_atomic_t is_armed;

static void on_alarm(int signal)
{
    static atomic_uint number;
    int saved = errno;

    (void)signal;
    cycle(9999, number++ % 1000);
    is_armed = false;
    errno = saved;
}

/* Signal handlers that do the same as the code they interrupt, wherever that is. Where a cycle
 * takes long, one handler must not follow the other without a cycle between them. */
Test(threads, signal_handlers_use_the_pool, .timeout = 60)
{
    struct sigaction action = {.sa_handler = on_alarm, .sa_flags = SA_RESTART};
    struct itimerval never = {{0, 0}, {0, 0}};

    loopback(&server, server_port());
    cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
    for (unsigned int i = 0; i < 3000; i++) {
        struct itimerval soon = {{0, 0}, {0, 500 + i * 7 % 2000 * slowness()}};

        if (!is_armed) {
            is_armed = true;
            cr_assert(setitimer(ITIMER_REAL, &soon, NULL) == 0);
        }
        cycle(1, i);
    }
    cr_assert(setitimer(ITIMER_REAL, &never, NULL) == 0);
    cr_expect(cycles > 3000, "no handler ran");
    cr_expect(mismatches == 0, "%d of %d wrong", mismatches, cycles);
}

/* ASan does not notice that a cancelled thread has left its frames. It must be told so from a
 * frame below them. */
void __asan_handle_no_return(void) __attribute__((weak));

static __attribute__((noinline)) void forget_frames(void)
{
    volatile char below[32768];

    below[0] = 1;
    if (__asan_handle_no_return)
        __asan_handle_no_return();
    cr_assert(below[0] == 1); /* which keeps the call from being a jump */
}

static void close_it(void *fd)
{
    forget_frames();
    close(*(int *)fd);
}

static void *wait_for_a_reply(void *argument)
{
    char byte;

    pthread_cleanup_push(close_it, argument);
    recv(*(int *)argument, &byte, 1, 0);
    pthread_cleanup_pop(1);
    return NULL;
}

/* More often than there are records: each cancelled call must give its record back. */
Test(threads, cancelled_calls_leak_nothing, .timeout = 120)
{
    for (int i = 0; i < 16500; i++) {
        pthread_t thread;
        int fd = dial_server();

        exchange(fd);
        cr_assert(pthread_create(&thread, NULL, wait_for_a_reply, &fd) == 0);
        pthread_cancel(thread);
        pthread_join(thread, NULL);
    }
    park();
    exchange(dial_server());
    EXPECT_EVENT(": reused as ");
}

struct connector {
    struct sockaddr_in to;
    int fd;
    _Atomic pid_t tid;
};

static void *connect_in_vain(void *argument)
{
    struct connector *connector = argument;

    pthread_cleanup_push(close_it, &connector->fd);
    connector->tid = gettid();
    connect(connector->fd, (struct sockaddr *)&connector->to, sizeof(connector->to));
    pthread_cleanup_pop(1);
    return NULL;
}

/* A server that accepts no connection: its queue is full, and further SYNs get no answer. */
static int deaf_server(void)
{
    struct sockaddr_in addr;
    int port;
    int listener = listen_here(&port);

    cr_assert(listen(listener, 0) == 0);
    loopback(&addr, port);
    for (int i = 0; i < 2; i++) {
        long fd = unseen(SYS_socket, AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

        unseen(SYS_connect, fd, &addr, sizeof(addr));
    }
    return port;
}

Test(threads, cancelled_connects_harm_no_other, .timeout = 20)
{
    static struct connector connector;
    int port;

    not_under_valgrind(); /* where it takes minutes */
    port = park();
    loopback(&connector.to, deaf_server());
    for (int i = 0; i < 200; i++) {
        pthread_t thread;
        void *result;

        connector.fd = socket(AF_INET, SOCK_STREAM, 0);
        connector.tid = 0;
        cr_assert(pthread_create(&thread, NULL, connect_in_vain, &connector) == 0);
        while (connector.tid == 0)
            sched_yield();
        wait_inside(connector.tid, SYS_connect);
        cr_assert(pthread_cancel(thread) == 0);
        cr_assert(pthread_join(thread, &result) == 0);
        cr_expect(result == PTHREAD_CANCELED);
        cr_expect(log_count(": not kept: UNUSED ") == i + 1);
    }
    cr_expect(local_port(dial_server()) == port);
}

#define PATIENCE_MS 400

static int wait_by_poll(int fd)
{
    struct pollfd wanted[] = {{-1, POLLIN, 0}, {fd, POLLIN, 0}};

    return poll(wanted, 2, PATIENCE_MS);
}

static int wait_by_ppoll(int fd)
{
    struct pollfd wanted = {fd, POLLIN, 0};

    return ppoll(&wanted, 1, &(struct timespec){0, PATIENCE_MS * 1000000L}, NULL);
}

static int wait_by_select(int fd)
{
    fd_set wanted;

    FD_ZERO(&wanted);
    FD_SET(fd, &wanted);
    return select(fd + 1, &wanted, NULL, NULL, &(struct timeval){0, PATIENCE_MS * 1000});
}

static int wait_by_pselect(int fd)
{
    fd_set wanted;

    FD_ZERO(&wanted);
    FD_SET(fd, &wanted);
    return pselect(fd + 1, NULL, NULL, &wanted, &(struct timespec){0, PATIENCE_MS * 1000000L},
                   NULL);
}

static int wait_by_syscall(int fd)
{
    struct pollfd wanted = {fd, POLLIN, 0};

    return (int)syscall(SYS_ppoll, &wanted, 1, &(struct timespec){0, PATIENCE_MS * 1000000L},
                        NULL, 0);
}

static int select_by_syscall(int fd)
{
    fd_set wanted;

    FD_ZERO(&wanted);
    FD_SET(fd, &wanted);
    return (int)syscall(SYS_pselect6, fd + 1, &wanted, NULL, NULL,
                        &(struct timespec){0, PATIENCE_MS * 1000000L}, NULL);
}

struct waiter {
    int (*wait)(int fd);
    int fd;
    int result;
    _Atomic pid_t tid;
};

static void *wait_for_it(void *argument)
{
    struct waiter *waiter = argument;

    waiter->tid = gettid();
    waiter->result = waiter->wait(waiter->fd);
    return NULL;
}

/* Another thread closes the fd, and the connection gets another user. The waiting thread must
 * not wake for that user's reply. */
static void no_thread_wakes(int (*wait)(int fd), long call, const char *reason)
{
    static struct waiter waiter;
    pthread_t thread;

    waiter.wait = wait;
    waiter.fd = dial_server();
    waiter.tid = 0;
    exchange(waiter.fd);
    cr_assert(pthread_create(&thread, NULL, wait_for_it, &waiter) == 0);
    while (waiter.tid == 0)
        sched_yield();
    wait_inside(waiter.tid, call);
    close(waiter.fd);
    EXPECT_EVENT(reason);
    cr_assert(dial_server() == waiter.fd);
    exchange(waiter.fd);
    pthread_join(thread, NULL);
    cr_expect(waiter.result == 0, "woken: %d", waiter.result);
    close(waiter.fd);
    EXPECT_KEPT();
}

#ifdef SYS_poll
#define POLL_CALL SYS_poll
#else
#define POLL_CALL SYS_ppoll
#endif

Test(threads, replies_of_others_wake_no_waiter, .timeout = 20)
{
    no_thread_wakes(wait_by_poll, POLL_CALL, ": not kept: IN_FLIGHT ");
    no_thread_wakes(wait_by_ppoll, SYS_ppoll, ": not kept: IN_FLIGHT ");
    no_thread_wakes(wait_by_select, SYS_pselect6, ": not kept: IN_FLIGHT ");
    no_thread_wakes(wait_by_pselect, SYS_pselect6, ": not kept: IN_FLIGHT ");
    no_thread_wakes(wait_by_syscall, SYS_ppoll, ": not kept: RAW_SYSCALL ");
    no_thread_wakes(select_by_syscall, SYS_pselect6, ": not kept: RAW_SYSCALL ");
}

/* A thread of libc waits in read(), which no hook sees. */
Test(threads, asynchronous_reads_take_no_reply_of_others, .timeout = 20)
{
    static char taken[64];
    struct aiocb block = {.aio_buf = taken, .aio_nbytes = sizeof(taken)};
    int fd = dial_server();

    exchange(fd);
    block.aio_fildes = fd;
    cr_assert(aio_read(&block) == 0);
    usleep(100000);
    close(fd);
    EXPECT_NOT_KEPT("UNTRACKED_IO");
    exchange(dial_server());
    cr_expect(aio_error(&block) == EINPROGRESS && taken[0] == '\0');
}

/* A quit or shutdown must wake the threads that wait for its end of file. */
Test(threads, a_quit_wakes_the_waiter, .timeout = 20)
{
    static struct waiter waiter = {.wait = wait_by_poll};
    pthread_t thread;

    waiter.fd = dial_server();
    exchange(waiter.fd);
    cr_assert(pthread_create(&thread, NULL, wait_for_it, &waiter) == 0);
    while (waiter.tid == 0)
        sched_yield();
    wait_inside(waiter.tid, POLL_CALL);
    cr_expect(shutdown(waiter.fd, SHUT_RDWR) == 0);
    pthread_join(thread, NULL);
    cr_expect(waiter.result == 1);
    close(waiter.fd);
}

static void *wait_and_be_cancelled(void *argument)
{
    wait_by_poll(*(int *)argument);
    return NULL;
}

Test(threads, cancelled_waits_leave_the_connection_as_it_was, .timeout = 60)
{
    int fd = dial_server();

    exchange(fd);
    for (int i = 0; i < 5000; i++) {
        pthread_t thread;

        cr_assert(pthread_create(&thread, NULL, wait_and_be_cancelled, &fd) == 0);
        pthread_cancel(thread);
        pthread_join(thread, NULL);
    }
    close(fd);
    EXPECT_KEPT();
}

/* More connections than the record of one poll() can hold: the rest are never pooled again. */
Test(threads, a_wait_for_very_many, .timeout = 20)
{
    enum { MANY = 140 };
    struct pollfd wanted[MANY];

    for (int i = 0; i < MANY; i++) {
        wanted[i] = (struct pollfd){dial_server(), POLLIN, 0};
        exchange(wanted[i].fd);
    }
    cr_expect(poll(wanted, MANY, 1) == 0);
    close(wanted[0].fd);
    EXPECT_KEPT();
    close(wanted[MANY - 1].fd);
    EXPECT_NOT_KEPT("IN_FLIGHT");
}

Test(threads, waits_with_bad_addresses_fail_as_ever, .timeout = 20)
{
    char *page = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    struct pollfd *half = (struct pollfd *)(page + 4096) - 1;
    void *volatile nowhere = (void *)8;
    volatile nfds_t too_many = ~(nfds_t)0 / 4;
    struct timeval moment = {0, 1000};

    not_under_asan(); /* whose own poll() looks at the memory */
    not_under_valgrind();
    exchange(dial_server());
    cr_assert(munmap(page + 4096, 4096) == 0);
    cr_expect(poll(nowhere, 1, 1) == -1 && errno == EFAULT);
    cr_expect(poll(half, 2, 1) == -1 && errno == EFAULT);
    cr_expect(poll(half, too_many, 1) == -1 && errno == EINVAL);
    cr_expect(select(64, nowhere, NULL, NULL, &moment) == -1 && errno == EFAULT);
    cr_expect(select(-1, NULL, NULL, NULL, &moment) == -1 && errno == EINVAL);
}

static sigjmp_buf before_the_call;

static void jump(int signal)
{
    (void)signal;
    siglongjmp(before_the_call, 1);
}

static void jump_out_of(void (*call)(int fd), int fd)
{
    struct itimerval soon = {{0, 0}, {0, 20000 * slowness()}};

    if (sigsetjmp(before_the_call, 1) == 0) {
        setitimer(ITIMER_REAL, &soon, NULL);
        call(fd);
        cr_assert(false, "the call returned");
    }
}

static void by_recv(int fd)
{
    recv(fd, &(char){0}, 1, 0);
}

static void by_poll(int fd)
{
    poll(&(struct pollfd){fd, POLLIN, 0}, 1, -1);
}

static struct sockaddr_in deaf;

static void by_connect(int fd)
{
    connect(fd, (struct sockaddr *)&deaf, sizeof(deaf));
}

/* After the jump the thread finds the list of cleanup handlers as the program left it. */
static void *jump_out_and_be_cancelled(void *fd)
{
    sigset_t alarm;

    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
    jump_out_of(by_recv, *(int *)fd);
    pthread_cancel(pthread_self());
    pthread_testcancel();
    return NULL;
}

Test(threads, handlers_that_jump_out_of_calls, .timeout = 20)
{
    int fd = dial_server();
    sigset_t alarm;
    pthread_t thread;
    void *result;

    signal(SIGALRM, jump);
    exchange(fd);
    jump_out_of(by_recv, fd);
    close(fd);
    EXPECT_NOT_KEPT("UNTRACKED_IO");
    fd = dial_server();
    exchange(fd);
    jump_out_of(by_poll, fd);
    close(fd);
    EXPECT_KEPT();
    fd = socket(AF_INET, SOCK_STREAM, 0);
    loopback(&deaf, deaf_server());
    jump_out_of(by_connect, fd);
    close(fd);
    EXPECT_NOT_KEPT("UNUSED");
    fd = dial_server();
    sigemptyset(&alarm);
    sigaddset(&alarm, SIGALRM);
    pthread_sigmask(SIG_BLOCK, &alarm, NULL);
    cr_assert(pthread_create(&thread, NULL, jump_out_and_be_cancelled, &fd) == 0);
    pthread_join(thread, &result);
    cr_expect(result == PTHREAD_CANCELED);
}

/* Jumps at random moments until one was out of the pool itself. No thread then waits for the
 * lock, and every connection is the program's own. */
Test(threads, handlers_that_jump_out_of_the_pool, .timeout = 120)
{
    volatile unsigned int turns = 0;
    pthread_t thread;
    unsigned int first = (unsigned int)dup(0);

    loopback(&server, server_port());
    signal(SIGALRM, jump);
    while (turns < 1000 ||
           (turns < 50000 && (turns % 100 != 0 || log_count("POOL_UNUSABLE ") == 0))) {
        struct itimerval soon = {{0, 0}, {0, 1 + turns % 100}};

        turns = turns + 1;
        if (sigsetjmp(before_the_call, 1) == 0) {
            setitimer(ITIMER_REAL, &soon, NULL);
            while (true)
                cycle(2, turns);
        }
        close_range(first, 1000, 0);
    }
    cr_expect(log_count("POOL_UNUSABLE ") > 0, "the pool was never met in %u turns", turns);
    signal(SIGALRM, SIG_IGN);
    cr_assert(pthread_create(&thread, NULL, many_cycles, (void *)1) == 0);
    pthread_join(thread, NULL);
    cr_expect(mismatches == 0, "%d of %d wrong", mismatches, cycles);
}
