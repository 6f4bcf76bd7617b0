/*
 * Children: each process has connections of its own, whatever made it; and calls from places
 * where our constructor has not run or our destructor has.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

int close_range(unsigned int first, unsigned int last, int flags);

/* The child answers by its exit code: 0 when all was well. */
static void expect_good_end(pid_t child)
{
    int status;

    cr_assert(waitpid(child, &status, 0) == child);
    cr_expect(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

static int exchange_quietly(int fd)
{
    char answer[8];

    return send(fd, "get nothing\r\n", 13, 0) == 13 && recv(fd, answer, 5, MSG_WAITALL) == 5;
}

Test(children, fork_leaves_the_pool_to_the_parent, .timeout = 20)
{
    int port = park();
    int number = private_number();
    pid_t child = fork();
    int fd;

    if (child == 0) {
        int closed = unseen(SYS_fcntl, number, F_GETFD) == -EBADF;
        int first, again;

        fd = dial_server();
        first = local_port(fd);
        if (!closed || first == port || !exchange_quietly(fd))
            _exit(1);
        close(fd);
        fd = dial_server();
        again = local_port(fd);
        for (int i = 3; i < 9000; i++)
            close(i);
        _exit(first == again ? 0 : 2);
    }
    expect_good_end(child);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

Test(children, connection_in_use_is_shared_for_good, .timeout = 20)
{
    int fd = dial_server();
    pid_t child;

    exchange(fd);
    child = fork();
    if (child == 0) {
        close(fd);
        _exit(log_count(": not kept: FORKED ") == 1 ? 0 : 1);
    }
    expect_good_end(child);
    exchange(fd);
    close(fd);
    EXPECT_NOT_KEPT("FORKED");
}

/* A child of vfork() runs in our memory: what it does to its numbers must not show in ours. */
Test(children, vfork, .timeout = 20)
{
    int port = park();
    int fd = dial_server();
    volatile int spoiled = 0;
    pid_t child;

    cr_assert(local_port(fd) == port);
    exchange(fd);
    park();
    child = vfork();
    if (child == 0) {
        int other = socket(AF_INET, SOCK_STREAM, 0);

        if (other < 0)
            spoiled = 1;
        close(other);
        close(fd);
        close_range(3, ~0U, 0);
        _exit(0);
    }
    expect_good_end(child);
    cr_expect(!spoiled);
    exchange(fd);
    cr_expect(log_count("discarded") == 0, "%s", last_event());
    cr_expect(close(fd) == 0);
    EXPECT_NOT_KEPT("FORKED");
    exchange(dial_server());
    EXPECT_EVENT(": reused as ");
}

/* No handler runs in such a child: everything in it is a plain call. */
Test(children, bare_fork, .timeout = 20)
{
    int port = park();
    pid_t child = _Fork();
    int fd;

    if (child == 0) {
        fd = dial_server();
        if (local_port(fd) == port || !exchange_quietly(fd))
            _exit(1);
        close(fd);
        close_range(3, ~0U, 0);
        _exit(0);
    }
    expect_good_end(child);
    fd = dial_server();
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

/* The library early.so, made by run.sh, connects in its constructor; see early.c. */
Test(children, before_our_constructor, .timeout = 20)
{
    const char *early = getenv("TEST_EARLY");
    char preload[4096];
    pid_t child;

    cr_assert(early != NULL);
    snprintf(preload, sizeof(preload), "%s:%s", getenv("LD_PRELOAD"), early);
    child = fork();
    if (child == 0) {
        setenv("LD_PRELOAD", preload, 1);
        execl("/bin/true", "true", (char *)NULL);
        _exit(127);
    }
    expect_good_end(child);
}
