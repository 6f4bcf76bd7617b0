/*
 * A fresh socket that a pooled connection replaced becomes a spare, and the next socket()
 * returns it. It is as the kernel would have made it, because a socket with lasting changes is
 * no spare. SO_COOKIE is the kernel's name of a socket, and tells which one is at an fd.
 */
#include "harness.h"

#include <asm/socket.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static uint64_t name_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t len = sizeof(cookie);

    cr_assert(unseen(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) == 0);
    return cookie;
}

static int fresh(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    cr_assert(fd >= 0);
    return fd;
}

static int connect_to(int fd, int port)
{
    struct sockaddr_in addr;

    return connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr));
}

/* Lets a pooled connection replace the socket at FD, and closes FD. */
static void spend(int fd)
{
    cr_assert(connect_to(fd, server_port()) == 0);
    EXPECT_EVENT(": reused as ");
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
}

/* Makes a spare and returns its name. */
static uint64_t make_spare(void)
{
    uint64_t name;
    int fd;

    park();
    fd = fresh();
    name = name_of(fd);
    spend(fd);
    return name;
}

Test(spares, serve_again_and_again, .timeout = 20)
{
    uint64_t name = make_spare();
    int wanted = dup(0);

    close(wanted);
    for (int i = 0; i < 5; i++) {
        int fd = fresh();

        cr_expect(fd == wanted);
        cr_expect(name_of(fd) == name);
        spend(fd);
    }
}

static int next_is(uint64_t name)
{
    int fd = fresh();
    int is = name_of(fd) == name;

    close(fd);
    return is;
}

/* What the kernel says of a socket that it has just made, and of a spare. */
static void expect_pristine(int fd, int type)
{
    static const int options[][2] = {
        {SOL_SOCKET, SO_KEEPALIVE},      {SOL_SOCKET, SO_RCVTIMEO},
        {SOL_SOCKET, SO_SNDTIMEO},       {SOL_SOCKET, SO_LINGER},
        {SOL_SOCKET, SO_REUSEADDR},      {SOL_SOCKET, SO_SNDBUF},
        {SOL_SOCKET, SO_RCVBUF},         {SOL_SOCKET, SO_PRIORITY},
        {SOL_SOCKET, SO_ERROR},          {SOL_SOCKET, SO_MARK},
        {SOL_SOCKET, SO_TYPE},           {SOL_SOCKET, SO_DOMAIN},
        {IPPROTO_TCP, TCP_NODELAY},      {IPPROTO_TCP, TCP_KEEPIDLE},
        {IPPROTO_TCP, TCP_KEEPINTVL},    {IPPROTO_TCP, TCP_KEEPCNT},
        {IPPROTO_TCP, TCP_USER_TIMEOUT}, {IPPROTO_IP, IP_TOS},
    };
    int model = (int)unseen(SYS_socket, AF_INET, type, 0);
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    struct pollfd wanted = {fd, POLLIN | POLLOUT, 0}, models = {model, POLLIN | POLLOUT, 0};

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        char got[32] = {0}, expected[32] = {0};
        socklen_t n = sizeof(got), m = sizeof(expected);
        long result = unseen(SYS_getsockopt, fd, options[i][0], options[i][1], got, &n);

        cr_expect(unseen(SYS_getsockopt, model, options[i][0], options[i][1], expected, &m) ==
                  result);
        cr_expect(n == m && memcmp(got, expected, n) == 0, "option %d of level %d differs",
                  options[i][1], options[i][0]);
    }
    cr_expect(fcntl(fd, F_GETFL) == fcntl(model, F_GETFL));
    cr_expect(fcntl(fd, F_GETFD) == fcntl(model, F_GETFD));
    cr_expect(fcntl(fd, F_GETOWN) == 0);
    cr_expect(poll(&wanted, 1, 0) == poll(&models, 1, 0) && wanted.revents == models.revents);
    cr_expect(getpeername(fd, (struct sockaddr *)&addr, &len) == -1 && errno == ENOTCONN);
    cr_expect(getsockname(fd, (struct sockaddr *)&addr, &len) == 0 && addr.sin_port == 0 &&
              addr.sin_addr.s_addr == 0);
    unseen(SYS_close, model);
}

