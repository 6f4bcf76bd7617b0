/*
 * The counters that other processes can read: of a process that works, forks, is killed,
 * executes another program or changes its user.
 */
#include "harness.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

static const struct stats *stats_of(pid_t pid)
{
    return stats_at(pid, server_port());
}

/* After a wait, in which the library had time to write its counters. */
static const struct stats *ours(void)
{
    const struct stats *stats;

    cr_assert(poll(NULL, 0, 1200) == 0);
    stats = stats_of(getpid());
    cr_assert(stats);
    return stats;
}

static void turn(void)
{
    int fd = dial_server();

    exchange(fd);
    close(fd);
}

Test(stats, are_those_of_the_log, .timeout = 20)
{
    cr_expect(stats_of(getpid()) == NULL, "nothing is published before the first connection");
    for (int i = 0; i < 5; i++)
        turn();
    cr_expect(ours()->connects == 5 && ours()->opened == 1 && ours()->reused == 4);
    cr_expect(ours()->kept == 5 && ours()->idle == 1 && ours()->in_use == 0);
}

Test(stats, in_use_and_idle, .timeout = 20)
{
    int fds[3];

    for (int i = 0; i < 3; i++)
        exchange(fds[i] = dial_server());
    cr_expect(ours()->in_use == 3 && ours()->idle == 0);
    close(fds[0]);
    cr_expect(ours()->in_use == 2 && ours()->idle == 1);
    send_text(fds[1], "get a\r\n");
    send_text(fds[1], "get ");
    close(fds[1]);
    cr_expect(ours()->in_use == 1 && ours()->refused[REASON_REQUEST_PARTIAL] == 1);
}

Test(stats, most_in_use, .timeout = 20)
{
    int fds[3];

    for (int i = 0; i < 3; i++)
        exchange(fds[i] = dial_server());
    for (int i = 0; i < 3; i++)
        close(fds[i]);
    for (int i = 0; i < 5; i++)
        turn();
    cr_expect(ours()->most_in_use == 3 && ours()->in_use == 0);
}

/* Of a refused connection nothing is counted. */
Test(stats, sends_are_counted_in_steps, .timeout = 20)
{
    int fd = dial_server();

    for (int i = 0; i < 2 * STATS_SENDS + 1; i++)
        exchange(fd);
    cr_expect(ours()->sends == 2 * STATS_SENDS);
    cr_assert(shutdown(fd, SHUT_RD) == 0);
    for (int i = 0; i < 2 * STATS_SENDS; i++)
        send_text(fd, "get a\r\n");
    cr_expect(ours()->sends == 2 * STATS_SENDS);
    close(fd);
}

Test(stats, blocking_connects_are_timed, .timeout = 20)
{
    turn();
    turn();
    cr_expect(ours()->connects_timed == 1);
    cr_expect(ours()->connect_us > 0 && ours()->connect_us < 5000000);
}

Test(stats, other_connects_are_timed_by_their_handshake, .timeout = 20)
{
    struct sockaddr_in addr;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);

    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
                  0 ||
              errno == EINPROGRESS);
    usleep(300000);
    cr_expect(ours()->connects_timed == 0);
    fcntl(fd, F_SETFL, 0);
    exchange(fd);
    exchange(fd);
    cr_expect(ours()->connects_timed == 1);
    cr_expect(ours()->connect_us > 0 && ours()->connect_us < 200000,
              "%lu, what the program does meanwhile is not counted",
              (unsigned long)ours()->connect_us);
}

/* The server closes the connection SERVED, and FD has its end before a reply. */
static void die_before_reply(int fd, long served)
{
    char got[7];

    send_text(fd, "get a\r\n");
    cr_assert(unseen(SYS_recvfrom, served, got, 7, MSG_WAITALL, NULL, NULL) == 7);
    cr_assert(unseen(SYS_close, served) == 0);
    cr_expect(recv(fd, got, 1, 0) == 0);
    close(fd);
}

/* A new connection that dies says nothing of the idle ones. */
Test(stats, deaths_are_those_of_reused_connections, .timeout = 20)
{
    int port, listener = listen_here(&port);
    char got[7];
    long served;
    int fd;

    fd = dial(port);
    die_before_reply(fd, unseen(SYS_accept4, listener, NULL, NULL, 0));
    fd = dial(port);
    served = unseen(SYS_accept4, listener, NULL, NULL, 0);
    send_text(fd, "get a\r\n");
    cr_assert(unseen(SYS_recvfrom, served, got, 7, MSG_WAITALL, NULL, NULL) == 7);
    cr_assert(unseen(SYS_write, served, "END\r\n", 5) == 5);
    expect_text(fd, "END\r\n");
    close(fd);
    cr_assert(poll(NULL, 0, 1200) == 0);
    cr_assert(stats_at(getpid(), port));
    cr_expect(stats_at(getpid(), port)->deaths == 0);
    die_before_reply(dial(port), served);
    cr_assert(poll(NULL, 0, 1200) == 0);
    cr_expect(stats_at(getpid(), port)->deaths == 1);
}

