/*
 * Waits that the library cuts into pieces in a process with several threads. One of them does
 * the work. The others may close what it waits for: the program sees what it sees when nothing
 * is cut, as a wait in the kernel goes on for the file that was there when it began.
 */
#include "alone.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* When the counters of this process were written last, by the clock of files. */
static double written(void)
{
    const char *directory = getenv("MCPOOL_STATS");
    struct stat found = {0};
    struct dirent *entry;
    char path[600], prefix[32];
    DIR *dir = opendir(directory);

    snprintf(prefix, sizeof(prefix), "%d-", getpid());
    while ((entry = readdir(dir))) {
        snprintf(path, sizeof(path), "%s/%s", directory, entry->d_name);
        if (strncmp(entry->d_name, prefix, strlen(prefix)) == 0)
            cr_assert(stat(path, &found) == 0);
    }
    closedir(dir);
    return (double)found.st_mtim.tv_sec + (double)found.st_mtim.tv_nsec / 1e9;
}

/* Counts something that is not written yet: it is due within a second and a bit. */
static double count(void)
{
    for (int i = 0; i < 3; i++)
        close(dial_server());
    return written();
}

static int ends[2];               /* of an empty pipe */
static int waited;                /* what is waited for */
static int (*make)(int readable); /* made it */

/* A test in a process that has no other threads than its own. BEFORE says where it is skipped.
 */
#define TEST_ALONE(name, before)                                                               \
    static void name(void);                                                                    \
    Test(waiters, name##_alone, .timeout = 60)                                                 \
    {                                                                                          \
        before;                                                                                \
        cr_assert(pipe(ends) == 0);                                                            \
        alone(name);                                                                           \
    }                                                                                          \
    static void name(void)

/* The waits for `waited`, of so many milliseconds. */

static int by_poll(int ms)
{
    struct pollfd fds[] = {{-1, POLLIN, 0}, {waited, POLLIN, 77}};
    int result = poll(fds, 2, ms);

    cr_expect(fds[0].fd == -1 && fds[0].revents == 0 && fds[1].fd == waited);
    cr_expect(result < 0 || (fds[1].revents != 0) == result, "%d %x", result, fds[1].revents);
    return result;
}

static int by_select(int ms)
{
    struct timeval timeout = {ms / 1000, ms % 1000 * 1000L};
    fd_set readable, none;
    int result;

    FD_ZERO(&none);
    FD_ZERO(&readable);
    FD_SET(waited, &readable);
    result = select(waited + 1, &readable, NULL, &none, ms < 0 ? NULL : &timeout);
    cr_expect(result < 0 || FD_ISSET(waited, &readable) == result);
    return result;
}

static int by_epoll_wait(int ms)
{
    struct epoll_event event = {0};
    int result = epoll_wait(waited, &event, 1, ms);

    return result == 1 ? event.data.u64 == 42 : result;
}

static int by_epoll_pwait2(int ms)
{
    struct timespec timeout = {ms / 1000, ms % 1000 * 1000000L};
    struct epoll_event event = {0};
    int result = epoll_pwait2(waited, &event, 1, ms < 0 ? NULL : &timeout, NULL);

    return result == 1 ? event.data.u64 == 42 : result;
}

/* What is waited for: a duplicate of the pipe's end, or an epoll set with it. */
static int make_fd(int readable)
{
    return dup(readable);
}

static int make_set(int readable)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 42}};
    int set = epoll_create1(EPOLL_CLOEXEC);

    cr_assert(epoll_ctl(set, EPOLL_CTL_ADD, readable, &event) == 0);
    return set;
}

static const struct {
    const char *name;
    int (*wait)(int ms);
    int (*make)(int readable);
} waits[] = {
    {"poll", by_poll, make_fd},
    {"select", by_select, make_fd},
    {"epoll_wait", by_epoll_wait, make_set},
    {"epoll_pwait2", by_epoll_pwait2, make_set},
};

#define WAITS   (sizeof(waits) / sizeof(waits[0]))
#define EACH(i) for (size_t i = 0; i < WAITS; i++)

/* A thread in a wait. */
struct waiting {
    pthread_t thread;
    size_t i;
    int ms;
    atomic_int result;
    atomic_int tid;
};

