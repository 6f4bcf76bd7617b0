/*
 * A connection from the pool looks like the fresh socket it replaced.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <unistd.h>

static int connect_to_server(int fd)
{
    struct sockaddr_in addr;

    return connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr));
}

static int changed_fd;
static pthread_barrier_t together;

/* In every way there is, with the argument where it can be read without a question and where it
 * cannot. */
static void change_flags(unsigned int way)
{
    static int far[2] = {0, 1};
    int near = way & 1;

    if (way % 3 == 0)
        ioctl(changed_fd, FIONBIO, &near);
    else if (way % 3 == 1)
        ioctl(changed_fd, FIONBIO, &far[near]);
    else
        fcntl(changed_fd, F_SETFL, near ? O_NONBLOCK : 0);
}

#define CHANGES 9000

static void *change_flags_too(void *unused)
{
    for (unsigned int i = 0; i < CHANGES; i++) {
        pthread_barrier_wait(&together);
        change_flags(i / 6 + 1);
        pthread_barrier_wait(&together);
    }
    return unused;
}

/* Two threads change the flags at once: after that they are what the kernel has made of it. */
Test(install, flags_that_threads_change_at_once, .timeout = 60)
{
    pthread_t thread;

    park();
    pthread_barrier_init(&together, NULL, 2);
    cr_assert(pthread_create(&thread, NULL, change_flags_too, NULL) == 0);
    for (unsigned int i = 0; i < CHANGES; i++) {
        struct pollfd wait;
        int flags;

        changed_fd = socket(AF_INET, SOCK_STREAM, 0);
        pthread_barrier_wait(&together);
        change_flags(i);
        pthread_barrier_wait(&together);
        flags = fcntl(changed_fd, F_GETFL);
        connect_to_server(changed_fd);
        wait = (struct pollfd){changed_fd, POLLOUT, 0};
        cr_assert(poll(&wait, 1, 5000) == 1);
        cr_expect(fcntl(changed_fd, F_GETFL) == flags, "turn %u", i);
        cr_assert(fcntl(changed_fd, F_SETFL, 0) == 0);
        exchange(changed_fd);
        close(changed_fd);
    }
    pthread_join(thread, NULL);
    EXPECT_KEPT();
}

/* Every pair of flags, of the former user and of the next: the former user's never show. */
Test(install, flags, .timeout = 20)
{
    static const int flags[] = {0, SOCK_NONBLOCK, SOCK_CLOEXEC, SOCK_NONBLOCK | SOCK_CLOEXEC};

    for (int i = 0; i < 16; i++) {
        int type = flags[i % 4];
        int former = socket(AF_INET, SOCK_STREAM | flags[i / 4], 0);
        int fd, port;
        struct pollfd wait = {former, POLLOUT, 0};

        connect_to_server(former);
        cr_assert(poll(&wait, 1, 5000) == 1);
        cr_assert(fcntl(former, F_SETFL, fcntl(former, F_GETFL) & ~O_NONBLOCK) == 0);
        exchange(former);
        cr_assert(fcntl(former, F_SETFL, flags[i / 4] & SOCK_NONBLOCK ? O_NONBLOCK : 0) == 0);
        port = local_port(former);
        close(former);
        fd = socket(AF_INET, SOCK_STREAM | type, 0);
        errno = 0;
        cr_expect(connect_to_server(fd) == (type & SOCK_NONBLOCK ? -1 : 0));
        cr_expect(errno == (type & SOCK_NONBLOCK ? EINPROGRESS : 0));
        cr_expect(local_port(fd) == port);
        cr_expect(!(fcntl(fd, F_GETFL) & O_NONBLOCK) == !(type & SOCK_NONBLOCK));
        cr_expect(!(fcntl(fd, F_GETFD) & FD_CLOEXEC) == !(type & SOCK_CLOEXEC));
        cr_expect((fcntl(fd, F_GETFL) & ~O_NONBLOCK) == O_RDWR);
        cr_assert(fcntl(fd, F_SETFL, 0) == 0);
        exchange(fd);
        close(fd);
    }
}

/* The three ways to make a socket blocking again. */
Test(install, nonblocking_by_any_call, .timeout = 20)
{
    for (int way = 0; way < 2; way++) {
        int on = 1;
        char byte;
        int fd;

        park();
        fd = socket(AF_INET, SOCK_STREAM, 0);
        if (way == 0)
            cr_assert(ioctl(fd, FIONBIO, &on) == 0);
        else
            cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
        cr_expect(connect_to_server(fd) == -1 && errno == EINPROGRESS);
        EXPECT_EVENT(": reused as ");
        cr_expect(recv(fd, &byte, 1, 0) == -1 && errno == EAGAIN);
        close(fd);
    }
}

