/*
 * Waits that the library cuts into pieces so that it can write its counters. The program sees
 * one call, as long and as easy to interrupt as without us. Something is counted before each
 * wait, so that the library cuts it. Criterion's process has several threads, so most of this
 * runs in a child, whose exit code is the result. What threads do to each other's waits is in
 * waiters.c.
 */
#include "alone.h"
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/single_threaded.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "stats/stats_file.h"

static int ends[2]; /* reading end of an empty pipe */
static int set;     /* an epoll set with that end */

static pid_t criterions; /* the process in which Criterion has threads */

static void note_process(void)
{
    criterions = getpid();
}

TestSuite(waits, .init = note_process, .fini = fail_if_any_failed);

/* Whether libc says that there are several threads. Then the waiting thread is elected. */
static bool among_threads;

/* A test that runs in a process with one thread, and once more as if there were several. */
#define TEST_ALONE(name)                                                                       \
    static void name(void);                                                                    \
    Test(waits, name##_alone, .timeout = 90)                                                   \
    {                                                                                          \
        alone(name);                                                                           \
    }                                                                                          \
    Test(waits, name##_among_threads, .timeout = 90)                                           \
    {                                                                                          \
        among_threads = true;                                                                  \
        alone(name);                                                                           \
    }                                                                                          \
    static void name(void)

static int open_file_of(pid_t pid)
{
    const char *directory = getenv("MCPOOL_STATS");
    char path[600] = "", prefix[32];
    DIR *dir = opendir(directory);
    struct dirent *entry;

    snprintf(prefix, sizeof(prefix), "%d-", pid);
    while ((entry = readdir(dir))) {
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
    }
    closedir(dir);
    return open(path, O_RDONLY);
}

/* What PID's file says of all servers together. */
static uint64_t connects_in_file_of(pid_t pid)
{
    static union {
        struct stats_header header;
        char bytes[65536];
    } file;
    const struct stats_slot *slots = (const void *)(&file.header + 1);
    uint64_t connects = 0;
    ssize_t n;
    int fd = open_file_of(pid);

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

    /* Not where there are other threads: on arm64 libc would wake none that waits for a lock.
     */
    if (getpid() != criterions)
        __libc_single_threaded = !among_threads;
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

/* Other names of the same functions; programs built with _FORTIFY_SOURCE call the latter two.
 */
int __poll(struct pollfd *fds, nfds_t n, int timeout);
int __select(int n, fd_set *readable, fd_set *writable, fd_set *except,
             struct timeval *timeout);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                const sigset_t *mask, size_t room);

static int by___poll(int ms)
{
    return __poll(&(struct pollfd){ends[0], POLLIN, 0}, 1, ms);
}

static int by___poll_chk(int ms)
{
    return __poll_chk(&(struct pollfd){ends[0], POLLIN, 0}, 1, ms, sizeof(struct pollfd));
}

static int by___ppoll_chk(int ms)
{
    return __ppoll_chk(&(struct pollfd){ends[0], POLLIN, 0}, 1, spec(ms), NULL,
                       sizeof(struct pollfd));
}

static int by___select(int ms)
{
    struct timeval timeout = {ms / 1000, ms % 1000 * 1000L};
    fd_set readable;

    FD_ZERO(&readable);
    FD_SET(ends[0], &readable);
    return __select(ends[0] + 1, &readable, NULL, NULL, ms < 0 ? NULL : &timeout);
}

static const struct {
    const char *name;
    int (*wait)(int ms);
} waits[] = {
    {"poll", by_poll},
    {"__poll", by___poll},
    {"__poll_chk", by___poll_chk},
    {"__ppoll_chk", by___ppoll_chk},
    {"__select", by___select},
    {"ppoll", by_ppoll},
    {"select", by_select},
    {"pselect", by_pselect},
    {"epoll_wait", by_epoll_wait},
    {"epoll_pwait", by_epoll_pwait},
    {"epoll_pwait2", by_epoll_pwait2},
};

#define WAITS   (sizeof(waits) / sizeof(waits[0]))
#define EACH(i) for (size_t i = 0; i < WAITS; i++)

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
        cr_expect(took >= 1.7 && took < 1.7 + slowness(), "%s took %f", waits[i].name, took);
        cr_expect(connects_in_file() == connects, "%s has nothing written", waits[i].name);
    }
}

