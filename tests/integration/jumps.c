/*
 * Signal handlers that jump out of a call at the moment of its real call. The thread is as it
 * would be without the library, and pooling goes on for other threads.
 */
#include "harness.h"

#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);
void closefrom(int first);

/* The low half of an argument, as a filter sees it on a little-endian machine. */
#define ARGUMENT(index) (offsetof(struct seccomp_data, args) + 8 * (index))

/* From here on the system call NR of this thread, with VALUE as its argument at INDEX, raises
 * SIGSYS instead of being made. The library does not see that there is a filter. */
static void trap(long nr, unsigned int index, int value)
{
    struct sock_filter filter[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)nr, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (unsigned int)ARGUMENT(index)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned int)value, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_TRAP),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

    cr_assert(unseen(SYS_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    cr_assert(unseen(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) == 0);
}

static _Thread_local sigjmp_buf before_the_call;

static void jump(int signal)
{
    (void)signal;
    siglongjmp(before_the_call, 1);
}

struct leaver {
    void (*call)(int fd);
    long nr;
    unsigned int index;
    int fd;
    bool left;
};

static void *leave_and_be_cancelled(void *argument)
{
    struct leaver *leaver = argument;

    trap(leaver->nr, leaver->index, leaver->fd);
    if (sigsetjmp(before_the_call, 1) == 0)
        leaver->call(leaver->fd);
    else
        leaver->left = true;
    pthread_cancel(pthread_self());
    pthread_testcancel();
    return NULL;
}

/* A signal handler jumps out of CALL(FD), whose system call NR has FD as its argument at INDEX.
 * The thread can still be cancelled afterwards. */
static void leave(void (*call)(int fd), long nr, unsigned int index, int fd)
{
    struct leaver leaver = {call, nr, index, fd, false};
    pthread_t thread;
    void *result;

    signal(SIGSYS, jump);
    cr_assert(pthread_create(&thread, NULL, leave_and_be_cancelled, &leaver) == 0);
    pthread_join(thread, &result);
    cr_expect(leaver.left, "the call returned");
    cr_expect(result == PTHREAD_CANCELED, "the thread cannot be cancelled any more");
}

static void expect_pooling(void)
{
    int port = park();
    int fd = dial_server();

    cr_expect(local_port(fd) == port);
    EXPECT_EVENT(": reused as ");
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
}

static void by_close(int fd)
{
    close(fd);
}

static void by_syscall(int fd)
{
    syscall(SYS_close, fd);
}

static void by_dup2(int fd)
{
    dup2(STDIN_FILENO, fd);
}

static void by_dup3(int fd)
{
    dup3(STDIN_FILENO, fd, O_CLOEXEC);
}

static void by_close_range(int fd)
{
    close_range((unsigned int)fd, (unsigned int)fd, 0);
}

/* The library gives the connection up. The kernel did not close the fd, which is still the
 * program's. */
static void leave_a_connection(void (*call)(int fd), long nr, unsigned int index)
{
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    leave(call, nr, index, fd);
    EXPECT_NOT_KEPT("ABANDONED");
    cr_expect(local_port(fd) == port);
    exchange(fd);
    cr_expect(close(fd) == 0);
    expect_pooling();
}

#ifdef SYS_dup2
#define DUP2_CALL SYS_dup2
#else
#define DUP2_CALL SYS_dup3
#endif

Test(threads, jumps_out_of_closing_a_connection, .timeout = 20)
{
    not_under_valgrind();
    leave_a_connection(by_close, SYS_close, 0);
    leave_a_connection(by_syscall, SYS_close, 0);
    leave_a_connection(by_dup2, DUP2_CALL, 1);
    leave_a_connection(by_dup3, SYS_dup3, 1);
}

/* The same for the close of a reused connection, which has a shadow fd already. */
Test(threads, jumps_out_of_closing_a_reused_connection, .timeout = 20)
{
    int fd;

    not_under_valgrind();
    park();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    exchange(fd);
    leave(by_close, SYS_close, 0, fd);
    EXPECT_NOT_KEPT("ABANDONED");
    exchange(fd);
    cr_expect(close(fd) == 0);
    expect_pooling();
}

/* Idle connections are closed whenever an identity is set, even to the same value. */
static void lose_idle_ones(void)
{
    cr_assert(setgid(getgid()) == 0);
}

/* A connection that the program opened itself gets a shadow fd at its close. */
static void expect_new_one_is_kept(void)
{
    int busy = dial_server(), fd = dial_server();

    exchange(busy);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    close(busy);
}

/* Pooling goes on, although this bulk close never returned. */
Test(threads, jumps_out_of_a_bulk_close, .timeout = 20)
{
    enum { NOTHING_THERE = 60000 };

    not_under_valgrind();
    expect_new_one_is_kept();
    leave(by_close_range, SYS_close_range, 0, NOTHING_THERE);
    lose_idle_ones();
    expect_new_one_is_kept();
    leave(closefrom, SYS_close_range, 0, NOTHING_THERE);
    lose_idle_ones();
    expect_new_one_is_kept();
}