#define UNDECIDED 100

static void *wait_in_thread(void *argument)
{
    struct waiting *waiting = argument;

    atomic_store(&waiting->tid, gettid());
    atomic_store(&waiting->result, waits[waiting->i].wait(waiting->ms));
    return NULL;
}

static void begin(struct waiting *waiting, size_t i, int ms)
{
    waiting->i = i;
    waiting->ms = ms;
    atomic_store(&waiting->tid, 0);
    atomic_store(&waiting->result, UNDECIDED);
    cr_assert(pthread_create(&waiting->thread, NULL, wait_in_thread, waiting) == 0);
    while (atomic_load(&waiting->tid) == 0)
        usleep(1000);
    usleep(200000);
}

static void sleep_ms(int ms)
{
    usleep((useconds_t)ms * 1000);
}

/* Waits until the counters were written after BEFORE, at the end of a piece of a wait. */
static void wait_until_written(double before, const char *who)
{
    for (int i = 0; i < 100 && written() <= before; i++)
        sleep_ms(50);
    cr_assert(written() > before, "%s: nothing was written", who);
    sleep_ms(50);
}

/* Ways to close FD. Each returns what the program has at FD then, or -1. */

static int close_it(int fd)
{
    cr_assert(close(fd) == 0);
    return -1;
}

static int close_by_number(int fd)
{
    cr_assert(syscall(SYS_close, fd) == 0);
    return -1;
}

static int close_range_of_it(int fd)
{
    cr_assert(close_range((unsigned int)fd, (unsigned int)fd, 0) == 0);
    return -1;
}

static int close_stream(int fd)
{
    FILE *stream = fdopen(fd, "r");

    cr_assert(stream && fclose(stream) == 0);
    return -1;
}

/* Something readable is at FD afterwards, or an epoll set with an event. */
static int put_other_over(int fd)
{
    int full[2], other;

    cr_assert(pipe(full) == 0 && write(full[1], "y", 1) == 1);
    other = make == make_set ? make_set(full[0]) : full[0];
    cr_assert(dup2(other, fd) == fd);
    return fd;
}

static const struct {
    const char *name;
    int (*close)(int fd);
} ways[] = {
    {"close", close_it},      {"syscall", close_by_number}, {"close_range", close_range_of_it},
    {"dup2", put_other_over}, {"fclose", close_stream},
};

#define WAYS (sizeof(ways) / sizeof(ways[0]))

/* In one long wait the kernel looks at the number of the fd again when something happens to the
 * old file, and not before. Of a set it takes the events of the old one. */
static void close_during_wait(size_t i, size_t way)
{
    struct waiting waiting;
    char name[64], byte;
    double before;
    int left;

    if (ways[way].close == close_stream && waits[i].make == make_set)
        return;
    snprintf(name, sizeof(name), "%s, %s", waits[i].name, ways[way].name);
    make = waits[i].make;
    waited = make(ends[0]);
    before = count();
    begin(&waiting, i, 8000);
    left = ways[way].close(waited);
    wait_until_written(before, name);
    cr_expect(atomic_load(&waiting.result) == UNDECIDED, "%s: %d", name, waiting.result);
    cr_assert(write(ends[1], "x", 1) == 1);
    /* The time-out comes later. */
    for (int j = 0; j < 30 && waiting.result == UNDECIDED; j++)
        sleep_ms(100);
    cr_expect(waiting.result == 1, "%s: %d", name, waiting.result);
    pthread_join(waiting.thread, NULL);
    cr_assert(read(ends[0], &byte, 1) == 1);
    if (left >= 0)
        close(left);
}

