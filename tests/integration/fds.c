/*
 * Fds: an application gets the same ones as without us.
 */
#include "harness.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);
void closefrom(int first);

Test(fds, lowest_free_fd_after_close, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    cr_expect(open("/dev/null", O_RDONLY) == fd);
    cr_expect(dial_server() == fd + 1);
    EXPECT_EVENT(": reused as ");
}

Test(fds, standard_input_can_be_a_connection, .timeout = 20)
{
    close(0);
    cr_expect(dial_server() == 0);
    exchange(0);
    cr_expect(close(0) == 0);
    EXPECT_KEPT();
    cr_expect(open("/dev/null", O_RDONLY) == 0);
}

Test(fds, every_call_says_ebadf_after_close, .timeout = 20)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    struct pollfd poller = {-1, POLLIN, 0};
    struct sockaddr_in addr;
    struct iovec iov = {"x", 1};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    char byte;
    int on = 1;
    int epfd = epoll_create1(0);
    int fd = dial_server();

    exchange(fd);
    close(fd);
    EXPECT_KEPT();
#define EXPECT_EBADF(call)                                                                     \
    errno = 0;                                                                                 \
    cr_expect((call) == -1 && errno == EBADF, #call)
    EXPECT_EBADF(close(fd));
    EXPECT_EBADF(syscall(SYS_close, fd));
    EXPECT_EBADF(send(fd, "x", 1, 0));
    EXPECT_EBADF(write(fd, "x", 1));
    EXPECT_EBADF(writev(fd, &iov, 1));
    EXPECT_EBADF(sendmsg(fd, &msg, 0));
    EXPECT_EBADF(recv(fd, &byte, 1, 0));
    EXPECT_EBADF(read(fd, &byte, 1));
    EXPECT_EBADF(readv(fd, &iov, 1));
    EXPECT_EBADF(recvmsg(fd, &msg, 0));
    EXPECT_EBADF(shutdown(fd, SHUT_RDWR));
    EXPECT_EBADF(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
    EXPECT_EBADF(connect(fd, (struct sockaddr *)loopback(&addr, 1), sizeof(addr)));
    EXPECT_EBADF(fcntl(fd, F_GETFL));
    EXPECT_EBADF(fcntl(fd, F_DUPFD, 0));
    EXPECT_EBADF(ioctl(fd, FIONREAD, &on));
    EXPECT_EBADF(dup(fd));
    EXPECT_EBADF(dup2(fd, 100));
    EXPECT_EBADF(dup3(fd, 100, 0));
    EXPECT_EBADF(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
    poller.fd = fd;
    cr_expect(poll(&poller, 1, 0) == 1 && poller.revents == POLLNVAL);
}

Test(fds, idle_connections_end_with_exec, .timeout = 20)
{
    park();
    cr_expect(unseen(SYS_fcntl, shadow_fd(), F_GETFD) == FD_CLOEXEC);
}

/* For how many fds the kernel's table of this process has room. */
static int table_size(void)
{
    FILE *file = fopen("/proc/self/status", "r");
    char line[256];
    int size = 0;

    cr_assert(file != NULL);
    while (fgets(line, sizeof(line), file))
        sscanf(line, "FDSize: %d", &size);
    fclose(file);
    return size;
}

/* fork() copies the table up to the highest fd. */
Test(fds, an_idle_connection_fits_in_the_table, .timeout = 20)
{
    int before = table_size();
    int port = park();

    cr_expect(table_size() == before, "the table of %d has %d entries now", before,
              table_size());
    cr_expect(park() == port);
    cr_expect(table_size() == before);
}

/* A program's fds grow from the bottom of the table. When they reach the top quarter, where
 * shadow fds are, these are closed, and new ones are made in the next larger table. */
static void come_near(int (*get)(void))
{
    int fd, port, next;

    not_under_valgrind();
    park();
    fd = shadow_fd();
    cr_expect(fd >= LOWEST_PRIVATE && fd < 64);
    while ((next = get()) < LOWEST_PRIVATE)
        cr_assert(next > 0 && log_count("discarded") == 0);
    EXPECT_EVENT(": discarded: FD_PRESSURE ");
    cr_expect(unseen(SYS_fcntl, fd, F_GETFD) == -EBADF);
    port = park();
    for (int expected = next + 1; expected < 90; expected++)
        cr_expect(open("/dev/null", O_RDONLY) == expected);
    cr_expect(park() == port);
    cr_expect(unseen(SYS_fcntl, 128 - 4, F_GETFD) == FD_CLOEXEC);
}

static int another_duplicate(void)
{
    return dup(0);
}

static int another_socket(void)
{
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int another_epoll_set(void)
{
    return epoll_create1(0);
}

/* By a client that the library does not see and that ends at once. */
static int another_accepted(void)
{
    static int listener = -1, port;
    struct sockaddr_in addr;
    long client;

    if (listener < 0)
        listener = listen_here(&port);
    client = unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    cr_assert(unseen(SYS_connect, client, loopback(&addr, port), sizeof(addr)) == 0);
    unseen(SYS_close, client);
    return accept4(listener, NULL, NULL, 0);
}

Test(fds, duplicates_come_near, .timeout = 20)
{
    come_near(another_duplicate);
}

Test(fds, sockets_come_near, .timeout = 20)
{
    come_near(another_socket);
}

Test(fds, epoll_sets_come_near, .timeout = 20)
{
    come_near(another_epoll_set);
}

Test(fds, accepted_ones_come_near, .timeout = 20)
{
    come_near(another_accepted);
}

/* Fds opened by calls that are not hooked are noticed when the next connection is kept. */
Test(fds, files_come_near, .timeout = 20)
{
    int port, fd;

    while ((fd = open("/dev/null", O_RDONLY)) < 62)
        cr_assert(fd > 0);
    port = park();
    cr_expect(open("/dev/null", O_RDONLY) == 63);
    cr_expect(open("/dev/null", O_RDONLY) == 64);
    cr_expect(open("/dev/null", O_RDONLY) == 65);
    cr_expect(park() == port);
}

/* Many connections get the room they need and no more. */
Test(fds, tables_for_a_crowd, .timeout = 20)
{
    static const struct {
        int connections, room;
    } crowds[] = {{8, 64}, {20, 128}, {50, 256}};

    for (size_t i = 0; i < 3; i++) {
        int fds[64], before, most = 0;

        for (int n = 0; n < crowds[i].connections; n++)
            exchange(fds[n] = dial_server());
        for (int n = 0; n < crowds[i].connections; n++)
            close(fds[n]);
        before = log_count(": kept");
        cr_expect(before > 0);
        for (int fd = 0; fd < 8192; fd++)
            most = unseen(SYS_fcntl, fd, F_GETFD) >= 0 ? fd : most;
        cr_expect(most < crowds[i].room, "%d for %d", most, crowds[i].connections);
    }
}

/* A shadow fd never was the application's. A close() of it works, and fails with EBADF. */
Test(fds, close_loop_over_idle_connections, .timeout = 20)
{
    int shadow;

    park();
    shadow = shadow_fd();
    errno = 0;
    cr_expect(close(shadow) == -1 && errno == EBADF);
    EXPECT_EVENT(": discarded: CLOSED_IN_BULK ");
    cr_expect(unseen(SYS_fcntl, shadow, F_GETFD) == -EBADF);
    park();
    for (shadow = LOWEST_PRIVATE; shadow < 20000; shadow++)
        cr_expect(close(shadow) == -1 && errno == EBADF);
    cr_expect(log_count("discarded: CLOSED_IN_BULK") == 2);
    park();
}

Test(fds, close_range_over_idle_and_used, .timeout = 20)
{
    int used;

    needs_close_range();
    park();
    used = dial_server();
    exchange(used);
    park();
    cr_assert(close_range(LOWEST_PRIVATE, ~0U, 4 /* CLOSE_RANGE_CLOEXEC */) == 0);
    exchange(dial_server());
    park();
    cr_assert(close_range(LOWEST_PRIVATE, ~0U, 0) == 0);
    EXPECT_EVENT(": discarded: CLOSED_IN_BULK ");
    cr_assert(close_range((unsigned int)used, (unsigned int)used, 0) == 0);
    EXPECT_NOT_KEPT("CLOSED_IN_BULK");
    cr_expect(dial_server() == used);
    exchange(used);
}

Test(fds, closefrom_closes_in_bulk, .timeout = 20)
{
    park();
    closefrom(LOWEST_PRIVATE);
    EXPECT_EVENT(": discarded: CLOSED_IN_BULK ");
    park();
}

/* As Java's NIO does: a dup2() over the connection's fd closes it. */
Test(fds, dup2_over_a_connection_is_a_check_in, .timeout = 20)
{
    int null = open("/dev/null", O_RDWR);
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    cr_assert(dup2(null, fd) == fd);
    EXPECT_KEPT();
    cr_expect(write(fd, "x", 1) == 1);
    close(fd);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
    cr_assert(dup3(null, fd, O_CLOEXEC) == fd);
    EXPECT_KEPT();
    errno = 0;
    cr_expect(dup2(-1, fd) == -1 && errno == EBADF);
}

Test(fds, dup2_that_fails_closes_nothing, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    cr_expect(dup2(-1, fd) == -1 && errno == EBADF);
    cr_expect(dup2(fd, fd) == fd);
    cr_expect(log_count(": kept") == 0, "the program still has it");
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
}

/* The same where the kernel refuses the call for another reason than its first fd. */
Test(fds, dup_that_is_refused_closes_nothing, .timeout = 20)
{
    struct rlimit before, limit;
    int null = open("/dev/null", O_RDWR);
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    errno = 0;
    cr_expect(dup3(null, fd, O_CLOEXEC | O_APPEND) == -1 && errno == EINVAL);
    cr_expect(local_port(dial_server()) != port, "the program still has it");
    cr_assert(getrlimit(RLIMIT_NOFILE, &before) == 0);
    limit = (struct rlimit){(rlim_t)fd, before.rlim_max};
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    errno = 0;
    cr_expect(dup2(null, fd) == -1 && errno == EBADF);
    cr_assert(setrlimit(RLIMIT_NOFILE, &before) == 0);
    cr_expect(local_port(dial_server()) != port, "the program still has it");
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
}

Test(fds, dup2_over_a_shadow_fd, .timeout = 20)
{
    int null = open("/dev/null", O_RDWR);
    int shadow;

    park();
    shadow = shadow_fd();
    cr_assert(dup2(null, shadow) == shadow);
    EXPECT_EVENT(": discarded: CLOSED_IN_BULK ");
    cr_expect(write(shadow, "x", 1) == 1);
    park();
    cr_expect(write(shadow, "x", 1) == 1, "the program's own number was touched");
    cr_expect(close(shadow) == 0);
}

int __connect(int fd, const struct sockaddr *addr, socklen_t len);
ssize_t __read(int fd, void *bytes, size_t n);
ssize_t __write(int fd, const void *bytes, size_t n);
int __fcntl(int fd, int command, ...);
int __dup2(int fd, int to);
int __close(int fd);

/* The second name under which libc exports a function is hooked too. No new program for aarch64
 * can be linked with __send, which older ones have. */
Test(fds, second_names, .timeout = 20)
{
    ssize_t (*second_send)(int, const void *, size_t, int) = NULL;
    struct sockaddr_in addr;
    int null = open("/dev/null", O_RDWR);
    int port = park();
    char answer[5];

    *(void **)&second_send = dlsym(RTLD_DEFAULT, "__send");
    cr_assert(second_send != NULL);
    for (int i = 0; i < 4; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        cr_assert(__connect(fd, (struct sockaddr *)loopback(&addr, server_port()),
                            sizeof(addr)) == 0);
        cr_expect(local_port(fd) == port);
        cr_assert((i % 2 ? second_send(fd, "get nothing\r\n", 13, 0)
                         : __write(fd, "get nothing\r\n", 13)) == 13);
        for (size_t n = 0; n < sizeof(answer);)
            n += (size_t)__read(fd, answer + n, sizeof(answer) - n);
        if (i == 3)
            __fcntl(fd, F_SETOWN, getpid());
        if (i == 2)
            __dup2(null, fd);
        __close(fd);
        EXPECT_EVENT(i == 3 ? ": not kept: ODD_FLAGS " : ": kept");
    }
}

Test(fds, duplicates_get_the_fds_asked_for, .timeout = 20)
{
    int null = open("/dev/null", O_RDWR);
    int fd = dial_server();
    long lowest, next;

    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    lowest = unseen(SYS_dup, null);
    next = unseen(SYS_dup, null);
    unseen(SYS_close, lowest);
    unseen(SYS_close, next);
    cr_expect(dup(null) == lowest);
    cr_expect(fcntl(null, F_DUPFD, 0) == next);
    cr_expect(fcntl(null, F_DUPFD_CLOEXEC, 300) == 300);
    cr_expect(fcntl(null, F_DUPFD, 300) == 301);
}

/* A shadow fd is at the lowest free fd from there on. */
Test(fds, duplicates_from_a_shadow_fd_on, .timeout = 20)
{
    static const int commands[] = {F_DUPFD, F_DUPFD_CLOEXEC};

    for (int i = 0; i < 2; i++) {
        int fd, port;

        park();
        fd = shadow_fd();
        cr_expect(fcntl(0, commands[i], fd) == fd);
        EXPECT_EVENT(": discarded: FD_PRESSURE ");
        cr_expect(fcntl(fd, F_GETFD) == (i == 0 ? 0 : FD_CLOEXEC));
        port = park();
        cr_expect(park() == port);
        cr_expect(close(fd) == 0);
        cr_expect(fcntl(0, commands[i], fd - 1) == fd - 1);
        cr_expect(close(fd - 1) == 0);
    }
}

/* Record locks end when the process closes any fd of the file: fcntl(2). */
Test(fds, duplicates_leave_the_locks, .timeout = 20)
{
    struct flock all = {.l_type = F_WRLCK};
    FILE *file = tmpfile();
    int fd;
    pid_t child;

    cr_assert(file && fcntl(fileno(file), F_SETLK, &all) == 0);
    park();
    fd = shadow_fd();
    cr_expect(fcntl(fileno(file), F_DUPFD, fd) == fd);
    child = fork();
    if (child == 0)
        _exit(fcntl(fd, F_GETLK, &all) == 0 && all.l_type == F_WRLCK ? 0 : 1);
    expect_good_end(child);
}

static void close_one_by_one(void)
{
    for (int fd = 3; fd < 9000; fd++)
        close(fd);
}

static void close_by_range(void)
{
    close_range(3, ~0U, 0);
}

static void close_from(void)
{
    closefrom(3);
}

/* Those of the family are closed by no loop (pool/family.h). */
#define QUEUES 8

/* A daemon closes everything when it starts. Done in a child, because the test program needs
 * its own fds. Nothing of ours stays open but STAYS fds, and pooling goes on. */
static void close_everything(void (*bulk_close)(void), int stays)
{
    pid_t child = fork();

    if (child == 0) {
        int left = 0;
        int used, port;

        park();
        used = dial_server();
        exchange(used);
        park();
        bulk_close();
        for (int fd = 3; fd < 65536; fd++)
            left += unseen(SYS_fcntl, fd, F_GETFD) >= 0;
        port = park();
        _exit(left == stays && log_count(": discarded: CLOSED_IN_BULK ") >= 1 &&
                      local_port(dial_server()) == port
                  ? 0
                  : 1);
    }
    expect_good_end(child);
}

Test(fds, everything_closed_in_bulk, .timeout = 20)
{
    not_under_valgrind();
    close_everything(close_one_by_one, QUEUES);
    close_everything(close_from, 0);
    needs_close_range();
    close_everything(close_by_range, 0);
}

/* The pool must not cost the program an fd that it wants: GET must succeed when all fds are
 * taken, some of them by idle connections. */
static void make_way(int (*get)(int listener))
{
    struct rlimit limit = {128, 128};
    int parked[24];
    int listener, port;

    not_under_valgrind();
    listener = listen_here(&port);
    dial(port);
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    sleep(1); /* the library reads the limit once a second */
    for (size_t i = 0; i < 24; i++) {
        parked[i] = dial_server();
        exchange(parked[i]);
    }
    for (size_t i = 0; i < 24; i++)
        close(parked[i]);
    cr_expect(log_count(": kept") == 24);
    while (open("/dev/null", O_RDONLY) >= 0)
        ;
    cr_expect(get(listener) >= 0, "idle connections kept a descriptor from the program");
    EXPECT_EVENT(": discarded: FD_PRESSURE ");
}

static int get_by_socket(int listener)
{
    (void)listener;
    return socket(AF_INET, SOCK_STREAM, 0);
}

static int get_by_accept(int listener)
{
    return accept(listener, NULL, NULL);
}

static int get_by_accept4(int listener)
{
    return accept4(listener, NULL, NULL, SOCK_CLOEXEC);
}

Test(fds, idle_connections_make_way_for_socket, .timeout = 20)
{
    make_way(get_by_socket);
}

Test(fds, idle_connections_make_way_for_accept, .timeout = 20)
{
    make_way(get_by_accept);
}

Test(fds, idle_connections_make_way_for_accept4, .timeout = 20)
{
    make_way(get_by_accept4);
}

Test(fds, no_shadow_fd_left, .timeout = 20)
{
    struct rlimit limit;
    int fd, other;

    not_under_valgrind();
    fd = dial_server();
    other = dial_server();
    exchange(fd);
    exchange(other);
    /* The library reads the limit now, and not again for a second. */
    close(other);
    EXPECT_KEPT();
    /* One more fd for the log, which is opened for each line. */
    limit.rlim_cur = limit.rlim_max = (rlim_t)fd + 2;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    cr_expect(close(fd) == 0);
    EXPECT_NOT_KEPT("FD_PRESSURE");
}