Test(install, nonblocking_connect, .timeout = 20)
{
    struct sockaddr_in peer;
    socklen_t len = sizeof(peer);
    struct pollfd wait = {-1, POLLOUT, 0};
    int error = -1;
    socklen_t size = sizeof(error);
    int fd;

    park();
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_expect(connect_to_server(fd) == -1 && errno == EINPROGRESS);
    EXPECT_EVENT(": reused as ");
    wait.fd = fd;
    cr_expect(poll(&wait, 1, 0) == 1 && wait.revents == POLLOUT);
    cr_expect(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size) == 0 && error == 0);
    errno = 4711;
    cr_expect(connect_to_server(fd) == 0);
    cr_expect(errno == 4711, "success must not touch errno");
    cr_expect(connect_to_server(fd) == -1 && errno == EISCONN);
    cr_expect(getpeername(fd, (struct sockaddr *)&peer, &len) == 0);
    cr_expect(len == sizeof(peer) && ntohs(peer.sin_port) == server_port() &&
              peer.sin_addr.s_addr == htonl(INADDR_LOOPBACK));
}

struct setting {
    int level, name;
    int value;
    bool is_time;
};

static const struct setting settings[] = {
    {SOL_SOCKET, SO_KEEPALIVE, 1, false},   {IPPROTO_TCP, TCP_NODELAY, 1, false},
    {IPPROTO_TCP, TCP_KEEPIDLE, 33, false}, {IPPROTO_TCP, TCP_KEEPINTVL, 7, false},
    {IPPROTO_TCP, TCP_KEEPCNT, 3, false},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 4000, false},
    {IPPROTO_IP, IP_TOS, 16, false},        {SOL_SOCKET, SO_REUSEADDR, 1, false},
    {SOL_SOCKET, SO_RCVTIMEO, 2, true},     {SOL_SOCKET, SO_SNDTIMEO, 3, true},
    {SOL_SOCKET, SO_SNDBUF, 30000, false},  {SOL_SOCKET, SO_RCVBUF, 40000, false},
    {SOL_SOCKET, SO_PRIORITY, 3, false},
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

static void give(int fd, const struct setting *setting)
{
    struct timeval time = {setting->value, 0};

    if (setting->is_time)
        cr_assert(setsockopt(fd, setting->level, setting->name, &time, sizeof(time)) == 0);
    else
        cr_assert(setsockopt(fd, setting->level, setting->name, &setting->value,
                             sizeof(setting->value)) == 0);
}

/* Every option that a program can read, of a socket treated in some way. */
static void snapshot(int fd, char (*values)[32])
{
    static const int options[][2] = {
        {SOL_SOCKET, SO_KEEPALIVE},
        {SOL_SOCKET, SO_RCVTIMEO},
        {SOL_SOCKET, SO_SNDTIMEO},
        {SOL_SOCKET, SO_LINGER},
        {SOL_SOCKET, SO_REUSEADDR},
        {SOL_SOCKET, SO_REUSEPORT},
        {SOL_SOCKET, SO_BROADCAST},
        {SOL_SOCKET, SO_DONTROUTE},
        {SOL_SOCKET, SO_OOBINLINE},
        {SOL_SOCKET, SO_PRIORITY},
        {SOL_SOCKET, SO_RCVLOWAT},
        {SOL_SOCKET, SO_TYPE},
        {SOL_SOCKET, SO_DOMAIN},
        {SOL_SOCKET, SO_PROTOCOL},
        {SOL_SOCKET, SO_MARK},
        {SOL_SOCKET, SO_ERROR},
        {SOL_SOCKET, SO_BUSY_POLL},
        {IPPROTO_IP, IP_TOS},
        {IPPROTO_IP, IP_TTL},
        {IPPROTO_TCP, TCP_NODELAY},
        {IPPROTO_TCP, TCP_KEEPIDLE},
        {IPPROTO_TCP, TCP_KEEPINTVL},
        {IPPROTO_TCP, TCP_KEEPCNT},
        {IPPROTO_TCP, TCP_USER_TIMEOUT},
        {IPPROTO_TCP, TCP_CORK},
        {IPPROTO_TCP, TCP_LINGER2},
        {IPPROTO_TCP, TCP_DEFER_ACCEPT},
        {IPPROTO_TCP, TCP_CONGESTION},
    };

    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        socklen_t len = 31;

        memset(values[i], 0, 32);
        cr_assert(getsockopt(fd, options[i][0], options[i][1], values[i], &len) == 0);
        values[i][31] = (char)len;
    }
}

