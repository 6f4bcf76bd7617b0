/*
 * Signs of life, and what a death means for other idle connections. A path dies in silence when
 * a socket filter at our end drops what comes in. MCPOOL_KEEPALIVE is 1s here, and 3s where
 * everything takes longer.
 */
#include "harness.h"

#include <errno.h>
#include <linux/filter.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* Longer than keepalive's idle time, so that one probe is unanswered; and than the interval
 * after that, so that two are. */
#define ONE_PROBE  (1000000 * keepalive() + 1500000)
#define TWO_PROBES (1000000 * keepalive() + 7000000)

/* So long that the kernel has sent again what was not acknowledged. */
#define RETRANSMITTED 1500000

/* So long that a connection was certainly idle for less long than the one before. */
#define A_MOMENT (50000 * (useconds_t)slowness())

/* In seconds. */
static useconds_t keepalive(void)
{
    return (useconds_t)atoi(getenv("MCPOOL_KEEPALIVE"));
}

static void silence(int fd)
{
    struct sock_filter drop = BPF_STMT(BPF_RET | BPF_K, 0);
    struct sock_fprog program = {1, &drop};
    long result =
        unseen(SYS_setsockopt, fd, SOL_SOCKET, SO_ATTACH_FILTER, &program, sizeof(program));

    if (result == -EPERM)
        cr_skip_test("this kernel gives socket filters to root only");
    cr_assert(result == 0);
}

static void end_silence(int fd)
{
    int none = 0;

    cr_assert(unseen(SYS_setsockopt, fd, SOL_SOCKET, SO_DETACH_FILTER, &none, sizeof(none)) ==
              0);
}

/* Several connections that are idle, the one at ports[N - 1] for the shortest time. */
static void park_several(int *ports, int n)
{
    int fds[8];

    for (int i = 0; i < n; i++) {
        fds[i] = dial_server();
        ports[i] = local_port(fds[i]);
        exchange(fds[i]);
    }
    for (int i = 0; i < n; i++) {
        close(fds[i]);
        usleep(A_MOMENT);
    }
}

/* The connection is not lost: its answer is read when the path is there again. */
Test(life, without_proof_it_is_asked, .timeout = 40)
{
    int parked = park(), shadow = shadow_fd();
    int fd;

    silence(shadow);
    usleep(ONE_PROBE);
    fd = dial_server();
    cr_expect(log_count(": asked for a sign of life") == 1);
    cr_expect(local_port(fd) != parked, "it was reused without proof");
    exchange(fd);
    end_silence(shadow);
    for (int tries = 0; tries < 100; tries++) {
        int other = dial_server();

        if (local_port(other) == parked) {
            exchange(other);
            return;
        }
        usleep(100000);
    }
    cr_assert_fail("its answer was not read");
}

Test(life, a_living_connection_is_not_asked, .timeout = 40)
{
    int parked = park();
    int fd;

    usleep(ONE_PROBE);
    fd = dial_server();
    cr_expect(local_port(fd) == parked);
    cr_expect(log_count(": asked for a sign of life") == 0);
    exchange(fd);
}

Test(life, keepalives_verdict_speaks_for_the_older, .timeout = 40)
{
    int ports[3];
    int fd;

    park_several(ports, 2);
    ports[2] = park();
    for (fd = LOWEST_PRIVATE; fd < 64; fd++) {
        struct sockaddr_in addr;
        socklen_t len = sizeof(addr);

        if (unseen(SYS_getsockname, fd, &addr, &len) == 0 && ntohs(addr.sin_port) == ports[2])
            silence(fd);
    }
    usleep(TWO_PROBES);
    exchange(dial_server());
    cr_expect(log_count(": discarded: UNANSWERED ") == 1);
    cr_expect(log_count(": discarded: PEER_DIED ") == 1);
}

/* A server that the test itself plays, with calls that the library does not see. */
static int listener, port;
static long served[4];

static void listen_for_us(void)
{
    listener = listen_here(&port);
}

static void serve_one(long fd)
{
    char got[7];

    cr_assert(unseen(SYS_recvfrom, fd, got, sizeof(got), MSG_WAITALL, NULL, NULL) == 7);
    cr_assert(unseen(SYS_write, fd, "END\r\n", 5) == 5);
}

static int dial_and_exchange(int i)
{
    int fd = dial(port);

    served[i] = unseen(SYS_accept4, listener, NULL, NULL, 0);
    send_text(fd, "get a\r\n");
    serve_one(served[i]);
    expect_text(fd, "END\r\n");
    return fd;
}

/* The connections of served[], idle in this order. */
static void park_here(int n)
{
    int fds[4];

    for (int i = 0; i < n; i++)
        fds[i] = dial_and_exchange(i);
    for (int i = 0; i < n; i++) {
        close(fds[i]);
        usleep(A_MOMENT);
    }
}

/* Its late reply came while the path was alive: that is no proof now. */
Test(life, a_drained_connection_needs_proof_too, .timeout = 40, .init = listen_for_us)
{
    int fd = dial_and_exchange(0);

    send_text(fd, "get a\r\n");
    close(fd);
    EXPECT_EVENT(": kept, draining");
    serve_one(served[0]);
    usleep(A_MOMENT);
    silence(shadow_fd());
    usleep(ONE_PROBE);
    dial(port);
    cr_expect(log_count(": asked for a sign of life") == 1);
    cr_expect(log_count(": reused as ") == 0);
}

/* The server ends the connection without a reply, with a reset if RESET. */
static void hang_up(long fd, bool reset)
{
    struct linger linger = {.l_onoff = reset, .l_linger = 0};

    cr_assert(unseen(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) == 0);
    cr_assert(unseen(SYS_close, fd) == 0);
}

