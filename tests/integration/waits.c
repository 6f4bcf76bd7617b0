/*
 * Waits that the library cuts in two so that it can write its counters. The program sees one
 * call, as long and as easy to interrupt as without us. Something is counted before each wait,
 * so that the library cuts it. Only in a process with one thread are waits cut, and Criterion's
 * has more. So most of this runs in a child, whose exit code is the result.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/single_threaded.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stats/stats_file.h"

static int ends[2]; /* reading end of an empty pipe */
static int set;     /* an epoll set with that end */

/* In a child Criterion's checks do not work. */
static int failures;

#undef cr_assert
#define cr_assert(condition)                                                                   \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);                    \
            _exit(1);                                                                          \
        }                                                                                      \
    } while (0)
#undef cr_expect
#define cr_expect(condition, ...)                                                              \
    do {                                                                                       \
        if (!(condition)) {                                                                    \
            fprintf(stderr, "%s:%d: %s: ", __FILE__, __LINE__, #condition);                    \
            fprintf(stderr, " " __VA_ARGS__);                                                  \
            fprintf(stderr, "\n");                                                             \
            failures++;                                                                        \
        }                                                                                      \
    } while (0)

static void alone(void (*body)(void))
{
    pid_t child = fork();

    if (child == 0) {
        body();
        _exit(failures > 0);
    }
    expect_good_end(child);
}

/* A test whose BODY runs in a process with one thread. */
#define TEST_ALONE(name)                                                                       \
    static void name(void);                                                                    \
    Test(waits, name##_alone, .timeout = 60)                                                   \
    {                                                                                          \
        alone(name);                                                                           \
    }                                                                                          \
    static void name(void)

/* What PID's file says of all servers together. */
static uint64_t connects_in_file_of(pid_t pid)
{
    static union {
        struct stats_header header;
        char bytes[65536];
    } file;
    const struct stats_slot *slots = (const void *)(&file.header + 1);
    const char *directory = getenv("MCPOOL_STATS");
    char path[600] = "", prefix[32];
    DIR *dir = opendir(directory);
    struct dirent *entry;
    uint64_t connects = 0;
    ssize_t n;
    int fd;

    snprintf(prefix, sizeof(prefix), "%d-", pid);
    while ((entry = readdir(dir))) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
    }
    closedir(dir);
    fd = open(path, O_RDONLY);
    cr_assert(fd >= 0);
    n = read(fd, file.bytes, sizeof(file.bytes));
    close(fd);
    for (size_t i = 0; STATS_FILE_SIZE(i + 1) <= (size_t)n; i++)
        connects += slots[i].stats.connects;
    return connects;
}

static uint64_t connects_in_file(void)
{
    return connects_in_file_of(getpid());
}

/* Some connects, the last of which are not in the file yet. */
static uint64_t count(void)
{
    static uint64_t connects;

    /* Only a process with one thread has its waits cut. This one has more threads, none of
     * which closes anything here. */
    __libc_single_threaded = 1;
    if (connects == 0) {
        struct epoll_event event = {EPOLLIN, {.fd = 0}};

        cr_assert(pipe(ends) == 0 && (set = epoll_create1(0)) >= 0);
        cr_assert(epoll_ctl(set, EPOLL_CTL_ADD, ends[0], &event) == 0);
        close(dial_server());
        connects = connects_in_file();
        cr_assert(connects > 0);
    }
    for (int i = 0; i < 3; i++, connects++)
        close(dial_server());
    return connects;
}

/* The calls. Each waits for the pipe for so many milliseconds, without end if negative. */

static struct timespec *spec(int ms)
{
    static struct timespec timeout;

    timeout = (struct timespec){ms / 1000, ms % 1000 * 1000000L};
    return ms < 0 ? NULL : &timeout;
}

static int by_poll(int ms)
{
    return poll(&(struct pollfd){ends[0], POLLIN, 0}, 1, ms);
}

static int by_ppoll(int ms)
{
    return ppoll(&(struct pollfd){ends[0], POLLIN, 0}, 1, spec(ms), NULL);
}

static int by_select(int ms)
{
    struct timeval timeout = {ms / 1000, ms % 1000 * 1000L};
    fd_set readable;
    int result;

    FD_ZERO(&readable);
    FD_SET(ends[0], &readable);
    result = select(ends[0] + 1, &readable, NULL, NULL, ms < 0 ? NULL : &timeout);
    cr_expect(result < 0 || FD_ISSET(ends[0], &readable) == result);
    return result;
}

static int by_pselect(int ms)
{
    fd_set readable;
    int result;

    FD_ZERO(&readable);
    FD_SET(ends[0], &readable);
    result = pselect(ends[0] + 1, &readable, NULL, NULL, spec(ms), NULL);
    cr_expect(result < 0 || FD_ISSET(ends[0], &readable) == result);
    return result;
}

static int by_epoll_wait(int ms)
{
    return epoll_wait(set, &(struct epoll_event){0}, 1, ms);
}

static int by_epoll_pwait(int ms)
{
    return epoll_pwait(set, &(struct epoll_event){0}, 1, ms, NULL);
}

static int by_epoll_pwait2(int ms)
{
    return epoll_pwait2(set, &(struct epoll_event){0}, 1, spec(ms), NULL);
}

static const struct {
    const char *name;
    int (*wait)(int ms);
} waits[] = {
    {"poll", by_poll},
    {"ppoll", by_ppoll},
    {"select", by_select},
    {"pselect", by_pselect},
    {"epoll_wait", by_epoll_wait},
    {"epoll_pwait", by_epoll_pwait},
    {"epoll_pwait2", by_epoll_pwait2},
};

#define EACH(i) for (size_t i = 0; i < sizeof(waits) / sizeof(waits[0]); i++)

static double now(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

TEST_ALONE(are_as_long_as_wanted)
{
    EACH(i)
    {
        uint64_t connects = count();
        double began = now(), took;

        cr_expect(waits[i].wait(1700) == 0, "%s", waits[i].name);
        took = now() - began;
        cr_expect(took >= 1.7 && took < 2.7, "%s took %f", waits[i].name, took);
        cr_expect(connects_in_file() == connects, "%s has nothing written", waits[i].name);
    }
}

/* Another process writes to the pipe after so many microseconds. */
static pid_t write_later(useconds_t after)
{
    pid_t writer = fork();

    if (writer != 0)
        return writer;
    usleep(after);
    _exit(write(ends[1], "x", 1) != 1);
}

/* The event comes in the first piece of the wait, and in the second. */
TEST_ALONE(end_with_the_event)
{
    static const useconds_t after[] = {200000, 1400000};

    EACH(i)
    {
        for (int j = 0; j < 2; j++) {
            pid_t writer;
            char byte;
            double began;

            count();
            began = now();
            writer = write_later(after[j]);
            cr_expect(waits[i].wait(j == 0 ? 10000 : -1) == 1, "%s", waits[i].name);
            cr_expect(now() - began < after[j] / 1e6 + 2);
            waitpid(writer, NULL, 0);
            cr_assert(read(ends[0], &byte, 1) == 1);
        }
    }
}

static void ignore(int number)
{
    (void)number;
}

/* And once more, because the wait may begin late on a busy machine. */
static void interrupt_after(useconds_t after)
{
    struct itimerval timer = {.it_value = {after / 1000000, after % 1000000},
                              .it_interval = {3, 0}};

    cr_assert(setitimer(ITIMER_REAL, &timer, NULL) == 0);
}

TEST_ALONE(end_with_a_signal)
{
    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore, .sa_flags = SA_RESTART}, NULL);
    EACH(i)
    {
        for (useconds_t after = 300000; after < 2000000; after += 1100000) {
            count();
            interrupt_after(after);
            cr_expect(waits[i].wait(after < 1000000 ? 10000 : -1) == -1 && errno == EINTR, "%s",
                      waits[i].name);
        }
    }
}