#define SNAPSHOT 28

/* For each option: set by the first user and not by the next, and the other way round. The
 * reference is a socket treated alike whose connection is not from the pool. */
Test(install, options_of_this_user_and_no_other, .timeout = 20)
{
    for (size_t former = 0; former <= SETTINGS; former++) {
        for (size_t latter = 0; latter <= SETTINGS; latter++) {
            char seen[SNAPSHOT][32], wanted[SNAPSHOT][32];
            int fd = socket(AF_INET, SOCK_STREAM, 0);
            int plain;

            if (former < SETTINGS)
                give(fd, &settings[former]);
            cr_assert(connect_to_server(fd) == 0);
            exchange(fd);
            close(fd);
            EXPECT_KEPT();

            fd = socket(AF_INET, SOCK_STREAM, 0);
            if (latter < SETTINGS)
                give(fd, &settings[latter]);
            cr_assert(connect_to_server(fd) == 0);
            snapshot(fd, seen);

            plain = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
            if (latter < SETTINGS)
                give(plain, &settings[latter]);
            cr_assert(connect_to_server(plain) == 0);
            snapshot(plain, wanted);
            for (int i = 0; i < SNAPSHOT; i++)
                cr_expect(memcmp(seen[i], wanted[i], 32) == 0,
                          "option %d of the snapshot differs after setting %zu, then %zu", i,
                          former, latter);
            close(plain);
            exchange(fd);
            close(fd);
        }
    }
}

/* Set after connect(), as most clients do with TCP_NODELAY. */
Test(install, options_set_late_do_not_leak, .timeout = 20)
{
    struct timeval time = {1, 0};
    struct linger linger = {1, 0};
    socklen_t len = sizeof(time);
    int on = 1;
    int fd = dial_server();
    int port = local_port(fd);

    exchange(fd);
    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, sizeof(time)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &time, &len) == 0);
    cr_expect(time.tv_sec == 0 && time.tv_usec == 0);
    len = sizeof(on);
    cr_assert(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, &len) == 0);
    cr_expect(on == 0);
    len = sizeof(linger);
    cr_assert(getsockopt(fd, SOL_SOCKET, SO_LINGER, &linger, &len) == 0);
    cr_expect(linger.l_onoff == 0);
}

/* A buffer size that was set cannot be unset, so such connections are only reused for the same
 * size. */
Test(install, buffer_sizes_are_not_mixed, .timeout = 20)
{
    int size = 50000;
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int sized;

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
    cr_assert(connect_to_server(fd) == 0);
    sized = local_port(fd);
    cr_expect(sized != port);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
    cr_assert(connect_to_server(fd) == 0);
    cr_expect(local_port(fd) == sized);
}

static int nodelay_of(int fd)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0 &&
              len == sizeof(value));
    return value;
}

static int real_nodelay_of(int fd)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(unseen(SYS_getsockopt, fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0);
    return value;
}

/* On a new connection the server acknowledges at once, and a small request is not held back
 * behind another. A pooled one must not be slower. The program reads the options it would have
 * read. */
Test(install, reused_connections_do_not_wait_for_acknowledgements, .timeout = 20)
{
    struct sockaddr_in addr;
    int value = 0;
    int fd;

    park();
    for (int i = 0; i < 2; i++) {
        fd = dial_server();
        EXPECT_EVENT(": reused as ");
        cr_expect(nodelay_of(fd) == 0);
        cr_expect(real_nodelay_of(fd) == 1);
        exchange(fd);
        close(fd);
    }
    fd = dial_server();
    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)) == 0);
    cr_expect(real_nodelay_of(fd) == 0);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    cr_expect(nodelay_of(fd) == 0 && real_nodelay_of(fd) == 1);
    value = 1;
    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)) == 0);
    cr_expect(nodelay_of(fd) == 1);
    exchange(fd);
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    value = 0;
    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, sizeof(value)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    EXPECT_EVENT(": reused as ");
    cr_expect(nodelay_of(fd) == 0 && real_nodelay_of(fd) == 0, "what is asked for is done");
}

static int keepalive_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, level, name, &value, &len) == 0 && len == sizeof(value));
    return value;
}

