/*
 * Order, bounds, ages, dry run and switches. The suites are named after the environment run.sh
 * gives them.
 */
#include "harness.h"

#include <fcntl.h>
#include <netinet/tcp.h>
#include <sys/resource.h>
#include <unistd.h>

#define MANY 40

/* Opens N connections at the same time, uses them, and closes them all in order. */
static void crowd(int n, int *ports)
{
    int fds[MANY];

    for (int i = 0; i < n; i++) {
        fds[i] = dial_server();
        exchange(fds[i]);
        if (ports)
            ports[i] = local_port(fds[i]);
    }
    for (int i = 0; i < n; i++)
        close(fds[i]);
}

Test(policy, last_in_first_out, .timeout = 20)
{
    int ports[5];

    crowd(5, ports);
    for (int i = 4; i >= 0; i--)
        cr_expect(local_port(dial_server()) == ports[i]);
}

/* More than the default of 32 were in use at once a moment ago, so all are worth keeping. */
Test(policy, keeps_the_peak_of_the_last_minute, .timeout = 20)
{
    crowd(MANY, NULL);
    crowd(MANY, NULL);
    cr_expect(log_count(": reused as ") == MANY);
    cr_expect(log_count(": discarded: ") == 0);
}

Test(policy, many_uses_one_connection, .timeout = 20)
{
    long before = opened_at_server();

    for (int i = 0; i < 500; i++)
        park();
    cr_expect(opened_at_server() - before <= 2);
}

/* One at a time, so that the peak of use never raises the bound. Each has another buffer size,
 * so that no one can be reused for another. The oldest makes room. */
