/*
 * Waiting: poll, select, and epoll in every mode.
 */
#include "program.h"

#include <signal.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>

static int epoll_on(int fd, uint32_t events)
{
    struct epoll_event event = {events, {.u64 = 42}};
    int epfd = (int)STEP(epoll_create1(EPOLL_CLOEXEC));

    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
    return epfd;
}

static void say_events(int epfd, int patience)
{
    struct epoll_event got[4];
    int n = epoll_wait(epfd, got, 4, patience);

    SAY("events: %d", n);
    for (int i = 0; i < n; i++)
        SAY(", %x of %lu", got[i].events, (unsigned long)got[i].data.u64);
    SAY("\n");
}

POOLED_PROGRAM(states_seen_by_poll)
{
    park();
    for (int i = 0; i < 2; i++) {
        struct pollfd wanted = {.events = POLLIN | POLLOUT | POLLRDHUP | POLLPRI};
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

        wanted.fd = fd;
        STEP(poll(&wanted, 1, 0));
        SAY("unconnected: %x\n", wanted.revents);
        STEP(connect(fd, SERVER));
        STEP(poll(&wanted, 1, 0));
        SAY("connected: %x\n", wanted.revents);
        tell(fd, "get one\r\n");
        wait_for(fd, POLLIN);
        STEP(poll(&wanted, 1, 0));
        SAY("answered: %x\n", wanted.revents);
        hear_until(fd, "END\r\n");
        STEP(poll(&wanted, 1, 0));
        SAY("heard: %x\n", wanted.revents);
        STEP(close(fd));
        STEP(poll(&wanted, 1, 0));
        SAY("closed: %x\n", wanted.revents);
    }
}

PROGRAM(hang_up_seen_by_poll)
{
    struct pollfd wanted = {.events = POLLIN | POLLRDHUP};
    int fd;

    park();
    fd = dial();
    tell(fd, "get drop\r\n");
    wait_for(fd, POLLRDHUP);
    wanted.fd = fd;
    STEP(poll(&wanted, 1, 0));
    SAY("dropped: %x\n", wanted.revents);
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(close(fd));
    park();
}

POOLED_PROGRAM(polled_in_company)
{
    struct pollfd wanted[4];
    int first, second;

    park();
    first = dial();
    second = dial();
    tell(second, "get one\r\n");
    wanted[0] = (struct pollfd){first, POLLIN, 0};
    wanted[1] = (struct pollfd){-1, POLLIN, 0};
    wanted[2] = (struct pollfd){second, POLLIN, 0};
    wanted[3] = (struct pollfd){4711, POLLIN, 0};
    wait_for(second, POLLIN);
    STEP(poll(wanted, 4, 1000));
    for (int i = 0; i < 4; i++)
        SAY("%d: %x\n", i, wanted[i].revents);
    STEP(poll(wanted, 2, 20));
    STEP(poll(wanted, 0, 20));
    STEP(ppoll(wanted, 3, &(struct timespec){1, 0}, NULL));
    hear_until(second, "END\r\n");
    STEP(close(second));
    STEP(close(first));
}

POOLED_PROGRAM(selected)
{
    park();
    for (int i = 0; i < 2; i++) {
        fd_set readable, writable, odd;
        int fd = dial();

        FD_ZERO(&readable);
        FD_ZERO(&odd);
        FD_SET(fd, &readable);
        FD_SET(fd, &odd);
        writable = readable;
        STEP(select(fd + 1, &readable, &writable, &odd, &(struct timeval){1, 0}));
        SAY("%d %d %d\n", FD_ISSET(fd, &readable), FD_ISSET(fd, &writable), FD_ISSET(fd, &odd));
        tell(fd, "get one\r\n");
        FD_SET(fd, &readable);
        STEP(pselect(fd + 1, &readable, NULL, NULL, &(struct timespec){5, 0}, NULL));
        SAY("%d\n", FD_ISSET(fd, &readable));
        hear_until(fd, "END\r\n");
        STEP(select(fd + 1, &readable, NULL, NULL, &(struct timeval){0, 20000}));
        STEP(close(fd));
        FD_SET(fd, &readable);
        STEP(select(fd + 1, &readable, NULL, NULL, &(struct timeval){0, 0}));
    }
}

