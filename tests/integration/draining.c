/*
 * Connections closed with replies outstanding. Behind a noreply request goes a fence; abandoned
 * replies are read later. No user gets the connection before that is done.
 */
#include "harness.h"

#include <errno.h>
#include <linux/sockios.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

static const char store[] = "set s 0 0 1 noreply\r\nx\r\n";
static const char removal[] = "delete nothing noreply\r\n";
static const char deleteq[25] = {'\x80', '\x14', [3] = 1, [11] = 1, [24] = 'k'};

static void leave_after(int port, const char *request)
{
    int fd = dial(port);

    send_text(fd, request);
    close_by_another_thread(fd);
}

/* A server that the test itself plays, with calls that the library does not see. */
static int port_here;
static int listener;

static void listen_for_us(void)
{
    listener = listen_here(&port_here);
}

static long accept_here(void)
{
    return unseen(SYS_accept4, listener, NULL, NULL, 0);
}

static void serve_expect(long fd, const char *text, size_t n)
{
    char got[256];

    cr_assert(unseen(SYS_recvfrom, fd, got, n, MSG_WAITALL, NULL, NULL) == (long)n);
    cr_assert(memcmp(got, text, n) == 0, "%.*s", (int)n, got);
}

static void serve_text(long fd, const char *text)
{
    cr_assert(unseen(SYS_write, fd, text, strlen(text)) == (long)strlen(text));
}

static bool nothing_to_read(long fd)
{
    char byte;

    return unseen(SYS_recvfrom, fd, &byte, 1, MSG_DONTWAIT, NULL, NULL) == -EAGAIN;
}

/* Waits until an idle connection has the answer to its fence, which begins with the N bytes at
 * FENCE and is REST bytes longer, as the last of what is unread. */
static void wait_for_answer(const char *fence, size_t n, size_t rest)
{
    char unread[4096];

    for (int tries = 0; tries < 1000; tries++) {
        for (int fd = 0; fd < 1024; fd++) {
            long got = unseen(SYS_recvfrom, fd, unread, sizeof(unread), MSG_PEEK | MSG_DONTWAIT,
                              NULL, NULL);

            if (got >= (long)(n + rest) && memcmp(unread + got - n - rest, fence, n) == 0)
                return;
        }
        usleep(1000);
    }
}

Test(draining, noreply_tails_against_memcached, .timeout = 20)
{
    static const char *const requests[] = {store, removal, "get nothing\r\nmd nothing q\r\n",
                                           "mg nothing q v\r\n", "touch nothing 1 noreply\r\n"};
    long before = opened_at_server();

    for (size_t i = 0; i < 50; i++) {
        leave_after(server_port(), requests[i % 5]);
        /* With an owed reply the fence waits for that. */
        wait_for_answer(requests[i % 5][0] == 'g' ? "NF\r\n" : "MN\r\n", 4, 0);
    }
    cr_expect(opened_at_server() - before <= 3);
    cr_expect(log_count(": kept, draining") == 50);
    cr_expect(log_count(": discarded") == 0);
}

Test(draining, quiet_binary_against_memcached, .timeout = 20)
{
    long before = opened_at_server();

    for (int i = 0; i < 20; i++) {
        int fd = dial_server();

        cr_assert(send(fd, deleteq, sizeof(deleteq), 0) == sizeof(deleteq));
        close(fd);
        EXPECT_EVENT(": kept, draining");
        wait_for_answer("\x81\x0a", 2, 22); /* NOOP */
    }
    cr_expect(opened_at_server() - before <= 3);
}

/* A connection that is known to be clean costs the server nothing. */
Test(draining, no_fence_without_need, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();

    send_text(fd, "get a\r\n");
    serve_expect(server, "get a\r\n", 7);
    serve_text(server, "END\r\n");
    expect_text(fd, "END\r\n");
    close(fd);
    EXPECT_EVENT(": kept");
    cr_expect(nothing_to_read(server));
}

/* Only the exact answer to the fence counts, with no byte behind it. */
Test(draining, fence_answers, .timeout = 20, .init = listen_for_us)
{
    static const struct {
        const char *answer;
        bool reused;
    } cases[] = {
        {"MN\r\n", true},
        {"NM\r\n", false},
        {"MN\r\nMN\r\n", false},
        {"ERROR\r\nMN\r\n", false},
        {"STORED\r\nMN\r\n", false},
        {"MN \r\n", false},
        {"VERSION 1.4.5\r\nMN\r\n", false},
        {"MN\r\n", true},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int fd = dial(port_here);
        long server = accept_here();

        send_text(fd, "mn\r\n");
        serve_expect(server, "mn\r\n", 4);
        serve_text(server, "MN\r\n"); /* a failure would stop the fences */
        expect_text(fd, "MN\r\n");
        send_text(fd, removal);
        serve_expect(server, removal, strlen(removal));
        close(fd);
        serve_expect(server, "mn\r\n", 4);
        serve_text(server, cases[i].answer);
        usleep(20000);
        fd = dial(port_here);
        cr_expect((strstr(last_event(), ": reused as ") != NULL) == cases[i].reused, "%s: %s",
                  cases[i].answer, last_event());
        if (cases[i].reused) {
            send_text(fd, "bogus\r\n");
            serve_expect(server, "bogus\r\n", 7);
        }
        close(fd);
        if (!cases[i].reused)
            unseen(SYS_close, accept_here());
        unseen(SYS_close, server);
    }
    cr_expect(log_count(": discarded: UNSEEN_BYTES ") + log_count(": discarded: NO_FENCE ") ==
              6);
}