static void expect_first_death_to_speak(bool reset)
{
    char byte;
    int fd;

    park_here(3);
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    send_text(fd, "get a\r\n");
    cr_assert(unseen(SYS_recvfrom, served[2], &byte, 1, MSG_PEEK, NULL, NULL) == 1);
    hang_up(served[2], reset);
    cr_expect(recv(fd, &byte, 1, 0) == (reset ? -1 : 0));
    cr_expect(!reset || errno == ECONNRESET, "errno is kept");
    cr_expect(log_count(": discarded: PEER_DIED ") == 2);
    cr_expect(recv(fd, &byte, 1, 0) == 0);
    close(fd);
    cr_expect(log_count(": discarded: ") == 2);
}

Test(life, a_reset_speaks_for_the_older, .timeout = 40, .init = listen_for_us)
{
    expect_first_death_to_speak(true);
}

/* With a request unread in its buffer the kernel would send a reset. */
Test(life, an_end_of_file_speaks_for_the_older, .timeout = 40, .init = listen_for_us)
{
    char byte;
    int fd;

    park_here(3);
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    send_text(fd, "get a\r\n");
    for (int i = 0; i < 7; i++)
        cr_assert(unseen(SYS_recvfrom, served[2], &byte, 1, 0, NULL, NULL) == 1);
    hang_up(served[2], false);
    cr_expect(recv(fd, &byte, 1, 0) == 0);
    cr_expect(log_count(": discarded: PEER_DIED ") == 2);
}

Test(life, a_failed_send_speaks_for_the_older, .timeout = 40, .init = listen_for_us)
{
    int fd;

    signal(SIGPIPE, SIG_IGN);
    park_here(2);
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    hang_up(served[1], true);
    cr_expect(send(fd, "get a\r\n", 7, 0) == -1 && (errno == ECONNRESET || errno == EPIPE));
    cr_expect(log_count(": discarded: PEER_DIED ") == 1);
}

/* What has come back since the dead one was reused has had a reply since. */
Test(life, a_death_does_not_speak_for_the_younger, .timeout = 40, .init = listen_for_us)
{
    char byte;
    int dead, younger;

    park_here(2);
    dead = dial(port);
    younger = dial(port);
    send_text(younger, "get a\r\n");
    serve_one(served[0]);
    expect_text(younger, "END\r\n");
    close(younger);
    hang_up(served[1], true);
    cr_expect(recv(dead, &byte, 1, 0) == -1);
    cr_expect(log_count(": discarded: ") == 0);
    younger = dial(port);
    EXPECT_EVENT(": reused as ");
}

/* An end behind a first reply, one that the program asked for, and no end at all. */
Test(life, other_ends_speak_for_nothing, .timeout = 40, .init = listen_for_us)
{
    int opened = dial(port);
    char byte;
    int fd;

    served[3] = unseen(SYS_accept4, listener, NULL, NULL, 0);
    park_here(3);
    hang_up(served[3], false);
    cr_expect(recv(opened, &byte, 1, 0) == 0);
    close(opened);
    EXPECT_NOT_KEPT("UNUSED");
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    cr_expect(recv(fd, &byte, 1, MSG_DONTWAIT) == -1 && errno == EAGAIN);
    send_text(fd, "get a\r\n");
    serve_one(served[2]);
    cr_expect(recv(fd, &byte, 0, 0) == 0);
    expect_text(fd, "END\r\n");
    hang_up(served[2], false);
    cr_expect(recv(fd, &byte, 1, 0) == 0);
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    send_text(fd, "watch\r\n");
    for (int i = 0; i < 7; i++)
        cr_assert(unseen(SYS_recvfrom, served[1], &byte, 1, 0, NULL, NULL) == 1);
    hang_up(served[1], false);
    cr_expect(recv(fd, &byte, 1, 0) == 0);
    cr_expect(log_count(": discarded: PEER_DIED ") == 0);
}

/* Two idle connections, of which the later one is in use on a dead path, with a reply owed. */
static int stalled(int ports[2])
{
    int fd;

    park_several(ports, 2);
    fd = dial_server();
    cr_assert(local_port(fd) == ports[1]);
    silence(fd);
    send_text(fd, "get a\r\n");
    return fd;
}

/* One that came back since the path died has had a reply since. */
Test(life, a_stall_does_not_have_the_younger_asked, .timeout = 40)
{
    int ports[2];
    int fd = stalled(ports), younger;

    younger = dial_server();
    cr_expect(local_port(younger) == ports[0]);
    usleep(RETRANSMITTED);
    exchange(younger);
    close(younger);
    close(fd);
    EXPECT_EVENT(": kept, draining");
    fd = dial_server();
    cr_expect(local_port(fd) == ports[0] && log_count(": asked for a sign of life") == 0);
}

/* The program gives up on a reply on a dead path. */
Test(life, a_stall_has_the_older_asked, .timeout = 40)
{
    int ports[2];
    int fd = stalled(ports), other;

    usleep(RETRANSMITTED);
    close(fd);
    EXPECT_EVENT(": kept, draining");
    other = dial_server();
    cr_expect(log_count(": asked for a sign of life") == 1);
    exchange(other);
}

/* No retransmission: a slow server is no dead one. */
Test(life, a_slow_reply_has_nothing_asked, .timeout = 40, .init = listen_for_us)
{
    int fd;

    park_here(2);
    fd = dial(port);
    send_text(fd, "get a\r\n");
    usleep(RETRANSMITTED / 2);
    close(fd);
    EXPECT_EVENT(": kept, draining");
    fd = dial(port);
    EXPECT_EVENT(": reused as ");
    cr_expect(log_count(": asked for a sign of life") == 0);
}