Test(stats, a_child_counts_for_itself, .timeout = 20)
{
    pid_t child;

    turn();
    turn();
    child = fork();
    if (child == 0) {
        if (stats_file_of(getpid()))
            _exit(1);
        turn();
        _exit(stats_of(getpid()) && stats_of(getpid())->connects == 1 &&
                      stats_of(getpid())->opened == 1
                  ? 0
                  : 2);
    }
    expect_good_end(child);
    /* Idle for a second, it went to the family. */
    cr_expect(ours()->connects == 2 && ours()->idle + ours()->given == 1);
}

/* No fork handler runs in such a child, and it has our memory. */
Test(stats, a_child_without_handlers_counts_nothing, .timeout = 20)
{
    int fd = dial_server();
    struct stats before;
    pid_t child;

    exchange(fd);
    turn();
    child = _Fork();
    if (child == 0) {
        close(fd);
        turn();
        _exit(stats_file_of(getpid()) ? 1 : 0);
    }
    before = *ours();
    expect_good_end(child);
    cr_expect(memcmp(&before, ours(), sizeof(before)) == 0);
    child = vfork();
    if (child == 0) {
        close(dial_server());
        _exit(0);
    }
    expect_good_end(child);
    cr_expect(memcmp(&before, ours(), sizeof(before)) == 0);
}

/* Runs LIFE in a child, which first uses one connection; returns its pid when that is done. */
static pid_t child_with(void (*life)(void))
{
    int ends[2];
    char byte;
    pid_t child;

    cr_assert(pipe(ends) == 0);
    child = fork();
    if (child == 0) {
        turn();
        cr_assert(write(ends[1], "", 1) == 1);
        life();
    }
    cr_assert(read(ends[0], &byte, 1) == 1);
    close(ends[0]);
    close(ends[1]);
    return child;
}

static void stay(void)
{
    pause();
}

static void end(void)
{
    exit(0);
}

Test(stats, the_killed_leave_their_file_to_the_next, .timeout = 20)
{
    pid_t killed = child_with(stay);

    cr_expect(stats_of(killed)->connects == 1);
    kill(killed, SIGKILL);
    waitpid(killed, NULL, 0);
    cr_expect(stats_of(killed)->connects == 1);
    expect_good_end(child_with(end));
    cr_expect(stats_file_of(killed) == NULL);
}

Test(stats, a_normal_end_removes_the_file, .timeout = 20)
{
    pid_t child = child_with(end);

    expect_good_end(child);
    cr_expect(stats_file_of(child) == NULL);
}

/* The pid and the start time stay the same, and the old program is gone. */
Test(stats, exec, .timeout = 20)
{
    const char *again = getenv("TEST_AGAIN");
    pid_t child;

    if (again) {
        turn();
        cr_expect(ours()->connects == 1);
        return;
    }
    child = fork();
    if (child == 0) {
        turn();
        turn();
        setenv("TEST_AGAIN", "1", 1);
        execl("/usr/bin/python3", "python3", "-c",
              "import os, socket\n"
              "s = socket.create_connection(('127.0.0.1', int(os.environ['TEST_PORT'])))\n"
              "name = [n for n in os.listdir(os.environ['MCPOOL_STATS'])\n"
              "        if n.startswith(f'{os.getpid()}-')]\n"
              "file = open(f\"{os.environ['MCPOOL_STATS']}/{name[0]}\", 'rb').read()\n"
              "slot = file[int.from_bytes(file[12:16], 'little'):]\n"
              "assert int.from_bytes(slot[136 + 16:136 + 24], 'little') == 1\n",
              NULL);
        _exit(127);
    }
    expect_good_end(child);
}

/* A server starts as root and its workers do not. */
Test(stats, another_user, .timeout = 20)
{
    pid_t child;

    if (geteuid() != 0)
        cr_skip_test("only root can become another user");
    turn();
    child = fork();
    if (child == 0) {
        if (setgid(65534) != 0 || setuid(65534) != 0)
            _exit(1);
        turn();
        _exit(stats_of(getpid()) && stats_of(getpid())->connects == 1 ? 0 : 2);
    }
    expect_good_end(child);
    cr_expect(ours()->connects == 1);
}

Test(no_stats, work_as_well, .timeout = 20)
{
    turn();
    park();
    cr_expect(log_count(": reused") == 1);
}

Test(dry_stats, say_so, .timeout = 20)
{
    turn();
    turn();
    cr_expect(ours()->connects == 2 && ours()->opened == 2 && ours()->reused == 1);
}