Test(spares, are_as_the_kernel_makes_them, .timeout = 20)
{
    static const int types[] = {SOCK_STREAM, SOCK_STREAM | SOCK_NONBLOCK,
                                SOCK_STREAM | SOCK_CLOEXEC,
                                SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC};
    struct timeval second = {1, 0};
    int on = 1, tos = 0x10;
    uint64_t name = make_spare();

    for (int i = 0; i < 8; i++) {
        int fd = socket(AF_INET, types[i % 4], i / 4 ? IPPROTO_TCP : 0);

        cr_expect(name_of(fd) == name);
        expect_pristine(fd, types[i % 4]);
        setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second));
        setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second));
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
        setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &on, sizeof(on));
        setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos));
        setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &(int){3}, sizeof(int));
        ioctl(fd, FIONBIO, &(int){i % 2});
        connect_to(fd, server_port());
        EXPECT_EVENT(": reused as ");
        fcntl(fd, F_SETFL, 0);
        exchange(fd);
        close(fd);
        EXPECT_KEPT();
    }
}

static void set_other_option(int fd)
{
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_OOBINLINE, &(int){1}, sizeof(int)) == 0);
}

static void set_lasting_option(int fd)
{
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &(int){65536}, sizeof(int)) == 0);
}

static void set_linger(int fd)
{
    struct linger linger = {0, 5};

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
}

static void bind_it(int fd)
{
    struct sockaddr_in addr;

    cr_assert(bind(fd, (struct sockaddr *)loopback(&addr, 0), sizeof(addr)) == 0);
}

static void bind_it_to_nothing(int fd)
{
    struct sockaddr_in addr = {.sin_family = AF_INET};

    cr_assert(bind(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
}

static void duplicate(int fd)
{
    cr_assert(dup(fd) >= 0);
}

static void watch(int fd)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};

    cr_assert(epoll_ctl(epoll_create1(EPOLL_CLOEXEC), EPOLL_CTL_ADD, fd, &event) == 0);
}

static void ask_for_signals(int fd)
{
    cr_assert(fcntl(fd, F_SETOWN, getpid()) == 0);
}

static void change_mode(int fd)
{
    cr_assert(fchmod(fd, 0600) == 0);
}

static void change_owner(int fd)
{
    cr_assert(fchown(fd, getuid(), getgid()) == 0);
}

static void change_owner_by_path(int fd)
{
    cr_assert(fchownat(fd, "", getuid(), getgid(), AT_EMPTY_PATH) == 0);
}

static void make_child(int fd)
{
    pid_t child = fork();

    (void)fd;
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
}

static void connect_in_vain(int fd)
{
    int port;
    int listener = listen_here(&port);

    unseen(SYS_close, listener);
    cr_assert(connect_to(fd, port) == -1);
}

static void shut(int fd)
{
    shutdown(fd, SHUT_RDWR);
}

static void by_syscall(int fd)
{
    syscall(SYS_fcntl, fd, F_GETFD);
}

static void leave_alone(int fd)
{
    close(fd);
}

static int shadow_fds(void)
{
    int count = 0;

    for (int fd = LOWEST_PRIVATE; fd < 10000; fd++)
        count += unseen(SYS_fcntl, fd, F_GETFD) >= 0;
    return count;
}

/* None of these changes can be undone, or not by us. So the socket is no spare afterwards. The
 * library drops its own fd of the socket at once where the change takes effect when the last fd
 * is closed. */
Test(spares, end_with_what_cannot_be_undone, .timeout = 20)
{
    static const struct {
        void (*do_it)(int fd);
        bool at_once;
    } things[] = {{set_other_option, true},
                  {set_lasting_option, false},
                  {set_linger, false},
                  {bind_it, true},
                  {bind_it_to_nothing, true},
                  {duplicate, true},
                  {watch, true},
                  {ask_for_signals, true},
                  {change_mode, true},
                  {change_owner, true},
                  {change_owner_by_path, true},
                  {make_child, false},
                  {connect_in_vain, true},
                  {shut, true},
                  {by_syscall, true},
                  {leave_alone, true}};

    make_child(-1); /* the first one makes the queues of the family */
    for (size_t i = 0; i < sizeof(things) / sizeof(things[0]); i++) {
        uint64_t name = make_spare();
        int fd = fresh(), before = shadow_fds();

        cr_expect(name_of(fd) == name);
        things[i].do_it(fd);
        cr_expect(shadow_fds() == before - things[i].at_once, "thing %zu", i);
        connect_to(fd, server_port());
        close(fd);
        cr_expect(!next_is(name), "thing %zu", i);
    }
}