/* Until the fence is answered no user gets the connection. */
Test(draining, not_reused_before_the_answer, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), other;
    long server = accept_here(), second;
    int port = local_port(fd);

    send_text(fd, removal);
    close(fd);
    EXPECT_EVENT(": kept, draining");
    serve_expect(server, removal, strlen(removal));
    other = dial(port_here);
    second = accept_here();
    cr_expect(local_port(other) != port);
    serve_expect(server, "mn\r\n", 4);
    serve_text(server, "M");
    fd = dial(port_here);
    cr_expect(local_port(fd) != port);
    unseen(SYS_close, accept_here());
    serve_text(server, "N\r\n");
    usleep(20000);
    fd = dial(port_here);
    cr_expect(local_port(fd) == port);
    unseen(SYS_close, second);
}

/* A server that does not know `mn` is not asked again for a while. `version` proves what it
 * can; a connection that it cannot prove is not kept. */
Test(draining, server_without_mn, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), port;
    long server = accept_here();

    send_text(fd, removal);
    close(fd);
    serve_expect(server, removal, strlen(removal));
    serve_expect(server, "mn\r\n", 4);
    unseen(SYS_close, server);
    usleep(20000);
    fd = dial(port_here);
    EXPECT_EVENT(": discarded: NO_FENCE ");
    server = accept_here();
    port = local_port(fd);
    send_text(fd, removal);
    close(fd);
    EXPECT_EVENT(": kept, draining");
    serve_expect(server, removal, strlen(removal));
    serve_expect(server, "version\r\n", 9);
    serve_text(server, "VERSION 1.4.5\r\n");
    usleep(20000);
    fd = dial(port_here);
    cr_expect(local_port(fd) == port);
    send_text(fd, store);
    close(fd);
    EXPECT_NOT_KEPT("UNCONFIRMED");
}

/* If the server understood `mn` earlier, on any connection, it may have been restarted with
 * another version. */
Test(draining, one_failure_is_forgiven, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), other;
    long server = accept_here(), second;

    send_text(fd, store);
    close(fd);
    serve_expect(server, store, strlen(store));
    serve_expect(server, "mn\r\n", 4);
    serve_text(server, "MN\r\n");
    usleep(20000);
    fd = dial(port_here);
    EXPECT_EVENT(": reused as ");
    other = dial(port_here);
    second = accept_here();
    for (int failures = 0; failures < 2; failures++) {
        send_text(other, store);
        close(other);
        EXPECT_EVENT(": kept, draining");
        unseen(SYS_close, second);
        usleep(20000);
        other = dial(port_here);
        EXPECT_EVENT(": discarded: NO_FENCE ");
        second = accept_here();
    }
    send_text(other, store);
    close(other);
    EXPECT_NOT_KEPT("UNCONFIRMED");
    unseen(SYS_close, server);
    close(fd);
}

/* The program's own requests prove as much, on their connection. */
Test(draining, the_program_asked_mn, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();

    send_text(fd, store);
    close(fd);
    unseen(SYS_close, server);
    usleep(20000);
    fd = dial(port_here);
    EXPECT_EVENT(": discarded: NO_FENCE ");
    server = accept_here();
    send_text(fd, "mn\r\n");
    serve_text(server, "MN\r\n");
    expect_text(fd, "MN\r\n");
    send_text(fd, removal);
    close(fd);
    serve_expect(server, "mn\r\ndelete nothing noreply\r\nmn\r\n", 32);
}

Test(draining, late_replies_against_memcached, .timeout = 20)
{
    static const char value[] = "VALUE late 0 5\r\nvalue\r\nEND\r\n";
    int fd = dial_server(), port = local_port(fd);

    send_text(fd, "set late 0 0 5\r\nvalue\r\n");
    expect_text(fd, "STORED\r\n");
    for (int i = 0; i < 20; i++) {
        send_text(fd, "get late\r\nget late\r\n");
        if (i % 2)
            expect_text(fd, "VALUE late");
        close_by_another_thread(fd);
        EXPECT_EVENT(": kept, draining");
        usleep(20000);
        fd = dial_server();
        cr_expect(local_port(fd) == port);
        send_text(fd, "get late\r\n");
        expect_text(fd, value);
    }
}