static int real_keepalive_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(unseen(SYS_getsockopt, fd, level, name, &value, &len) == 0);
    return value;
}

/* A connection that was kept is watched by the kernel; the program reads what it would have
 * read. */
Test(install, kept_connections_have_keepalive, .timeout = 20)
{
    int usual_idle, on = 1;
    int fd = dial_server();

    usual_idle = real_keepalive_of(fd, IPPROTO_TCP, TCP_KEEPIDLE);
    cr_expect(real_keepalive_of(fd, SOL_SOCKET, SO_KEEPALIVE) == 0, "before it was kept");
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    for (int i = 0; i < 2; i++) {
        fd = dial_server();
        EXPECT_EVENT(": reused as ");
        cr_expect(real_keepalive_of(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
        cr_expect(real_keepalive_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) == 15);
        cr_expect(real_keepalive_of(fd, IPPROTO_TCP, TCP_KEEPINTVL) == 5);
        cr_expect(real_keepalive_of(fd, IPPROTO_TCP, TCP_KEEPCNT) == 120);
        cr_expect(keepalive_of(fd, SOL_SOCKET, SO_KEEPALIVE) == 0);
        cr_expect(keepalive_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) == usual_idle);
        exchange(fd);
        if (i == 0)
            close(fd);
    }
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
    cr_expect(real_keepalive_of(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    cr_expect(real_keepalive_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) == usual_idle);
    cr_expect(keepalive_of(fd, IPPROTO_TCP, TCP_KEEPIDLE) == usual_idle);
    close(fd);
    EXPECT_KEPT();
    fd = dial_server();
    EXPECT_EVENT(": reused as ");
    cr_expect(real_keepalive_of(fd, SOL_SOCKET, SO_KEEPALIVE) == 0, "the next user set none");
}

/* bind() to the wildcard address and port 0, as Tcl does before every connect(). */
static void bind_to_nothing(int fd, int domain)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6};

    if (domain == AF_INET)
        cr_assert(bind(fd, (struct sockaddr *)&in, sizeof(in)) == 0);
    else
        cr_assert(bind(fd, (struct sockaddr *)&in6, sizeof(in6)) == 0);
}

static void connect_over(int fd, int domain)
{
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6,
                                  .sin6_port = htons((uint16_t)server_port())};

    memcpy(&mapped.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
    if (domain == AF_INET)
        cr_assert(connect_to_server(fd) == 0);
    else
        cr_assert(connect(fd, (struct sockaddr *)&mapped, sizeof(mapped)) == 0);
}

/* The port is at the same place in both families. */
static int port_of(int fd, bool by_syscall)
{
    struct sockaddr_in6 name;
    socklen_t len = sizeof(name);
    long result = by_syscall ? syscall(SYS_getsockname, fd, &name, &len)
                             : getsockname(fd, (struct sockaddr *)&name, &len);

    cr_assert(result == 0);
    return ntohs(name.sin6_port);
}

static void bound_to_nothing(int domain)
{
    for (int i = 0; i < 3; i++) {
        int fd = socket(domain, SOCK_STREAM, 0);

        bind_to_nothing(fd, domain);
        connect_over(fd, domain);
        if (i > 0)
            EXPECT_EVENT(": reused as ");
        exchange(fd);
        close(fd);
        EXPECT_KEPT();
    }
}

Test(install, bound_to_nothing, .timeout = 20)
{
    bound_to_nothing(AF_INET);
    bound_to_nothing(AF_INET6);
}

/* A program that read its port before connect() reads the same one afterwards. */
Test(install, bound_to_nothing_and_asked, .timeout = 20)
{
    for (int way = 0; way < 4; way++) {
        int domain = way % 2 ? AF_INET6 : AF_INET;
        int fd, port;

        bound_to_nothing(domain);
        fd = socket(domain, SOCK_STREAM, 0);
        bind_to_nothing(fd, domain);
        port = port_of(fd, way / 2);
        connect_over(fd, domain);
        cr_expect(port_of(fd, false) == port, "way %d", way);
        exchange(fd);
        close(fd);
        EXPECT_NOT_KEPT("BOUND");
    }
}

/* A connection whose socket was not bound is not reused for one that was bound, or the other
 * way round: connect() to AF_UNSPEC would show the difference. */
Test(install, bound_and_not_bound, .timeout = 20)
{
    int port = park();
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    bind_to_nothing(fd, AF_INET);
    connect_over(fd, AF_INET);
    cr_expect(local_port(fd) != port);
    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    cr_expect(local_port(dial_server()) == port);
}