/* A time-out of zero asks, and does not wait. */
TEST_ALONE(of_zero_only_ask)
{
    char byte;

    EACH(i)
    {
        double began = now();

        count();
        cr_expect(waits[i].wait(0) == 0, "%s", waits[i].name);
        cr_assert(write(ends[1], "x", 1) == 1);
        cr_expect(waits[i].wait(0) == 1, "%s", waits[i].name);
        cr_assert(read(ends[0], &byte, 1) == 1);
        cr_expect(now() - began < slowness(), "%s", waits[i].name);
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
            cr_expect(now() - began < after[j] / 1e6 + 2 * slowness());
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

/* So long that a count of nanoseconds would not hold it. */
TEST_ALONE(of_ages)
{
    struct timeval timeout = {INT64_C(1) << 40, 999999};
    struct timespec spec = {INT64_MAX, 999999999};

    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore}, NULL);
    count();
    interrupt_after(1300000);
    cr_expect(select(0, NULL, NULL, NULL, &timeout) == -1 && errno == EINTR);
    cr_expect(timeout.tv_sec == (INT64_C(1) << 40) - 1 ||
                  timeout.tv_sec == (INT64_C(1) << 40) - 2,
              "%ld", (long)timeout.tv_sec);
    count();
    interrupt_after(1300000);
    cr_expect(ppoll(NULL, 0, &spec, NULL) == -1 && errno == EINTR);
    count();
    interrupt_after(1300000);
    cr_expect(pselect(0, NULL, NULL, NULL, &spec, NULL) == -1 && errno == EINTR);
    count();
    interrupt_after(1300000);
    cr_expect(poll(NULL, 0, INT32_MAX) == -1 && errno == EINTR);
    count();
    interrupt_after(1300000);
    cr_expect(epoll_wait(set, &(struct epoll_event){0}, 1, INT32_MAX) == -1 && errno == EINTR);
}

static atomic_bool stop;

static void *count_on(void *unused)
{
    while (!atomic_load(&stop)) {
        close(dial_server());
        usleep(500);
    }
    return unused;
}

static long switches(void)
{
    struct rusage usage;

    getrusage(RUSAGE_THREAD, &usage);
    return usage.ru_nvcsw;
}

/* There is always more to write, so the wait has a piece for each second. Not so if the wait
 * has just written everything itself at the end of a piece, so it is tried until it has. */
Test(waits, have_as_many_pieces_as_there_is_work, .timeout = 120)
{
    pthread_t thread;

    count();
    cr_assert(pthread_create(&thread, NULL, count_on, NULL) == 0);
    EACH(i)
    {
        long pieces = 0;

        for (int tries = 0; tries < 5 * slowness() && pieces < 3; tries++) {
            pieces = -switches();
            cr_expect(waits[i].wait(3500) == 0, "%s", waits[i].name);
            pieces += switches();
        }
        cr_expect(pieces >= 3, "%s has %ld", waits[i].name, pieces);
    }
    atomic_store(&stop, true);
    pthread_join(thread, NULL);
}

static volatile sig_atomic_t is_waiting, came_during_wait;

static void note(int number)
{
    (void)number;
    came_during_wait = is_waiting;
}

/* When the counters were written last, by the clock of files. */
static double written(void)
{
    struct stat found;
    int fd = open_file_of(getpid());

    cr_assert(fstat(fd, &found) == 0);
    close(fd);
    return (double)found.st_mtim.tv_sec + (double)found.st_mtim.tv_nsec / 1e9;
}