/* Signals without a handler interrupt nothing, in either piece. */
TEST_ALONE(do_not_end_with_an_ignored_signal)
{
    signal(SIGALRM, SIG_IGN);
    EACH(i)
    {
        count();
        interrupt_after(1005000);
        cr_expect(waits[i].wait(1300) == 0, "%s", waits[i].name);
    }
}

TEST_ALONE(of_select_tell_the_rest)
{
    struct timeval timeout = {5, 0};

    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore}, NULL);
    for (useconds_t after = 300000; after < 2000000; after += 1100000) {
        long left;

        count();
        timeout = (struct timeval){5, 0};
        interrupt_after(after);
        cr_expect(select(0, NULL, NULL, NULL, &timeout) == -1 && errno == EINTR);
        left = timeout.tv_sec * 1000000 + timeout.tv_usec;
        cr_expect(left < 5200000 - (long)after && left > 3000000 - (long)after, "%ld", left);
    }
    count();
    timeout = (struct timeval){1, 500000};
    cr_expect(select(0, NULL, NULL, NULL, &timeout) == 0);
    cr_expect(timeout.tv_sec == 0 && timeout.tv_usec == 0);
}

/* When the kernel does not report the remaining time, the library does not either; before glibc
 * 2.34 the kernel is asked to. */
TEST_ALONE(of_select_with_a_constant)
{
    struct timeval *timeout =
        mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    *timeout = (struct timeval){1, 500000};
    cr_assert(mprotect(timeout, 4096, PROT_READ) == 0);
    count();
    cr_expect(select(0, NULL, NULL, NULL, timeout) == 0);
    cr_expect(timeout->tv_sec == 1 && timeout->tv_usec == 500000);
}