PROGRAM(bad_waits)
{
    void *volatile nowhere = (void *)8;
    struct timeval backwards = {-1, 0};

    park();
    STEP(poll(nowhere, 1, 10));
    STEP(poll(NULL, 0, 10));
    STEP(poll(nowhere, 5000000, 10));
    STEP(select(10, nowhere, NULL, NULL, &(struct timeval){0, 10}));
    STEP(select(-1, NULL, NULL, NULL, &(struct timeval){0, 10}));
    STEP(select(0, NULL, NULL, NULL, &backwards));
    STEP(select(0, NULL, NULL, NULL, nowhere));
    STEP(ppoll(NULL, 0, nowhere, NULL));
}

/* Registered with MODE before or after connect(), and used twice at the same fd. */
static void watched(uint32_t mode, bool before)
{
    park();
    for (int i = 0; i < 3; i++) {
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));
        int epfd = -1;

        if (before)
            epfd = epoll_on(fd, EPOLLIN | mode);
        STEP(connect(fd, SERVER));
        wait_for(fd, POLLOUT);
        if (!before)
            epfd = epoll_on(fd, EPOLLIN | mode);
        else
            say_events(epfd, 0); /* what an unconnected socket reports */
        say_events(epfd, 0);
        tell(fd, "get one\r\n");
        say_events(epfd, 5000);
        say_events(epfd, 0);
        STEP(fcntl(fd, F_SETFL, 0));
        hear_until(fd, "END\r\n");
        say_events(epfd, 0);
        STEP(close(fd));
        say_events(epfd, 20);
        STEP(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
        STEP(close(epfd));
    }
}

POOLED_PROGRAM(epoll_level)
{
    watched(0, false);
}

POOLED_PROGRAM(epoll_edge)
{
    watched(EPOLLET, false);
}

POOLED_PROGRAM(epoll_one_shot)
{
    watched(EPOLLONESHOT, false);
}

POOLED_PROGRAM(epoll_exclusive)
{
    watched(EPOLLEXCLUSIVE, false);
}

POOLED_PROGRAM(epoll_edge_and_hang_up)
{
    watched(EPOLLET | EPOLLRDHUP, false);
}

/* One set for several connections that are closed without being removed from it. */
POOLED_PROGRAM(epoll_without_removals)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    int epfd = (int)STEP(epoll_create1(0));

    park();
    for (uint64_t i = 0; i < 4; i++) {
        int fd = dial();

        event.data.u64 = i;
        STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
        tell(fd, "get one\r\n");
        say_events(epfd, 5000);
        hear_until(fd, "END\r\n");
        STEP(close(fd));
        say_events(epfd, 20);
    }
}

PROGRAM(epoll_of_epolls)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 7}};
    int fd, inner, outer;

    park();
    fd = dial();
    inner = epoll_on(fd, EPOLLIN);
    outer = (int)STEP(epoll_create(1));
    STEP(epoll_ctl(outer, EPOLL_CTL_ADD, inner, &event));
    STEP(epoll_ctl(inner, EPOLL_CTL_ADD, outer, &event));
    say_events(outer, 0);
    tell(fd, "get one\r\n");
    say_events(outer, 5000);
    say_events(inner, 0);
    hear_until(fd, "END\r\n");
    say_events(outer, 0);
    STEP(close(fd));
    say_events(outer, 20);
}

PROGRAM(epoll_with_a_duplicate)
{
    struct epoll_event event = {EPOLLIN | EPOLLOUT, {.u64 = 9}};
    int fd, epfd, copy;

    park();
    fd = dial();
    epfd = epoll_on(fd, EPOLLIN);
    copy = (int)STEP(dup(epfd));
    STEP(epoll_ctl(copy, EPOLL_CTL_MOD, fd, &event));
    STEP(close(epfd));
    say_events(copy, 0);
    tell(fd, "get one\r\n");
    wait_for(fd, POLLIN);
    say_events(copy, 5000);
    hear_until(fd, "END\r\n");
    STEP(close(fd));
    say_events(copy, 20);
}