static double time_of_files(void)
{
    struct timespec time;

    clock_gettime(CLOCK_REALTIME, &time);
    return (double)time.tv_sec + (double)time.tv_nsec / 1e9;
}

#define CHILDREN 125
#define ROUNDS   12

/* Signals that come close to the moment between two pieces, which is a second and a bit after
 * the counters were written. */
static void be_interrupted_between_pieces(void)
{
    int unnoticed = 0;

    sigaction(SIGALRM, &(struct sigaction){.sa_handler = note, .sa_flags = SA_RESTART}, NULL);
    srand((unsigned int)getpid());
    for (int i = 0; i < ROUNDS; i++) {
        const double spread = 6e-3 * rand() / RAND_MAX - 3e-3;
        struct itimerval timer = {0};
        double after;
        int result;

        count();
        waits[(size_t)i % WAITS].wait(1200);
        count();
        after = written() + 1.011 + spread - time_of_files();
        timer.it_value.tv_usec = (suseconds_t)(after * 1e6);
        if (after <= 0.01 || after >= 1)
            continue;
        came_during_wait = 0;
        is_waiting = 1;
        cr_assert(setitimer(ITIMER_REAL, &timer, NULL) == 0);
        result = waits[(size_t)i % WAITS].wait(2500);
        is_waiting = 0;
        unnoticed += came_during_wait && result == 0;
    }
    _exit(failures > 0 ? 100 : unnoticed);
}

Test(waits, end_with_a_signal_between_the_pieces, .timeout = 120)
{
    pid_t children[CHILDREN];
    int unnoticed = 0;

    for (int i = 0; i < CHILDREN; i++) {
        children[i] = fork();
        if (children[i] == 0)
            be_interrupted_between_pieces();
    }
    for (int i = 0; i < CHILDREN; i++) {
        int status = -1;

        waitpid(children[i], &status, 0);
        cr_assert(WIFEXITED(status) && WEXITSTATUS(status) <= ROUNDS);
        unnoticed += WEXITSTATUS(status);
    }
    /* A handler may also run before the wait has begun. */
    cr_expect(unnoticed <= 2 * slowness(), "%d handlers ran and the wait went on", unnoticed);
}

static sigjmp_buf back;

static void jump(int number)
{
    siglongjmp(back, number);
}

static void expect_mask(const sigset_t *wanted)
{
    sigset_t mask;

    sigprocmask(SIG_BLOCK, NULL, &mask);
    for (int number = 1; number < 32; number++)
        cr_expect(sigismember(&mask, number) == sigismember(wanted, number), "%d", number);
}

/* A jump out of a wait leaves the signals as the kernel leaves them for the handler. */
TEST_ALONE(can_be_left_by_a_jump)
{
    sigset_t wanted;

    sigaction(SIGALRM, &(struct sigaction){.sa_handler = jump}, NULL);
    EACH(i)
    {
        for (useconds_t after = 300000; after < 2000000; after += 1100000) {
            sigemptyset(&wanted);
            sigaddset(&wanted, SIGUSR2);
            cr_assert(sigprocmask(SIG_SETMASK, &wanted, NULL) == 0);
            count();
            if (sigsetjmp(back, 0) == 0) {
                interrupt_after(after);
                waits[i].wait(-1);
                cr_expect(false, "%s has returned", waits[i].name);
            }
            sigaddset(&wanted, SIGALRM);
            expect_mask(&wanted);
        }
    }
}