static void give_bad_arguments(void)
{
    struct timespec late = {2, 1000000000};
    struct timeval odd = {2, -1};
    void *volatile bad = (void *)8;

    count();
    cr_expect(ppoll(NULL, 0, &late, NULL) == -1 && errno == EINVAL);
    cr_expect(pselect(0, NULL, NULL, NULL, &late, NULL) == -1 && errno == EINVAL);
    cr_expect(select(0, NULL, NULL, NULL, &odd) == -1 && errno == EINVAL);
    cr_expect(select(8, bad, NULL, NULL, NULL) == -1 && errno == EFAULT);
    cr_expect(select(-1, NULL, NULL, NULL, NULL) == -1 && errno == EINVAL);
    cr_expect(poll(bad, 1, -1) == -1 && errno == EFAULT);
    cr_expect(epoll_wait(-1, bad, 1, -1) == -1 && errno == EBADF);
}

Test(waits, with_bad_arguments, .timeout = 20)
{
    not_under_asan();
    not_under_valgrind();
    alone(give_bad_arguments);
}

static void *wait_for_ever(void *i)
{
    waits[*(size_t *)i].wait(-1);
    return NULL;
}

/* ASan does not notice that a cancelled thread has left its frames. */
Test(waits, can_be_cancelled, .timeout = 60)
{
    not_under_asan();
    EACH(i)
    {
        for (useconds_t after = 300000; after < 2000000; after += 1100000) {
            pthread_t thread;
            void *result;

            count();
            cr_assert(pthread_create(&thread, NULL, wait_for_ever, &i) == 0);
            usleep(after);
            pthread_cancel(thread);
            cr_assert(pthread_join(thread, &result) == 0 && result == PTHREAD_CANCELED);
        }
    }
}

/* The signal mask of ppoll() and its kin holds in both pieces. */
TEST_ALONE(with_a_mask)
{
    sigset_t blocked, none;

    sigemptyset(&none);
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGALRM);
    signal(SIGALRM, ignore);
    cr_assert(sigprocmask(SIG_BLOCK, &blocked, NULL) == 0);
    for (useconds_t after = 300000; after < 2000000; after += 700000) {
        count();
        interrupt_after(after);
        cr_expect(ppoll(NULL, 0, NULL, &none) == -1 && errno == EINTR);
        count();
        interrupt_after(after);
        cr_expect(pselect(0, NULL, NULL, NULL, NULL, &none) == -1 && errno == EINTR);
        count();
        interrupt_after(after);
        cr_expect(epoll_pwait(set, &(struct epoll_event){0}, 1, -1, &none) == -1 &&
                  errno == EINTR);
    }
}

static void *dial_later(void *port)
{
    usleep(100000);
    unseen(SYS_close, dial(*(int *)port));
    return NULL;
}

/* A sandbox may forbid every call that the library makes and the program does not. */
Test(waits, in_a_sandbox, .timeout = 30)
{
    pid_t child;

    count();
    child = fork();
    if (child == 0) {
        struct sock_filter filter[] = {
            BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_rt_sigprocmask, 3, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_openat, 2, 0),
            BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_pwrite64, 1, 0),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
            BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        };
        struct sock_fprog program = {sizeof(filter) / sizeof(filter[0]), filter};

        count();
        if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
            prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program) != 0)
            _exit(1);
        EACH(i)
        {
            if (waits[i].wait(1300) != 0)
                _exit(2);
        }
        close(dial_server());
        _exit(0);
    }
    expect_good_end(child);
}

/* accept() is not cut, so the counters are written before they are due. */
Test(waits, of_accept, .timeout = 20)
{
    int port, listener = listen_here(&port);
    uint64_t connects = count();
    pthread_t client;

    cr_assert(pthread_create(&client, NULL, dial_later, &port) == 0);
    close(accept(listener, NULL, NULL));
    pthread_join(client, NULL);
    cr_expect(connects_in_file() >= connects);
}

/* A child that ends without destructors has written everything it counted. The file is read
 * before the child is waited for. */
static void expect_all_written_by(void (*end)(int status))
{
    pid_t child = fork();
    siginfo_t info;

    if (child == 0)
        end((int)count());
    cr_assert(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT) == 0);
    cr_expect(info.si_status > 3 && connects_in_file_of(child) == (uint64_t)info.si_status,
              "%d, in the file %lu", info.si_status, (unsigned long)connects_in_file_of(child));
    waitpid(child, NULL, 0);
}

static void end_by_syscall(int status)
{
    syscall(SYS_exit_group, status);
}

Test(waits, none_at_the_end, .timeout = 20)
{
    static void (*const ways[])(int) = {_exit, _Exit, quick_exit, end_by_syscall};

    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++)
        expect_all_written_by(ways[i]);
}