/* A duplicate keeps the registration alive. */
PROGRAM(epoll_on_a_duplicate)
{
    int fd, copy, epfd;

    park();
    fd = dial();
    epfd = epoll_on(fd, EPOLLIN);
    copy = (int)STEP(dup(fd));
    STEP(close(fd));
    tell(copy, "get one\r\n");
    say_events(epfd, 5000);
    hear_until(copy, "END\r\n");
    STEP(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
    STEP(close(copy));
    say_events(epfd, 20);
}

PROGRAM(bad_registrations)
{
    struct epoll_event event = {EPOLLIN, {.u64 = 1}};
    void *volatile nowhere = (void *)8;
    int fd, epfd;

    park();
    STEP(epoll_create(0));
    STEP(epoll_create1(4711));
    fd = dial();
    epfd = epoll_on(fd, EPOLLIN);
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, epfd, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, 4711, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, -1, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_MOD, 0, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_MOD, fd, nowhere));
    STEP(epoll_ctl(epfd, 4711, fd, &event));
    STEP(epoll_ctl(fd, EPOLL_CTL_ADD, fd, &event));
    STEP(epoll_ctl(-1, EPOLL_CTL_ADD, fd, &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_ADD, open("/dev/null", O_RDONLY), &event));
    STEP(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
    STEP(epoll_ctl(epfd, EPOLL_CTL_DEL, fd, NULL));
    ask(fd, "one");
    STEP(close(fd));
}

static volatile sig_atomic_t signals;

static void count_signal(int signal)
{
    (void)signal;
    signals = signals + 1;
}

static void signalled(bool by_ioctl)
{
    int fd;

    signal(SIGIO, count_signal);
    park();
    fd = dial();
    STEP(fcntl(fd, F_SETOWN, getpid()) == 0);
    STEP(fcntl(fd, F_GETOWN) == getpid());
    if (by_ioctl)
        STEP(ioctl(fd, FIOASYNC, &(int){1}));
    else
        STEP(fcntl(fd, F_SETFL, O_ASYNC));
    STEP(fcntl(fd, F_GETFL));
    tell(fd, "get one\r\n");
    while (signals == 0)
        usleep(1000);
    hear_until(fd, "END\r\n");
    STEP(fcntl(fd, F_SETFL, 0));
    STEP(close(fd));
    signals = 0;
    fd = dial();
    ask(fd, "two");
    STEP(close(fd));
    SAY("signals of others: %d\n", signals);
}

PROGRAM(signals_asked_for_by_fcntl)
{
    signalled(false);
}

PROGRAM(signals_asked_for_by_ioctl)
{
    signalled(true);
}

/* As Java's virtual threads wait: the registration is still there, and has fired, when the
 * program sends its quit. */
POOLED_PROGRAM(one_shot_until_the_quit)
{
    int set = (int)STEP(epoll_create1(EPOLL_CLOEXEC));

    for (int i = 0; i < 6; i++) {
        struct epoll_event event = {EPOLLIN | EPOLLONESHOT, {.u64 = 7}}, got = {0};
        int fd = dial();

        STEP(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event));
        STEP(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
        tell(fd, "get one\r\n");
        STEP(epoll_wait(set, &got, 1, 1000));
        hear_until(fd, "END\r\n");
        if (i == 5)
            STEP(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event));
        STEP(shutdown(fd, SHUT_WR));
        STEP(epoll_wait(set, &got, 1, i == 5 ? 1000 : 50));
        if (i == 1)
            STEP(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
        if (i == 2 || i == 3) {
            event.data.u64 = 8;
            STEP(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event));
            STEP(epoll_ctl(set, EPOLL_CTL_MOD, fd, &event));
            STEP(epoll_wait(set, &got, 1, 1000));
            SAY("%u %u\n", (unsigned int)(got.events & EPOLLIN), (unsigned int)got.data.u64);
        }
        if (i == 3)
            STEP(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
        if (i > 2)
            STEP(epoll_ctl(set, EPOLL_CTL_DEL, fd, NULL));
        STEP(read(fd, &(char){0}, 1));
        STEP(close(fd));
    }
}