/* After each way a wait can end the signals are those of before. */
TEST_ALONE(keep_the_mask)
{
    sigset_t wanted;

    sigaction(SIGALRM, &(struct sigaction){.sa_handler = ignore}, NULL);
    sigemptyset(&wanted);
    sigaddset(&wanted, SIGUSR2);
    cr_assert(sigprocmask(SIG_SETMASK, &wanted, NULL) == 0);
    EACH(i)
    {
        count();
        cr_expect(waits[i].wait(1100) == 0);
        expect_mask(&wanted);
        count();
        interrupt_after(1200000);
        cr_expect(waits[i].wait(-1) == -1);
        expect_mask(&wanted);
    }
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

static sigset_t mask_at_the_end;

static void note_mask(void *unused)
{
    (void)unused;
    pthread_sigmask(SIG_BLOCK, NULL, &mask_at_the_end);
}

static void *wait_for_ever(void *i)
{
    pthread_cleanup_push(note_mask, NULL);
    waits[*(size_t *)i].wait(-1);
    pthread_cleanup_pop(0);
    return NULL;
}

/* ASan does not notice that a cancelled thread has left its frames. */
static void cancel_each(void)
{
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
            cr_expect(!sigismember(&mask_at_the_end, SIGUSR1), "%s", waits[i].name);
        }
    }
}

Test(waits, can_be_cancelled, .timeout = 120)
{
    not_under_asan();
    cancel_each();
}

Test(waits, can_be_cancelled_among_threads, .timeout = 120)
{
    not_under_asan();
    among_threads = true;
    cancel_each();
}

static void *wait_for_ever_asynchronously(void *i)
{
    pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, NULL);
    return wait_for_ever(i);
}

/* The thread may get the event before it is cancelled, or not. Without the library too. */
static void wake_up_and_cancel(void *(*body)(void *))
{
    EACH(i)
    {
        for (int round = 0; round < 10; round++) {
            pthread_t thread;
            char byte;

            count();
            cr_assert(pthread_create(&thread, NULL, body, &i) == 0);
            usleep(20000);
            cr_assert(write(ends[1], "x", 1) == 1);
            pthread_cancel(thread);
            cr_assert(pthread_join(thread, NULL) == 0);
            cr_expect(!sigismember(&mask_at_the_end, SIGUSR1), "%s", waits[i].name);
            cr_assert(read(ends[0], &byte, 1) == 1);
        }
    }
}

Test(waits, can_be_cancelled_when_they_end, .timeout = 60)
{
    not_under_asan();
    wake_up_and_cancel(wait_for_ever);
}

Test(waits, can_be_cancelled_when_they_end_among_threads, .timeout = 60)
{
    not_under_asan();
    among_threads = true;
    wake_up_and_cancel(wait_for_ever);
}

Test(waits, can_be_cancelled_asynchronously, .timeout = 60)
{
    not_under_asan();
    wake_up_and_cancel(wait_for_ever_asynchronously);
}

/* Sets of which one can be written and another cannot. */
static void select_what_is_read_only(void)
{
    fd_set *readable = mmap(NULL, sizeof(*readable), PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    fd_set writable;

    cr_assert(readable != MAP_FAILED);
    count();
    FD_ZERO(&writable);
    FD_SET(ends[0], readable);
    FD_SET(ends[0], &writable);
    cr_assert(mprotect(readable, sizeof(*readable), PROT_READ) == 0);
    cr_assert(write(ends[1], "x", 1) == 1);
    cr_expect(select(ends[0] + 1, readable, NULL, NULL, NULL) == -1 && errno == EFAULT);
    cr_expect(select(ends[0] + 1, &writable, readable, NULL, NULL) == -1 && errno == EFAULT);
    cr_expect(pselect(ends[0] + 1, readable, NULL, NULL, NULL, NULL) == -1 && errno == EFAULT);
    cr_expect(FD_ISSET(ends[0], readable));
}

Test(waits, with_sets_that_cannot_be_written, .timeout = 20)
{
    not_under_asan();
    not_under_valgrind();
    alone(select_what_is_read_only);
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
static void enter_a_sandbox_and_wait(void)
{
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
}

Test(waits, in_a_sandbox, .timeout = 30)
{
    alone(enter_a_sandbox_and_wait);
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