Test(spares, end_when_the_process_changes, .timeout = 20)
{
    uint64_t name = make_spare();

    make_child(-1);
    cr_expect(!next_is(name));
    name = make_spare();
    if (setgroups(0, NULL) == 0) {
        cr_expect(shadow_fds() == 0);
        cr_expect(!next_is(name));
    }
    name = make_spare();
    if (unshare(CLONE_NEWNET) == 0)
        cr_expect(!next_is(name));
}

Test(spares, are_of_the_right_family, .timeout = 20)
{
    uint64_t name = make_spare();
    int six = socket(AF_INET6, SOCK_STREAM, 0);

    cr_expect(name_of(six) != name);
    cr_expect(name_of(socket(AF_INET, SOCK_DGRAM, 0)) != name);
    cr_expect(name_of(socket(AF_UNIX, SOCK_STREAM, 0)) != name);
    cr_expect(next_is(name));
}

/* A connection that the program made on a spare is closed by the program's close(), and the
 * server sees it. */
Test(spares, that_are_connected_are_none, .timeout = 20)
{
    struct sockaddr_in addr;
    int port, fd, accepted, other;
    int listener = listen_here(&port);
    uint64_t name = make_spare();

    fd = fresh();
    cr_expect(name_of(fd) == name);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, port), sizeof(addr)) == 0);
    accepted = accept(listener, NULL, NULL);
    other = fresh();
    cr_expect(name_of(other) != name);
    send_text(fd, "no memcached\r\n");
    close(fd);
    expect_text(accepted, "no memcached\r\n");
    cr_expect(recv(accepted, &(char){0}, 1, 0) == 0, "it is still open");
}

/* So does a listening socket that the program made of a spare. */
Test(spares, that_listen_are_none, .timeout = 20)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    int fd, again;

    make_spare();
    fd = fresh();
    cr_assert(listen(fd, 1) == 0);
    cr_assert(getsockname(fd, (struct sockaddr *)&addr, &len) == 0);
    unseen(SYS_close, fd);
    again = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    cr_expect(bind(again, (struct sockaddr *)&addr, len) == 0, "the port is still taken");
}

Test(spares, that_were_closed_are_gone, .timeout = 20)
{
    uint64_t name = make_spare();

    for (int fd = 3; fd < 10000; fd++) {
        if (fd >= LOWEST_PRIVATE)
            close(fd);
    }
    cr_expect(!next_is(name));
    name = make_spare();
    close_range(LOWEST_PRIVATE, ~0U, 0);
    cr_expect(!next_is(name));
    /* Unseen by the library. */
    name = make_spare();
    for (int fd = LOWEST_PRIVATE; fd < 10000; fd++)
        unseen(SYS_close, fd);
    cr_expect(!next_is(name));
    exchange(dial_server());
}

/* More spares at once than are kept: nothing stays open, and every connection works. */
Test(spares, in_a_crowd, .timeout = 20)
{
    enum { CROWD = 20 };
    int fds[CROWD];

    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < CROWD; i++)
            fds[i] = fresh();
        for (int i = 0; i < CROWD; i++)
            cr_assert(connect_to(fds[i], server_port()) == 0);
        for (int i = 0; i < CROWD; i++)
            exchange(fds[i]);
        for (int i = 0; i < CROWD; i++)
            close(fds[i]);
    }
    cr_expect(shadow_fds() > CROWD && shadow_fds() <= CROWD + 8);
}

static void *connect_and_close(void *unused)
{
    (void)unused;
    for (int i = 0; i < 300; i++) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (i % 3 == 0)
            fcntl(fd, F_SETFD, FD_CLOEXEC);
        if (i % 5 != 0)
            connect_to(fd, server_port());
        if (i % 7 != 0)
            close(fd);
        else
            dup2(0, fd);
        if (i % 7 == 0)
            close(fd);
    }
    return NULL;
}

/* One thread closes all high fds in bulk while other threads get shadow fds there. */
Test(spares, bulk_closes_while_in_use, .timeout = 40)
{
    pthread_t threads[4];
    uint64_t name;

    for (int i = 0; i < 4; i++)
        cr_assert(pthread_create(&threads[i], NULL, connect_and_close, NULL) == 0);
    for (int i = 0; i < 200; i++) {
        close_range(LOWEST_PRIVATE, ~0U, 0);
        sched_yield();
    }
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    close_range(LOWEST_PRIVATE, ~0U, 0);
    name = make_spare();
    cr_expect(next_is(name));
}