/* A connection is not reused when even one byte is missing, and the next user never gets a byte
 * of the old reply. */
Test(draining, late_replies_in_pieces, .timeout = 20, .init = listen_for_us)
{
    static const char reply[] = "VALUE a 0 3\r\nabc\r\nEND\r\n";
    int fd = dial(port_here), port = local_port(fd);
    long server = accept_here();

    send_text(fd, "get a\r\n");
    close_by_another_thread(fd);
    for (size_t i = 0; i < strlen(reply); i++) {
        fd = dial(port_here);
        cr_assert(local_port(fd) != port);
        unseen(SYS_close, accept_here());
        close(fd);
        unseen(SYS_write, server, reply + i, 1);
        usleep(1000);
    }
    usleep(20000);
    fd = dial(port_here);
    cr_expect(local_port(fd) == port);
    send_text(fd, "get b\r\n");
    serve_expect(server, "get a\r\nget b\r\n", 14);
    serve_text(server, "END\r\n");
    expect_text(fd, "END\r\n");
}

/* First the replies, then the fence. */
Test(draining, replies_and_then_the_fence, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), port = local_port(fd);
    long server = accept_here();

    send_text(fd, "get a\r\nset a 0 0 1 noreply\r\nx\r\n");
    close_by_another_thread(fd);
    serve_expect(server, "get a\r\nset a 0 0 1 noreply\r\nx\r\n", 31);
    cr_expect(nothing_to_read(server));
    serve_text(server, "END\r\n");
    usleep(20000);
    fd = dial(port_here);
    cr_expect(local_port(fd) != port);
    serve_expect(server, "mn\r\n", 4);
    serve_text(server, "MN\r\n");
    usleep(20000);
    cr_expect(local_port(dial(port_here)) == port);
}

Test(draining, hung_up_instead, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();

    send_text(fd, "get a\r\n");
    close_by_another_thread(fd);
    unseen(SYS_close, server);
    usleep(20000);
    dial(port_here);
    EXPECT_EVENT(": discarded: NOT_ESTABLISHED ");
}

Test(draining, wrong_reply, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();

    send_text(fd, "get a\r\n");
    close_by_another_thread(fd);
    serve_text(server, "STORED\r\n");
    usleep(20000);
    dial(port_here);
    EXPECT_EVENT(": discarded: UNEXPECTED_REPLY ");
}

Test(draining, more_than_is_worth_reading, .timeout = 20, .init = listen_for_us)
{
    enum { SIZE = 8 << 20 };
    static char filler[SIZE];
    int fd = dial(port_here);
    long server = accept_here();
    size_t sent = 0;

    memset(filler, 'x', SIZE);
    send_text(fd, "get a\r\n");
    close_by_another_thread(fd);
    serve_text(server, "VALUE a 0 8388608\r\n");
    for (int i = 0; i < 1000 && log_count(": discarded: DRAIN_LIMIT ") == 0; i++) {
        long n = unseen(SYS_sendto, server, filler, SIZE - sent, MSG_DONTWAIT | MSG_NOSIGNAL,
                        NULL, 0);

        sent += n > 0 ? (size_t)n : 0;
        fd = dial(port_here);
        unseen(SYS_close, accept_here());
        close(fd);
    }
    cr_expect(log_count(": discarded: DRAIN_LIMIT ") == 1);
}

/* How many of the bytes that COUNT servers sent are still unread. */
static size_t unread_of(const long *servers, int count)
{
    size_t sum = 0;

    usleep(100000); /* the kernel acknowledges what was delivered a little later */
    for (int i = 0; i < count; i++) {
        int undelivered = 0;

        cr_assert(unseen(SYS_ioctl, servers[i], SIOCOUTQ, &undelivered) == 0);
        sum += (size_t)undelivered;
    }
    for (int fd = 0; fd < 65536; fd++) {
        struct sockaddr_in peer;
        socklen_t len = sizeof(peer);
        int unread = 0;

        if (unseen(SYS_getpeername, fd, &peer, &len) == 0 &&
            ntohs(peer.sin_port) == port_here && unseen(SYS_ioctl, fd, FIONREAD, &unread) == 0)
            sum += (size_t)unread;
    }
    return sum;
}

