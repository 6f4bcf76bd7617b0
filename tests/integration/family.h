/*
 * What the tests of the family need: connections of several processes, and their queues. Each
 * file has a suite of its own, whose .init is share_memory(). Included last, as alone.h is.
 */
#ifndef MCPOOL_TEST_FAMILY_H
#define MCPOOL_TEST_FAMILY_H

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "pool/account.h"
#include "pool/family.h"

#include "alone.h"

/* What the processes of a test tell each other. */
static struct told {
    int port; /* of the connection that a child had last */
    int result;
} * told;

static inline void share_memory(void)
{
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

/* As exchange(), in a child. */
static inline void ask(int fd)
{
    char answer[5] = "";

    cr_assert(send(fd, "get nothing\r\n", 13, MSG_NOSIGNAL) == 13);
    cr_assert(recv(fd, answer, 5, MSG_WAITALL) == 5, "errno %d", errno);
    cr_assert(memcmp(answer, "END\r\n", 5) == 0, "%.5s", answer);
}

/* As park(), in a child. */
static inline int use_one(void)
{
    int fd = dial_server();
    int port = local_port(fd);

    ask(fd);
    cr_assert(close(fd) == 0);
    return port;
}

static inline void wait_for(pid_t child)
{
    int status;

    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

/* BODY runs in a child, which then ends by _exit(). */
static inline void in_child(void (*body)(void))
{
    pid_t child = fork();

    if (child == 0) {
        body();
        _exit(failures > 0);
    }
    wait_for(child);
}

/* BODY runs in a child, until stop() ends that. */
static inline pid_t start(void (*body)(int), int argument)
{
    pid_t child = fork();

    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        body(argument);
        _exit(1);
    }
    return child;
}

static inline void stop(pid_t child)
{
    kill(child, SIGKILL);
    waitpid(child, NULL, 0);
}

static inline void give_one(void)
{
    told->port = use_one();
}

/* Closes FD in a way that it is not kept. */
static inline void end_for_good(int fd)
{
    cr_assert(send(fd, "get ", 4, MSG_NOSIGNAL) == 4);
    cr_assert(close(fd) == 0);
}

/* The port of the next connection, which is not kept. */
static inline int port_of_next(void)
{
    int fd = dial_server();
    int port = local_port(fd);

    ask(fd);
    end_for_good(fd);
    return port;
}

#define EXPECT_TAKEN()                                                                         \
    do {                                                                                       \
        int port_ = port_of_next();                                                            \
        cr_expect(port_ == told->port, "%d, not %d", port_, told->port);                       \
    } while (0)
#define EXPECT_NOT_TAKEN() cr_expect(port_of_next() != told->port)

/* The fds of the queues of this process, which are above all fds of the test. */
#define QUEUES FAMILY_QUEUES

static inline size_t find_queues(int *queues)
{
    size_t n = 0;

    for (int fd = LOWEST_PRIVATE; fd < 65536 && n < QUEUES; fd++) {
        int domain = 0;
        socklen_t length = sizeof(domain);

        queues[n] = fd;
        n += unseen(SYS_getsockopt, fd, SOL_SOCKET, SO_DOMAIN, &domain, &length) == 0 &&
             domain == AF_UNIX;
    }
    return n;
}

static inline size_t count_queues(void)
{
    int queues[QUEUES];

    return find_queues(queues);
}

static inline unsigned int count_queued(void)
{
    unsigned int queued = 0, one = 0;
    int queues[QUEUES], ends[2];
    char message[sizeof(struct account)] = {0};

    cr_assert(unseen(SYS_socketpair, AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
    cr_assert(unseen(SYS_write, ends[0], message, sizeof(message)) == sizeof(message));
    cr_assert(unseen(SYS_ioctl, ends[0], TIOCOUTQ, &one) == 0 && one > 0);
    for (size_t i = 0; i < find_queues(queues); i++) {
        unsigned int size = 0;

        unseen(SYS_ioctl, queues[i], TIOCOUTQ, &size);
        queued += size / one;
    }
    unseen(SYS_close, ends[0]);
    unseen(SYS_close, ends[1]);
    return queued;
}

static inline void by_exit_now(void)
{
    _exit(0);
}

#endif