#define CLOSE_TEST(number)                                                                     \
    TEST_ALONE(go_on_when_another_thread_closes_##number, needs_close_range())                 \
    {                                                                                          \
        for (size_t way = 0; way < WAYS; way++)                                                \
            close_during_wait(number, way);                                                    \
    }
CLOSE_TEST(0)
CLOSE_TEST(1)
CLOSE_TEST(2)
CLOSE_TEST(3)

/* The seconds for which THREAD had a processor. */
static double used_by(pthread_t thread)
{
    struct timespec used = {0};
    clockid_t clock;

    cr_assert(pthread_getcpuclockid(thread, &clock) == 0 && clock_gettime(clock, &used) == 0);
    return (double)used.tv_sec + (double)used.tv_nsec / 1e9;
}

/* Nor does a wait end early whose fd is another file by now, where nothing happens. It waits:
 * an event of the old file ends a piece once. */
TEST_ALONE(go_on_for_another_file_without_events, )
{
    EACH(i)
    {
        struct waiting waiting;
        double before;
        int empty[2];
        char byte;

        cr_assert(pipe(empty) == 0);
        waited = waits[i].make(ends[0]);
        before = count();
        begin(&waiting, i, 4000);
        cr_assert(dup2(waits[i].make == make_set ? make_set(empty[0]) : empty[0], waited) ==
                  waited);
        wait_until_written(before, waits[i].name);
        cr_assert(write(ends[1], "x", 1) == 1);
        sleep_ms(1500);
        if (waits[i].make == make_fd)
            cr_expect(used_by(waiting.thread) < 0.3 * slowness(), "%s", waits[i].name);
        pthread_join(waiting.thread, NULL);
        cr_expect(waiting.result == (waits[i].make == make_set), "%s: %d", waits[i].name,
                  waiting.result);
        cr_assert(read(ends[0], &byte, 1) == 1);
        close(waited);
    }
}

/* At its time-out the kernel looks at the number, too. Then the copy of the file is closed: the
 * other end of the pipe notices. */
TEST_ALONE(tell_at_the_end_what_was_closed, )
{
    for (size_t i = 0; i < 2; i++) {
        struct waiting waiting;
        struct pollfd writer;
        double before = count();
        int pair[2];

        cr_assert(pipe(pair) == 0);
        waited = pair[0];
        begin(&waiting, i, 3000);
        close(waited);
        wait_until_written(before, waits[i].name);
        cr_expect(atomic_load(&waiting.result) == UNDECIDED, "%s", waits[i].name);
        pthread_join(waiting.thread, NULL);
        cr_expect(waiting.result == 1, "%s: %d", waits[i].name, waiting.result);
        writer = (struct pollfd){pair[1], 0, 0};
        cr_expect(poll(&writer, 1, 0) == 1 && writer.revents & POLLERR, "%s", waits[i].name);
        close(pair[1]);
    }
}

/* A socket gets the number of an fd that was closed unseen. */
TEST_ALONE(do_not_wait_for_another_file, )
{
    for (size_t i = 0; i < 2; i++) {
        struct waiting waiting;
        double before = count();
        int hung_up;

        waited = waits[i].make(ends[0]);
        begin(&waiting, i, 3000);
        unseen(SYS_close, waited);
        hung_up = socket(AF_INET, SOCK_STREAM, 0); /* readable, as it is not connected */
        cr_assert(hung_up == waited);
        wait_until_written(before, waits[i].name);
        cr_expect(atomic_load(&waiting.result) == UNDECIDED, "%s: %d", waits[i].name,
                  waiting.result);
        pthread_join(waiting.thread, NULL);
        close(hung_up);
    }
}

/* A field of the status of the thread TID. */
static long status_of(int tid, const char *format)
{
    char path[64], line[128], state = 0;
    long value = -1;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/status", tid);
    file = fopen(path, "r");
    cr_assert(file != NULL);
    while (fgets(line, sizeof(line), file)) {
        if (strstr(format, "%c") && sscanf(line, format, &state) == 1)
            value = state;
        else if (!strstr(format, "%c"))
            sscanf(line, format, &value);
    }
    fclose(file);
    cr_assert(value >= 0);
    return value;
}

#define MANY 200

/* All must wait before the work is due, a second after the counters were written. */
static int many(void)
{
    return MANY / slowness();
}

/* How often the threads gave the processor away. */
static long switches(const struct waiting *waiting)
{
    long sum = 0;

    for (int i = 0; i < many(); i++)
        sum += status_of(waiting[i].tid, "voluntary_ctxt_switches: %ld");
    return sum;
}

/* How many wake up for the work. If the machine is so busy that the work is due before all of
 * them wait, the number means nothing: -1. */
static long wakeups(size_t i)
{
    static struct waiting waiting[MANY];
    double before;
    long woken;

    waited = waits[i].make(ends[0]);
    before = count();
    for (int j = 0; j < many(); j++) {
        waiting[j].i = i;
        waiting[j].ms = -1;
        atomic_store(&waiting[j].tid, 0);
        cr_assert(pthread_create(&waiting[j].thread, NULL, wait_in_thread, &waiting[j]) == 0);
    }
    for (int j = 0; j < many(); j++) {
        while (atomic_load(&waiting[j].tid) == 0 ||
               status_of(waiting[j].tid, "State: %c") != 'S')
            usleep(1000);
    }
    woken = -switches(waiting);
    if (written() > before)
        woken = LONG_MIN;
    wait_until_written(before, waits[i].name);
    sleep_ms(500);
    woken += switches(waiting);
    for (int j = 0; j < many(); j++)
        pthread_cancel(waiting[j].thread);
    for (int j = 0; j < many(); j++)
        pthread_join(waiting[j].thread, NULL);
    close(waited);
    return woken < 0 ? -1 : woken;
}

/* One thread wakes up for the work, however many wait. ASan does not notice that a cancelled
 * thread has left its frames. */
TEST_ALONE(one_wakes_up_for_the_work, not_under_asan())
{
    EACH(i)
    {
        long woken = -1;

        for (int tries = 0; tries < 5 && woken != 1; tries++)
            woken = wakeups(i);
        cr_expect(woken == 1, "%s: %ld", waits[i].name, woken);
    }
}

/* Ways in which the elected thread leaves its wait. */

static __thread sigjmp_buf back;

static void jump(int number)
{
    siglongjmp(back, number);
}

static void end_thread(int number)
{
    (void)number;
    pthread_exit(NULL);
}

static void end_thread_at_once(int number)
{
    (void)number;
    unseen(SYS_exit, 0);
}

static void *wait_and_jump(void *argument)
{
    struct waiting *waiting = argument;

    atomic_store(&waiting->tid, gettid());
    if (sigsetjmp(back, 1) == 0)
        waits[waiting->i].wait(-1);
    return NULL;
}

static void leave_by(void (*handler)(int number), size_t i)
{
    struct waiting waiting = {.i = i, .tid = 0};

    signal(SIGUSR1, handler);
    cr_assert(pthread_create(&waiting.thread, NULL, wait_and_jump, &waiting) == 0);
    while (atomic_load(&waiting.tid) == 0)
        usleep(1000);
    sleep_ms(200);
    if (handler)
        pthread_kill(waiting.thread, SIGUSR1);
    else
        pthread_cancel(waiting.thread);
    if (handler == end_thread_at_once)
        sleep_ms(2500); /* Only that it does not come back tells that the thread has ended. */
    else
        pthread_join(waiting.thread, NULL);
}

static void expect_another_elected(void (*handler)(int number), const char *how)
{
    EACH(i)
    {
        double before;

        waited = waits[i].make(ends[0]);
        count();
        leave_by(handler, i);
        before = count();
        cr_expect(waits[i].wait(1800) == 0, "%s", waits[i].name);
        cr_expect(written() > before, "%s: the work is not done after %s", waits[i].name, how);
        close(waited);
    }
}

TEST_ALONE(another_is_elected_after_a_jump, not_under_asan())
{
    expect_another_elected(jump, "a jump");
}

TEST_ALONE(another_is_elected_after_a_cancellation, not_under_asan())
{
    expect_another_elected(NULL, "a cancellation");
}

TEST_ALONE(another_is_elected_after_the_end_of_the_thread, not_under_asan())
{
    expect_another_elected(end_thread, "the end of the thread");
}

TEST_ALONE(another_is_elected_after_a_sudden_end_of_the_thread, not_under_asan())
{
    expect_another_elected(end_thread_at_once, "a sudden end of the thread");
}

/* Threads that share an epoll set get each event once. */

static int set;
static _Atomic unsigned long taken;
static atomic_bool stop;

static void *take_events(void *flags)
{
    struct epoll_event event;

    while (!atomic_load(&stop)) {
        uint64_t n = 0;

        if (epoll_wait(set, &event, 1, 10000) != 1)
            continue;
        while (read(event.data.fd, &n, sizeof(n)) == sizeof(n))
            taken += n;
        event.events = EPOLLIN | *(const uint32_t *)flags;
        if (event.events & EPOLLONESHOT)
            epoll_ctl(set, EPOLL_CTL_MOD, event.data.fd, &event);
    }
    return NULL;
}

#define TAKERS 4

static void share_a_set(uint32_t flags)
{
    pthread_t threads[TAKERS];
    unsigned long given = 0;
    uint64_t one = 1;
    int fds[3];

    set = epoll_create1(0);
    for (int i = 0; i < 3; i++) {
        struct epoll_event event = {EPOLLIN | flags, {.fd = eventfd(0, EFD_NONBLOCK)}};

        fds[i] = event.data.fd;
        cr_assert(epoll_ctl(set, EPOLL_CTL_ADD, fds[i], &event) == 0);
    }
    for (int i = 0; i < TAKERS; i++)
        cr_assert(pthread_create(&threads[i], NULL, take_events, &flags) == 0);
    for (int round = 0; round < 4; round++) {
        /* Around the moment at which the wait is cut. */
        count();
        sleep_ms(990);
        for (int i = 0; i < 300; i++, given++) {
            cr_assert(write(fds[i % 3], &one, sizeof(one)) == sizeof(one));
            usleep(100);
        }
    }
    for (int i = 0; i < 100 && taken < given; i++)
        sleep_ms(50);
    cr_expect(taken == given, "%lu of %lu", (unsigned long)taken, given);
    atomic_store(&stop, true);
    for (int i = 0; i < TAKERS * 100; i++) {
        cr_assert(write(fds[i % 3], &one, sizeof(one)) == sizeof(one));
        usleep(1000);
    }
    for (int i = 0; i < TAKERS; i++)
        pthread_join(threads[i], NULL);
}

TEST_ALONE(share_an_edge_triggered_set, )
{
    share_a_set(EPOLLET);
}

TEST_ALONE(share_a_one_shot_set, )
{
    share_a_set(EPOLLONESHOT);
}

/* An fd that a thread waits for is like any other for all calls. */
TEST_ALONE(leave_the_fd_as_it_is, )
{
    struct waiting waiting;
    struct sockaddr_in addr;
    int flags, value = 1, copy, port;
    socklen_t len = sizeof(value);
    struct epoll_event event = {EPOLLIN, {.fd = 0}};
    int other = epoll_create1(0);

    unseen(SYS_close, listen_here(&port)); /* the number is free again */
    waited = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    cr_assert(waited >= 0);
    cr_assert(bind(waited, (struct sockaddr *)loopback(&addr, 0), sizeof(addr)) == 0);
    cr_assert(listen(waited, 5) == 0);
    count();
    begin(&waiting, 0, 5000);
    cr_expect(listen(waited, 6) == 0);
    cr_expect((flags = fcntl(waited, F_GETFL)) >= 0 && fcntl(waited, F_SETFL, flags) == 0);
    cr_expect((copy = dup(waited)) >= 0 && close(copy) == 0);
    cr_expect((copy = fcntl(waited, F_DUPFD_CLOEXEC, 0)) >= 0 && close(copy) == 0);
    cr_expect(setsockopt(waited, SOL_SOCKET, SO_REUSEADDR, &value, sizeof(value)) == 0);
    cr_expect(getsockopt(waited, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) == 0 && value == 1);
    cr_expect(epoll_ctl(other, EPOLL_CTL_ADD, waited, &event) == 0);
    cr_expect(send(waited, "x", 1, MSG_NOSIGNAL) == -1 && errno == EPIPE);
    cr_expect(recv(waited, &value, 1, MSG_DONTWAIT) == -1 && errno == ENOTCONN);
    cr_expect(getsockname(waited, (struct sockaddr *)&addr, &len) == 0);
    len = sizeof(addr);
    cr_expect(getsockname(waited, (struct sockaddr *)&addr, &len) == 0);
    copy = dial(ntohs(addr.sin_port));
    pthread_join(waiting.thread, NULL);
    cr_expect(waiting.result == 1);
    cr_expect((copy = accept(waited, NULL, NULL)) >= 0 && close(copy) == 0);
    cr_expect(shutdown(waited, SHUT_RDWR) == 0 && close(waited) == 0);
    cr_expect(close(waited) == -1 && errno == EBADF);
}