/* The user that asked has gone. What a server sends without end is read a little at a time. */
Test(draining, one_connect_reads_little, .timeout = 20, .init = listen_for_us)
{
    enum { CONNECTIONS = 4, MOST = 65536 };
    static char lines[1 << 20];
    static const char line[] = "STAT a b\r\n";
    int fds[CONNECTIONS];
    long servers[CONNECTIONS];
    size_t before, read;

    for (size_t i = 0; i + strlen(line) < sizeof(lines); i += strlen(line))
        memcpy(lines + i, line, strlen(line));
    for (int i = 0; i < CONNECTIONS; i++) {
        fds[i] = dial(port_here);
        send_text(fds[i], "stats\r\n");
        servers[i] = accept_here();
        unseen(SYS_sendto, servers[i], lines, strlen(lines), MSG_DONTWAIT, NULL, 0);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        close_by_another_thread(fds[i]);
        EXPECT_EVENT(": kept, draining");
    }
    before = unread_of(servers, CONNECTIONS);
    cr_assert(before > 2 * MOST, "%zu bytes are no test", before);
    dial(port_here);
    read = before - unread_of(servers, CONNECTIONS);
    cr_expect(read <= MOST, "%zu bytes were read", read);
}

/* An abandoned login is still a login. */
Test(draining, a_late_answer_may_be_a_login, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();

    send_text(fd, "set auth 0 0 10\r\nbob secret\r\n");
    close_by_another_thread(fd);
    EXPECT_EVENT(": kept, draining");
    serve_text(server, "STORED\r\n");
    usleep(20000);
    dial(port_here);
    EXPECT_EVENT(": discarded: MAYBE_AUTH ");
}

/* Bytes read unseen are not made up for by bytes that come later. */
Test(draining, read_behind_our_back, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();
    char byte;

    send_text(fd, "get a\r\n");
    serve_text(server, "END\r\n");
    usleep(20000);
    unseen(SYS_read, fd, &byte, 1);
    close_by_another_thread(fd);
    serve_text(server, "END\r\n");
    usleep(20000);
    dial(port_here);
    cr_expect(strstr(last_event(), ": discarded: ") != NULL, "%s", last_event());
}

/* A shadow fd that was closed unseen may be the program's by now. */
Test(draining, shadow_fd_reused_unseen, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here);
    long server = accept_here();
    int pair[2], shadow;

    send_text(fd, "get a\r\n");
    close_by_another_thread(fd);
    EXPECT_EVENT(": kept, draining");
    shadow = shadow_fd();
    cr_assert(unseen(SYS_socketpair, AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    cr_assert(unseen(SYS_dup3, pair[0], shadow, 0) == shadow);
    serve_text(pair[1], "END\r\n");
    serve_text(server, "END\r\n");
    usleep(20000);
    dial(port_here);
    cr_expect(strstr(last_event(), ": discarded: OTHER_SOCKET ") != NULL, "%s", last_event());
    expect_text(pair[0], "END\r\n");
}

/* Bytes sent unseen are noticed at once, not only when the connection would be reused. */
Test(draining, said_behind_our_back, .timeout = 20)
{
    int fd = dial_server();

    send_text(fd, "get nothing\r\n");
    unseen(SYS_write, fd, "get nothing\r\n", 13);
    usleep(50000);
    close(fd);
    EXPECT_NOT_KEPT("UNSEEN_BYTES");
}

/* A forked child leaves the draining connections alone, and the parent can still drain them. */
Test(draining, over_a_fork, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), port = local_port(fd);
    long server = accept_here();
    pid_t child;

    send_text(fd, "get a\r\n");
    close_by_another_thread(fd);
    child = fork();
    if (child == 0) {
        fd = dial(port_here);
        _exit(local_port(fd) == port);
    }
    expect_good_end(child);
    unseen(SYS_close, accept_here());
    serve_text(server, "END\r\n");
    usleep(20000);
    cr_expect(local_port(dial(port_here)) == port);
}

/* A thread that gives up on a reply and connects again wants another connection, as another
 * server may be behind the address by now. Another thread may have the one that was given up,
 * and after a second the same one: a slow server must not get more and more connections. */
Test(draining, not_back_to_the_thread_that_gave_up, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), port = local_port(fd);
    long server = accept_here();

    send_text(fd, "get a\r\n");
    close(fd);
    EXPECT_EVENT(": kept, draining");
    serve_text(server, "END\r\n");
    usleep(20000);
    fd = dial(port_here);
    cr_expect(local_port(fd) != port);
    usleep(1100000);
    cr_expect(local_port(dial(port_here)) == port);
}

static void *dial_for_port(void *port)
{
    *(int *)port = local_port(dial(port_here));
    return NULL;
}

Test(draining, given_up_for_another_thread, .timeout = 20, .init = listen_for_us)
{
    int fd = dial(port_here), port = local_port(fd), got = 0;
    long server = accept_here();
    pthread_t thread;

    send_text(fd, "get a\r\n");
    close(fd);
    serve_text(server, "END\r\n");
    usleep(20000);
    cr_assert(pthread_create(&thread, NULL, dial_for_port, &got) == 0);
    pthread_join(thread, NULL);
    cr_expect(got == port);
}
