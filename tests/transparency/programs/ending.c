/*
 * The end of a connection: shutdown() in each direction at each moment, quits, SO_LINGER,
 * hang-ups of the peer.
 */
#include "program.h"

#include <signal.h>
#include <sys/epoll.h>

static void hear_the_end(int fd)
{
    struct pollfd wanted = {fd, POLLIN | POLLRDHUP, 0};

    STEP(poll(&wanted, 1, 5000));
    /* A pooled connection reports POLLHUP at its end whichever way it was ended. */
    SAY("end: %x\n", wanted.revents & ~POLLHUP);
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(recv(fd, &(char){0}, 1, 0));
}

POOLED_PROGRAM(shut_for_writing)
{
    for (int i = 0; i < 3; i++) {
        int fd = dial();

        ask(fd, "one");
        STEP(shutdown(fd, SHUT_WR));
        STEP(send(fd, "x", 1, MSG_NOSIGNAL));
        hear_the_end(fd);
        STEP(close(fd));
        STEP(close(fd));
    }
}

POOLED_PROGRAM(shut_for_both)
{
    for (int i = 0; i < 3; i++) {
        int fd = dial();

        ask(fd, "one");
        STEP(shutdown(fd, SHUT_RDWR));
        hear_the_end(fd);
        STEP(send(fd, "x", 1, MSG_NOSIGNAL));
        STEP(close(fd));
    }
}

PROGRAM(shut_for_reading)
{
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(shutdown(fd, SHUT_RD));
    hear_the_end(fd);
    STEP(shutdown(fd, 4711));
    STEP(close(fd));
    park();
}

PROGRAM(shut_before_anything_was_said)
{
    int fd;

    park();
    fd = dial();
    STEP(shutdown(fd, SHUT_WR));
    hear_the_end(fd);
    STEP(close(fd));
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    STEP(shutdown(fd, SHUT_RDWR));
    STEP(close(fd));
}

PROGRAM(shut_with_an_answer_owed)
{
    int fd;

    park();
    fd = dial();
    tell(fd, "get slow\r\n");
    STEP(shutdown(fd, SHUT_WR));
    hear_until(fd, "END\r\n");
    hear_the_end(fd);
    STEP(close(fd));
    park();
}

PROGRAM(shut_with_an_answer_unread)
{
    int fd;

    park();
    fd = dial();
    tell(fd, "get one\r\n");
    wait_for(fd, POLLIN);
    STEP(shutdown(fd, SHUT_RDWR));
    hear_until(fd, "END\r\n");
    STEP(close(fd));
    park();
}

POOLED_PROGRAM(shut_and_watched)
{
    struct epoll_event event = {EPOLLIN | EPOLLRDHUP, {.u64 = 5}}, got;

    for (int i = 0; i < 2; i++) {
        int epfd = (int)STEP(epoll_create1(0));
        int fd = dial();

        STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
        ask(fd, "one");
        STEP(shutdown(fd, SHUT_WR));
        STEP(epoll_wait(epfd, &got, 1, 5000));
        SAY("of %lu, readable %d\n", (unsigned long)got.data.u64, (got.events & EPOLLIN) != 0);
        STEP(recv(fd, &(char){0}, 1, 0));
        STEP(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
        STEP(close(fd));
        STEP(close(epfd));
    }
}

POOLED_PROGRAM(quit)
{
    for (int i = 0; i < 3; i++) {
        int fd = dial();

        ask(fd, "one");
        STEP(send(fd, "quit\r\n", 6, 0));
        hear_the_end(fd);
        STEP(close(fd));
    }
}

POOLED_PROGRAM(quit_behind_a_question)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        STEP(send(fd, "get one\r\nquit\r\n", 15, 0));
        hear_until(fd, "END\r\n");
        hear_the_end(fd);
        STEP(close(fd));
    }
    park();
}

PROGRAM(lingering)
{
    struct linger hard = {1, 0}, soft = {1, 1};
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(setsockopt(fd, SOL_SOCKET, SO_LINGER, &hard, sizeof(hard)));
    STEP(close(fd));
    fd = dial();
    STEP(setsockopt(fd, SOL_SOCKET, SO_LINGER, &soft, sizeof(soft)));
    ask(fd, "two");
    STEP(close(fd));
}

PROGRAM(dropped)
{
    int fd;

    park();
    fd = dial();
    tell(fd, "get drop\r\n");
    hear_the_end(fd);
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    usleep(50000);
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(close(fd));
    fd = dial();
    ask(fd, "one");
}

PROGRAM(reset)
{
    int error = 0;
    socklen_t len = sizeof(error);
    int fd;

    park();
    fd = dial();
    tell(fd, "get reset\r\n");
    wait_for(fd, POLLIN);
    STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    SAY("SO_ERROR %d\n", error);
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(close(fd));
    fd = dial();
    tell(fd, "get reset\r\n");
    wait_for(fd, POLLIN);
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(close(fd));
}

/* The server closes the idle connection: the next user does not notice. */
POOLED_PROGRAM(dropped_while_idle)
{
    int fd;

    park();
    fd = dial();
    ask(fd, "then-drop");
    STEP(close(fd));
    usleep(100000);
    for (int i = 0; i < 2; i++) {
        fd = dial();
        ask(fd, "one");
        STEP(close(fd));
    }
}

/* The server sends something that no request asked for. */
PROGRAM(stray_bytes)
{
    int fd;

    park();
    fd = dial();
    ask(fd, "then-stray");
    STEP(close(fd));
    usleep(100000);
    fd = dial();
    ask(fd, "one");
    STEP(close(fd));
}

POOLED_PROGRAM(closed_with_answers_owed)
{
    park();
    for (int i = 0; i < 4; i++) {
        int fd = dial();

        tell(fd, i % 2 ? "get slow\r\n" : "get first\r\nget second\r\n");
        STEP(close(fd));
        fd = dial();
        ask(fd, "one");
        STEP(close(fd));
        usleep(i % 2 ? 200000 : 1000);
    }
}

PROGRAM(closed_in_the_middle_of_a_question)
{
    int fd;

    park();
    fd = dial();
    tell(fd, "get on");
    STEP(close(fd));
    fd = dial();
    ask(fd, "one");
    tell(fd, "set k 0 0 10\r\nabc");
    STEP(close(fd));
    fd = dial();
    ask(fd, "two");
}

static volatile sig_atomic_t signals;

static void count_signal(int signal)
{
    (void)signal;
    signals = signals + 1;
}

PROGRAM(writing_to_a_closed_pipe)
{
    int fd;

    signal(SIGPIPE, count_signal);
    park();
    fd = dial();
    ask(fd, "one");
    STEP(shutdown(fd, SHUT_WR));
    STEP(write(fd, "x", 1));
    STEP(send(fd, "x", 1, 0));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    SAY("signals: %d\n", signals);
    STEP(close(fd));
}

PROGRAM(killed_by_a_closed_pipe)
{
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(shutdown(fd, SHUT_WR));
    STEP(write(fd, "x", 1));
    SAY("alive\n");
}