Test(two_idle, endpoint_full, .timeout = 20)
{
    struct sockaddr_in addr;

    loopback(&addr, server_port());
    for (int size = 20000; size <= 60000; size += 20000) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        cr_assert(setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
        cr_assert(connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
        exchange(fd);
        close(fd);
        cr_expect(log_count(": discarded: ENDPOINT_FULL ") == (size == 60000));
    }
    cr_expect(log_count(": kept") == 3);
}

Test(two_in_all, pool_full, .timeout = 20)
{
    crowd(5, NULL);
    cr_expect(log_count(": discarded: POOL_FULL ") == 3);
    crowd(5, NULL);
    cr_expect(log_count(": reused as ") == 2);
}

/* Connections in use and spares have shadow fds too. */
Test(two_in_all, shadow_fds, .timeout = 20)
{
    int count = 0;

    crowd(5, NULL);
    exchange(dial_server());
    exchange(dial_server());
    cr_expect(log_count(": reused as ") == 2);
    for (int fd = LOWEST_PRIVATE; fd < 65536; fd++)
        count += unseen(SYS_fcntl, fd, F_GETFD) >= 0;
    cr_expect(count <= 2, "%d", count);
}

Test(short_idle, idle_timeout, .timeout = 20)
{
    int port = park();

    usleep(300000);
    cr_expect(local_port(dial_server()) != port);
    EXPECT_EVENT(": discarded: IDLE_TIMEOUT ");
}

Test(short_life, max_lifetime, .timeout = 20)
{
    int fd = dial_server();

    exchange(fd);
    usleep(250000);
    close(fd);
    EXPECT_NOT_KEPT("TOO_OLD");
}

/* It was young enough to be kept. */
Test(short_life, not_reused_when_older, .timeout = 20)
{
    int port = park();

    usleep(250000);
    cr_expect(local_port(dial_server()) != port);
    EXPECT_EVENT(": discarded: TOO_OLD ");
}

Test(dry_run, counts_and_changes_nothing, .timeout = 20)
{
    long before = opened_at_server();

    for (int i = 0; i < 10; i++)
        park();
    cr_expect(opened_at_server() - before == 11);
    cr_expect(log_count(": would be reused") == 9);
    cr_expect(log_count(": reused as ") == 0);
}

/* The outstanding reply could only come later, and a dry run keeps no connection for later. */
Test(dry_run, counts_no_connection_that_is_draining, .timeout = 20)
{
    int fd = dial_server();

    send_text(fd, "get nothing\r\n");
    close(fd);
    EXPECT_NOT_KEPT("REPLY_OWED");
    fd = dial_server();
    send_text(fd, "get nothing\r\n");
    expect_text(fd, "END");
    close(fd);
    EXPECT_NOT_KEPT("REPLY_PARTIAL");
    fd = dial_server();
    exchange(fd);
    send_text(fd, "quit\r\n");
    EXPECT_KEPT();
    cr_expect(recv(fd, &(char){0}, 1, 0) == 0, "the server hears it and hangs up");
}

Test(disabled, does_nothing, .timeout = 20)
{
    long before = opened_at_server();

    for (int i = 0; i < 10; i++) {
        int fd = dial_server();

        exchange(fd);
        cr_expect(close(fd) == 0);
    }
    cr_expect(opened_at_server() - before == 11);
    cr_expect(log_count("") == 0);
}

Test(bad_config, warns_once_and_uses_the_default, .timeout = 20)
{
    cr_expect(log_count("warning: MCPOOL_MAX_IDLE: bad value, the default is used") == 1);
    cr_expect(log_count("warning: MCPOOL_NONSENSE: no such variable") == 1);
    park();
}

/* Every address of the loopback network is an endpoint; one server is behind them all. */
static int dial_endpoint(int port, unsigned int n)
{
    struct sockaddr_in addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    loopback(&addr, port);
    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 + n);
    cr_assert(connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    return fd;
}

/* More endpoints in use at once than there is room for are not pooled. An unused endpoint makes
 * room. Criterion's own socket is an endpoint, too. */
Test(policy, no_room_for_more_endpoints, .timeout = 20)
{
    enum { ROOM = 512 };
    struct rlimit limit;
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    int listener = (int)unseen(SYS_socket, AF_INET, SOCK_STREAM, 0);
    int fds[ROOM + 1];
    unsigned int n = 0;

    cr_assert(getrlimit(RLIMIT_NOFILE, &limit) == 0);
    limit.rlim_cur = limit.rlim_max;
    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    loopback(&addr, 0);
    addr.sin_addr.s_addr = htonl(INADDR_ANY);
    cr_assert(bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    cr_assert(listen(listener, 2 * ROOM) == 0);
    cr_assert(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
    while (n <= ROOM && log_count("not tracked: NO_ROOM ") == 0) {
        fds[n] = dial_endpoint(ntohs(addr.sin_port), n);
        n++;
    }
    cr_assert(n > ROOM - 8 && log_count("not tracked: NO_ROOM ") == 1, "after %u", n);
    close(fds[n - 1]);
    cr_expect(log_count(": not kept: UNUSED ") == 0);
    close(fds[7]);
    EXPECT_NOT_KEPT("UNUSED");
    close(dial_endpoint(ntohs(addr.sin_port), n));
    cr_expect(log_count("not tracked: NO_ROOM ") == 1);
    cr_expect(log_count(": not kept: UNUSED ") == 2);
}

/* One request, with a server that reads it: else its close would be a reset. */
static void converse(int fd, long server)
{
    char request[7];

    send_text(fd, "get a\r\n");
    cr_assert(unseen(SYS_recvfrom, server, request, sizeof(request), MSG_WAITALL, NULL, NULL) ==
              sizeof(request));
    cr_assert(unseen(SYS_write, server, "END\r\n", 5) == 5);
    expect_text(fd, "END\r\n");
}

static int keep_idle_of(int fd)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(unseen(SYS_getsockopt, fd, IPPROTO_TCP, TCP_KEEPIDLE, &value, &len) == 0);
    return value;
}

/* The server closes idle connections. Once that has happened twice, none is kept for so long,
 * and the kernel asks earlier. No limit is lower than a second. */
Test(policy, a_limit_is_learned, .timeout = 20)
{
    int port, listener = listen_here(&port), fd;
    long server;

    for (int i = 0; i < 2; i++) {
        fd = dial(port);
        server = unseen(SYS_accept4, listener, NULL, NULL, 0);
        converse(fd, server);
        close(fd);
        usleep(100000);
        unseen(SYS_close, server);
        usleep(1100000);
        fd = dial(port);
        EXPECT_EVENT(": discarded: NOT_ESTABLISHED ");
        server = unseen(SYS_accept4, listener, NULL, NULL, 0);
        converse(fd, server);
        if (i == 0) {
            send_text(fd, "bogus\r\n");
            close(fd);
        }
    }
    close(fd);
    EXPECT_KEPT();
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    cr_expect(keep_idle_of(fd) == 1, "%d", keep_idle_of(fd));
    close(fd);
    usleep(1300000);
    dial(port);
    EXPECT_EVENT(": discarded: IDLE_TIMEOUT ");
}
