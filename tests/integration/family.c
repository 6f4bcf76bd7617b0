/*
 * The family: idle connections that go from one process to another. What is given at which end,
 * what a taken connection is like, and what must never be taken.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pool/account.h"

#include "alone.h"

/* What the processes of a test tell each other. */
static struct told {
    int port; /* of the connection that a child had last */
    int result;
} * told;

static void share_memory(void)
{
    told = mmap(NULL, sizeof(*told), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
}

TestSuite(family, .init = share_memory, .timeout = 60);

/* As exchange(), in a child. */
static void ask(int fd)
{
    char answer[5] = "";

    cr_assert(send(fd, "get nothing\r\n", 13, MSG_NOSIGNAL) == 13);
    cr_assert(recv(fd, answer, 5, MSG_WAITALL) == 5, "errno %d", errno);
    cr_assert(memcmp(answer, "END\r\n", 5) == 0, "%.5s", answer);
}

/* As park(), in a child. */
static int use_one(void)
{
    int fd = dial_server();
    int port = local_port(fd);

    ask(fd);
    cr_assert(close(fd) == 0);
    return port;
}

static void wait_for(pid_t child)
{
    int status;

    cr_assert(waitpid(child, &status, 0) == child);
    cr_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %x", status);
}

/* BODY runs in a child, which then ends by _exit(). */
static void in_child(void (*body)(void))
{
    pid_t child = fork();

    if (child == 0) {
        body();
        _exit(failures > 0);
    }
    wait_for(child);
}

static void give_one(void)
{
    told->port = use_one();
}

/* Closes FD in a way that it is not kept. */
static void end_for_good(int fd)
{
    cr_assert(send(fd, "get ", 4, MSG_NOSIGNAL) == 4);
    cr_assert(close(fd) == 0);
}

/* The port of the next connection, which is not kept. */
static int port_of_next(void)
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

static size_t find_queues(int *queues)
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

static size_t count_queues(void)
{
    int queues[QUEUES];

    return find_queues(queues);
}

/* Ends of a process. */

static void by_exit_now(void)
{
    _exit(0);
}

static void by_exit_now_of_c(void)
{
    _Exit(0);
}

static void by_quick_exit(void)
{
    quick_exit(0);
}

static void by_exit(void)
{
    exit(0);
}

static void by_number(void)
{
    syscall(SYS_exit_group, 0);
}

static void given_at_every_end(void)
{
    void (*const ends[])(void) = {by_exit_now, by_exit_now_of_c, by_quick_exit, by_exit,
                                  by_number};

    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        pid_t child = fork();

        if (child == 0) {
            give_one();
            ends[i]();
        }
        wait_for(child);
        EXPECT_TAKEN();
    }
}

Test(family, given_at_every_end)
{
    alone(given_at_every_end);
}

static void lost_when_killed(void)
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        give_one();
        raise(SIGKILL);
    }
    cr_assert(waitpid(child, &status, 0) == child);
    EXPECT_NOT_TAKEN();
}

Test(family, lost_when_killed)
{
    alone(lost_when_killed);
}

static void by_sigaction(int number, void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler};

    cr_assert(sigaction(number, &action, NULL) == 0);
}

static void by_signal(int number, void (*handler)(int))
{
    cr_assert(signal(number, handler) != SIG_ERR);
}

/* In a child that is killed, without destructors, after it has set the HANDLER of NUMBER. */
static void set_and_be_killed(void (*set)(int, void (*)(int)), int number, void (*handler)(int))
{
    pid_t child = fork();
    int status;

    if (child == 0) {
        give_one();
        set(number, handler);
        raise(SIGKILL);
    }
    cr_assert(waitpid(child, &status, 0) == child);
}

static void given_before_a_signal_can_kill(void)
{
    const int deadly[] = {SIGTERM, SIGINT, SIGQUIT, SIGHUP, SIGUSR1, SIGUSR2};

    for (size_t i = 0; i < sizeof(deadly) / sizeof(deadly[0]); i++) {
        set_and_be_killed(by_sigaction, deadly[i], SIG_DFL);
        EXPECT_TAKEN();
        set_and_be_killed(by_signal, deadly[i], SIG_DFL);
        EXPECT_TAKEN();
    }
    set_and_be_killed(by_sigaction, SIGTERM, SIG_IGN);
    EXPECT_NOT_TAKEN();
    set_and_be_killed(by_signal, SIGCHLD, SIG_DFL);
    EXPECT_NOT_TAKEN();
}

Test(family, given_before_a_signal_can_kill)
{
    alone(given_before_a_signal_can_kill);
}

static void set_handlers(void)
{
    struct sigaction action;

    cr_expect(sigaction(SIGKILL, &(struct sigaction){.sa_handler = SIG_DFL}, NULL) == -1);
    cr_expect(errno == EINVAL);
    cr_expect(sigaction(SIGTERM, NULL, &action) == 0 && action.sa_handler == SIG_DFL);
    cr_expect(signal(SIGTERM, SIG_IGN) == SIG_DFL);
    cr_expect(signal(SIGTERM, SIG_DFL) == SIG_IGN);
    cr_expect(signal(0, SIG_DFL) == SIG_ERR && errno == EINVAL);
}

Test(family, handlers_are_set_as_ever)
{
    alone(set_handlers);
}

/* The memory is the parent's, and so are the connections. */
static void not_given_by_a_vfork_child(void)
{
    int port, queued = -1, queues[QUEUES];
    pid_t child;

    in_child(by_exit_now);
    port = use_one();
    child = vfork();
    if (child == 0)
        _exit(0);
    wait_for(child);
    for (size_t i = 0; i < find_queues(queues); i++) {
        cr_assert(unseen(SYS_ioctl, queues[i], TIOCOUTQ, &queued) == 0);
        cr_expect(queued == 0);
    }
    cr_expect(port_of_next() == port);
}

Test(family, not_given_by_a_vfork_child)
{
    alone(not_given_by_a_vfork_child);
}

static void end_in_handler(int signal)
{
    (void)signal;
    _exit(0);
}

/* It ends as it would without the library, whatever the handler has interrupted. */
static void ended_by_a_handler(void)
{
    struct sigaction action = {.sa_handler = end_in_handler};

    for (int i = 0; i < 30; i++) {
        pid_t child = fork();

        if (child == 0) {
            struct itimerspec soon = {{0, 0}, {0, 1000000 + i * 100000}};
            struct sigevent event = {.sigev_notify = SIGEV_SIGNAL, .sigev_signo = SIGALRM};
            timer_t timer;

            cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
            cr_assert(timer_create(CLOCK_MONOTONIC, &event, &timer) == 0);
            cr_assert(timer_settime(timer, 0, &soon, NULL) == 0);
            for (;;)
                use_one();
        }
        wait_for(child);
        use_one();
    }
}

Test(family, ended_by_a_handler)
{
    alone(ended_by_a_handler);
}

/* Local first: a connection that the process has is used before one of the family. */
static void local_comes_first(void)
{
    int port = use_one();

    in_child(give_one);
    cr_expect(port_of_next() == port);
    EXPECT_TAKEN();
}

Test(family, local_comes_first)
{
    alone(local_comes_first);
}

static void take_it(void)
{
    EXPECT_TAKEN();
}

/* A process that waits gives what it has after a moment. */
static void given_while_waiting(void)
{
    in_child(by_exit_now);
    told->port = use_one();
    cr_assert(poll(NULL, 0, 300) == 0);
    in_child(take_it);
}

Test(family, given_while_waiting)
{
    alone(given_while_waiting);
}

static void given_before_a_sleep(void)
{
    in_child(by_exit_now);
    told->port = use_one();
    usleep(1500000);
    in_child(take_it);
}

Test(family, given_before_a_sleep)
{
    alone(given_before_a_sleep);
}

/* A process with a connection in use gives none for a second. */
static void kept_while_one_is_in_use(void)
{
    int used;

    in_child(by_exit_now);
    ask(used = dial_server());
    told->port = use_one();
    cr_assert(poll(NULL, 0, 300) == 0);
    EXPECT_TAKEN();
    close(used);
}

Test(family, kept_while_one_is_in_use)
{
    alone(kept_while_one_is_in_use);
}

/* What must not be given. */

/* The child sends REQUEST on a connection, and reads N bytes. */
static void use_and_end(const char *request, size_t n, int *port)
{
    pid_t child = fork();

    if (child == 0) {
        char answer[64];
        int fd = dial_server();

        *port = local_port(fd);
        cr_assert(send(fd, request, strlen(request), MSG_NOSIGNAL) == (ssize_t)strlen(request));
        cr_assert(recv(fd, answer, n, MSG_WAITALL) == (ssize_t)n);
        close(fd);
        _exit(0);
    }
    wait_for(child);
}

static void only_clean_ones_are_given(void)
{
    use_and_end("get nothing\r\n", 5, &told->port);
    EXPECT_TAKEN();
    use_and_end("get nothing\r\nget nothing\r\n", 5, &told->port);
    EXPECT_NOT_TAKEN();
    use_and_end("get nothing\r\nget noth", 5, &told->port);
    EXPECT_NOT_TAKEN();
    use_and_end("get nothing\r\ndelete nothing noreply\r\n", 5, &told->port);
    EXPECT_NOT_TAKEN();
    use_and_end("set something 0 0 3\r\na b\r\n", 8, &told->port);
    EXPECT_NOT_TAKEN();
}

Test(family, only_clean_ones_are_given)
{
    alone(only_clean_ones_are_given);
}

static void no_restart(int signal)
{
    (void)signal;
}

/* The child gives up on a reply, and then waits for connections. It closes all but one before
 * that. Nothing answers at PORT: the reply might still come. */
static void owe_and_accept(int port)
{
    struct sigaction action = {.sa_handler = no_restart};
    int unused, other = listen_here(&unused), fd = dial(port);

    told->port = local_port(fd);
    cr_assert(send(fd, "get nothing\r\n", 13, MSG_NOSIGNAL) == 13);
    close(fd);
    usleep(100000); /* the kernel of the server acknowledges the request */
    cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
    alarm(1);
    cr_expect(accept(other, NULL, NULL) == -1 && errno == EINTR);
}

static void none_with_a_reply_to_come(void)
{
    int port, fd, listener = listen_here(&port);
    pid_t child = fork();

    if (child == 0) {
        owe_and_accept(port);
        _exit(failures > 0);
    }
    wait_for(child);
    fd = dial(port);
    cr_expect(local_port(fd) != told->port, "its reply is still to come");
    close(fd);
    close(listener);
}

Test(family, none_with_a_reply_to_come)
{
    alone(none_with_a_reply_to_come);
}

static void give_with_odd_option(void)
{
    int fd = dial_server(), size = 4096;

    told->port = local_port(fd);
    ask(fd);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0);
    close(fd);
}

static void give_with_options(void)
{
    struct timeval limit = {3, 0};
    int fd = dial_server(), on = 1;

    told->port = local_port(fd);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
    cr_assert(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    ask(fd);
    cr_assert(fcntl(fd, F_SETFL, O_NONBLOCK) == 0);
    close(fd);
}

static int option(int fd, int level, int name)
{
    socklen_t length = sizeof(int);
    int value = -1;

    cr_assert(getsockopt(fd, level, name, &value, &length) == 0);
    return value;
}

static long receive_limit(int fd)
{
    struct timeval limit = {-1, 0};
    socklen_t length = sizeof(limit);

    cr_assert(getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, &length) == 0);
    return limit.tv_sec;
}

/* A taken connection is as a new socket. */
static void options_are_set_back(void)
{
    int fd;

    in_child(give_with_odd_option);
    EXPECT_NOT_TAKEN();
    in_child(give_with_options);
    fd = dial_server();
    cr_assert(local_port(fd) == told->port);
    cr_expect(receive_limit(fd) == 0);
    cr_expect(option(fd, SOL_SOCKET, SO_KEEPALIVE) == 0);
    cr_expect(option(fd, IPPROTO_TCP, TCP_NODELAY) == 0);
    cr_expect(!(fcntl(fd, F_GETFL) & O_NONBLOCK));
    cr_expect(fcntl(fd, F_GETFD) == FD_CLOEXEC);
    ask(fd);
    end_for_good(fd);
}

Test(family, options_are_set_back)
{
    alone(options_are_set_back);
}

/* Those that the program sets before it connects are those of the connection it gets. */
static void options_are_carried_over(void)
{
    struct timeval limit = {7, 0};
    struct sockaddr_in addr;
    int fd, on = 1;

    in_child(give_one);
    EXPECT_TAKEN();
    in_child(give_with_options);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) == 0);
    cr_assert(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)) == 0);
    (void)connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr));
    cr_assert(poll(&(struct pollfd){fd, POLLOUT, 0}, 1, 5000) == 1);
    cr_expect(local_port(fd) == told->port);
    cr_expect(receive_limit(fd) == 7 && option(fd, SOL_SOCKET, SO_KEEPALIVE) == 1);
    cr_expect(fcntl(fd, F_GETFL) & O_NONBLOCK);
    cr_expect(fcntl(fd, F_GETFD) == 0);
}

Test(family, options_are_carried_over)
{
    alone(options_are_carried_over);
}

/* What a member can put into a queue by hand. */

/* A message as it is in a queue. */
struct item {
    struct account account;
    size_t size;
    int fds[2];
    size_t count; /* of fds */
};

static void put(int queue, const struct item *item)
{
    char control[CMSG_SPACE(sizeof(item->fds))] __attribute__((aligned(8))) = {0};
    struct cmsghdr *header = (void *)control;
    struct iovec bytes = {(void *)&item->account, item->size};
    struct msghdr msg = {.msg_iov = &bytes, .msg_iovlen = 1};
    size_t n = item->count * sizeof(int);

    if (n > 0) {
        *header = (struct cmsghdr){CMSG_LEN(n), SOL_SOCKET, SCM_RIGHTS};
        memcpy(CMSG_DATA(header), item->fds, n);
        msg.msg_control = control;
        msg.msg_controllen = CMSG_LEN(n);
    }
    cr_assert(unseen(SYS_sendmsg, queue, &msg, MSG_DONTWAIT) == (long)item->size);
}

/* Takes the one item that is in a queue of this process; returns the queue. */
static int get(struct item *item)
{
    int queues[QUEUES];
    size_t n = find_queues(queues);

    for (size_t i = 0; i < n; i++) {
        char control[CMSG_SPACE(sizeof(int))] __attribute__((aligned(8))) = {0};
        struct iovec bytes = {&item->account, sizeof(item->account)};
        struct msghdr msg = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = control,
                             .msg_controllen = sizeof(control)};

        if (unseen(SYS_recvmsg, queues[i], &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) !=
            sizeof(item->account))
            continue;
        memcpy(item->fds, CMSG_DATA((struct cmsghdr *)control), sizeof(int));
        item->size = sizeof(item->account);
        item->count = 1;
        return queues[i];
    }
    cr_assert(false, "no message in %zu queues", n);
    return -1;
}

/* A connection to PORT that the library does not know. */
static int dial_unseen(int port)
{
    struct sockaddr_in addr;
    long fd = unseen(SYS_socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    loopback(&addr, port);
    cr_assert(fd >= 0 && unseen(SYS_connect, fd, &addr, sizeof(addr)) == 0);
    return (int)fd;
}

static uint64_t cookie_of(int fd)
{
    uint64_t cookie = 0;
    socklen_t length = sizeof(cookie);

    cr_assert(unseen(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, &cookie, &length) == 0);
    return cookie;
}

static void put_in_fd(struct item *item, int fd)
{
    unseen(SYS_close, item->fds[0]);
    item->fds[0] = fd;
}

/* Each changes ITEM, which is right, to something that must not be used. */

static void with_pipe(struct item *item)
{
    int ends[2];

    cr_assert(unseen(SYS_pipe2, ends, O_CLOEXEC) == 0);
    unseen(SYS_close, ends[1]);
    put_in_fd(item, ends[0]);
}

static void with_listener(struct item *item)
{
    int port;
    int fd = listen_here(&port);

    put_in_fd(item, (int)unseen(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3));
    close(fd);
}

static void with_unix_socket(struct item *item)
{
    int ends[2];

    cr_assert(unseen(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    unseen(SYS_close, ends[1]);
    put_in_fd(item, ends[0]);
    item->account.cookie = cookie_of(ends[0]);
}

static void with_connection_of_another_server(struct item *item)
{
    put_in_fd(item, dial_unseen(scripted_server("END\r\n", 0)));
}

static void with_its_cookie(struct item *item)
{
    with_connection_of_another_server(item);
    item->account.cookie = cookie_of(item->fds[0]);
}

/* The connection owes a reply, which the account does not say. */
static void with_reply_owed(struct item *item)
{
    cr_assert(unseen(SYS_sendto, item->fds[0], "get foreign\r\n", 13, 0, NULL, 0) == 13);
    cr_assert(unseen(SYS_recvfrom, item->fds[0], &(char){0}, 1, MSG_PEEK, NULL, NULL) == 1);
}

static void with_other_cookie(struct item *item)
{
    item->account.cookie++;
}

static void with_wrong_sent(struct item *item)
{
    item->account.sent++;
}

static void with_wrong_received(struct item *item)
{
    item->account.received--;
}

static void with_two_fds(struct item *item)
{
    item->fds[1] = (int)unseen(SYS_fcntl, item->fds[0], F_DUPFD_CLOEXEC, 3);
    item->count = 2;
}

static void without_fd(struct item *item)
{
    unseen(SYS_close, item->fds[0]);
    item->count = 0;
}

static void too_short(struct item *item)
{
    item->size--;
}

static void empty(struct item *item)
{
    item->size = 0;
}

static void with_zeros(struct item *item)
{
    memset(&item->account, 0, sizeof(item->account));
}

static void with_other_layout(struct item *item)
{
    item->account.magic++;
}

static void of_another_user(struct item *item)
{
    item->account.identity.uid++;
}

static void of_other_groups(struct item *item)
{
    item->account.identity.groups++;
}

static void idle_for_too_long(struct item *item)
{
    item->account.idle_for += 3600 * 1000;
}

static void too_old(struct item *item)
{
    item->account.expires_in = 0;
}

static void from_the_future(struct item *item)
{
    item->account.given_at += 3600 * 1000;
}

static void of_negative_age(struct item *item)
{
    item->account.age = -1;
}

static void of_endless_age(struct item *item)
{
    item->account.age = INT64_MAX;
    item->account.idle_for = INT64_MAX;
    item->account.expires_in = INT64_MIN;
}

static void with_odd_flags(struct item *item)
{
    cr_assert(unseen(SYS_fcntl, item->fds[0], F_SETFL, O_ASYNC) == 0);
}

static const struct spoiling {
    const char *name;
    void (*spoil)(struct item *item);
} spoilings[] = {
    {"a pipe", with_pipe},
    {"a listener", with_listener},
    {"a Unix socket", with_unix_socket},
    {"another server", with_connection_of_another_server},
    {"another server's cookie", with_its_cookie},
    {"a reply owed", with_reply_owed},
    {"another cookie", with_other_cookie},
    {"more sent", with_wrong_sent},
    {"less received", with_wrong_received},
    {"two fds", with_two_fds},
    {"no fd", without_fd},
    {"a short message", too_short},
    {"an empty message", empty},
    {"zeros", with_zeros},
    {"another layout", with_other_layout},
    {"another user", of_another_user},
    {"other groups", of_other_groups},
    {"a long idle time", idle_for_too_long},
    {"a life that is over", too_old},
    {"the future", from_the_future},
    {"a negative age", of_negative_age},
    {"an endless age", of_endless_age},
    {"odd flags", with_odd_flags},
};

static void give_two(void)
{
    int one = dial_server(), other = dial_server();

    ask(one);
    ask(other);
    close(one);
    close(other);
}

static struct stat file_at(int fd)
{
    struct stat file = {0};

    cr_assert(fstat(fd, &file) == 0);
    return file;
}

static bool is_open(const struct stat *file)
{
    for (int fd = 0; fd < 65536; fd++) {
        struct stat other;

        if (fstat(fd, &other) == 0 && other.st_ino == file->st_ino &&
            other.st_dev == file->st_dev)
            return true;
    }
    return false;
}

/* The one that is spoiled has another one behind it, which is taken. The spoiled one is closed.
 */
static void take_spoiled(const struct spoiling *spoiling)
{
    struct item item, behind;
    struct stat file = {0};
    int queue, spoiled_port;

    in_child(give_two);
    queue = get(&item);
    cr_assert(get(&behind) == queue);
    spoiled_port = local_port(item.fds[0]);
    told->port = local_port(behind.fds[0]);
    spoiling->spoil(&item);
    put(queue, &item);
    put(queue, &behind);
    if (item.count > 0)
        file = file_at(item.fds[0]);
    for (size_t i = 0; i < item.count; i++)
        unseen(SYS_close, item.fds[i]);
    unseen(SYS_close, behind.fds[0]);
    for (int i = 0, port = 0; i < 2 && port != told->port; i++) {
        int fd = dial_server();

        port = local_port(fd);
        cr_expect(port != spoiled_port, "%s: was taken", spoiling->name);
        cr_expect(port == told->port || i == 0, "%s: hides the next one", spoiling->name);
        ask(fd);
        end_for_good(fd);
    }
    cr_expect(item.count == 0 || !is_open(&file), "%s: is open", spoiling->name);
}

static void garbage_is_not_used(void)
{
    const size_t count = sizeof(spoilings) / sizeof(spoilings[0]);
    const struct stats *stats;
    uint64_t closed;

    /* More than one is given while another member is at work, which this process is then. */
    in_child(give_one);
    EXPECT_TAKEN();
    for (size_t i = 0; i < count; i++)
        take_spoiled(&spoilings[i]);
    cr_assert(poll(NULL, 0, 1200) == 0);
    stats = stats_at(getpid(), server_port());
    cr_assert(stats);
    closed = stats->foreign;
    for (int reason = 0; reason < REASON_COUNT; reason++)
        closed += stats->discarded[reason];
    cr_expect(closed == count, "%lu of %zu are counted", (unsigned long)closed, count);
    cr_expect(stats->taken == count + 1, "%lu of %zu were taken", (unsigned long)stats->taken,
              count);
}

Test(family, garbage_is_not_used)
{
    alone(garbage_is_not_used);
}

/* A member can let a close() wait by SO_LINGER. */
static void a_close_does_not_linger(void)
{
    struct linger linger = {1, 20};
    struct timespec began, ended;
    struct item item, behind;
    int queue, port, listener = listen_here(&port), filled;
    char bytes[4096] = {0};

    in_child(give_one);
    EXPECT_TAKEN();
    in_child(give_two);
    queue = get(&item);
    cr_assert(get(&behind) == queue);
    told->port = local_port(behind.fds[0]);
    /* A connection that no process accepts or reads, with bytes that cannot go out. */
    filled = dial_unseen(port);
    cr_assert(unseen(SYS_setsockopt, filled, SOL_SOCKET, SO_LINGER, &linger, sizeof(linger)) ==
              0);
    while (unseen(SYS_sendto, filled, bytes, sizeof(bytes), MSG_DONTWAIT, NULL, 0) > 0)
        continue;
    put_in_fd(&item, filled);
    put(queue, &item);
    put(queue, &behind);
    unseen(SYS_close, behind.fds[0]);
    /* The copy in the queue is the last one. */
    linger = (struct linger){1, 20};
    cr_assert(unseen(SYS_close, filled) == 0);
    clock_gettime(CLOCK_MONOTONIC, &began);
    EXPECT_TAKEN();
    clock_gettime(CLOCK_MONOTONIC, &ended);
    cr_expect(ended.tv_sec - began.tv_sec < 8);
    close(listener);
}

Test(family, a_close_does_not_linger)
{
    alone(a_close_does_not_linger);
}

/* What the process lacks or does. */

static int free_fds;

/* A process that has FREE_FDS fds left, unseen by the library, takes one or leaves it where it
 * is. */
static void take_with_few_fds(void)
{
    struct sockaddr_in addr;
    int fd, last = -1;
    long filled;

    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(fd >= 0);
    while ((filled = unseen(SYS_fcntl, 0, F_DUPFD_CLOEXEC, 0)) >= 0)
        last = (int)filled;
    for (int i = 0; i < free_fds; i++)
        cr_assert(unseen(SYS_close, last - i) == 0);
    loopback(&addr, server_port());
    cr_expect(connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    ask(fd);
    told->result = local_port(fd);
    unseen(SYS_exit_group, failures > 0);
}

static void none_is_lost_for_lack_of_fds(void)
{
    struct rlimit limit = {300, 300};

    cr_assert(setrlimit(RLIMIT_NOFILE, &limit) == 0);
    usleep(1100000); /* which the library finds out once a second */
    use_one();
    in_child(by_exit_now);
    EXPECT_NOT_TAKEN();
    for (free_fds = 0; free_fds < 5; free_fds++) {
        in_child(give_one);
        in_child(take_with_few_fds);
        if (told->result != told->port)
            EXPECT_TAKEN();
    }
    cr_expect(told->result == told->port, "four free fds are enough");
}

Test(family, none_is_lost_for_lack_of_fds)
{
    not_under_asan(); /* which has fds of its own */
    alone(none_is_lost_for_lack_of_fds);
}

static void shut_down_queues(void)
{
    int queues[QUEUES];

    for (size_t i = 0; i < find_queues(queues); i++)
        cr_assert(unseen(SYS_shutdown, queues[i], SHUT_RDWR) == 0);
}

/* It ends the sharing, of all members, and nothing else. */
static void a_shutdown_ends_sharing_only(void)
{
    int port;

    in_child(give_one);
    in_child(shut_down_queues);
    in_child(give_one);
    port = use_one();
    cr_expect(port != told->port);
    cr_assert(poll(NULL, 0, 100) == 0);
    cr_expect(port_of_next() == port);
}

Test(family, a_shutdown_ends_sharing_only)
{
    alone(a_shutdown_ends_sharing_only);
}

static void fill_queues(void)
{
    int queues[QUEUES];

    for (size_t i = 0; i < find_queues(queues); i++) {
        while (unseen(SYS_sendto, queues[i], "junk", 4, MSG_DONTWAIT, NULL, 0) == 4)
            continue;
    }
    unseen(SYS_exit_group, 0); /* without tidying up */
}

static void a_full_queue_is_no_obstacle(void)
{
    int port;

    in_child(fill_queues);
    in_child(give_one);
    port = use_one();
    cr_expect(port != told->port);
    cr_assert(poll(NULL, 0, 100) == 0);
    cr_expect(port_of_next() == port);
}

Test(family, a_full_queue_is_no_obstacle)
{
    alone(a_full_queue_is_no_obstacle);
}

/* Who changes its identity has no queue when the call returns. */

static const gid_t other_group = 54321;

static long by_setuid(void)
{
    return setuid(54321);
}

static long by_setgid(void)
{
    return setgid(other_group);
}

static long by_setgroups(void)
{
    return setgroups(1, &other_group);
}

static long by_setresuid(void)
{
    return setresuid(54321, 54321, 54321);
}

static long by_chroot(void)
{
    return chroot("/");
}

static long by_unshare(void)
{
    return unshare(CLONE_NEWNET);
}

static long by_number_of_setuid(void)
{
    return syscall(SYS_setuid, 54321);
}

static long by_number_of_setgroups(void)
{
    return syscall(SYS_setgroups, 1, &other_group);
}

static long by_number_of_unshare(void)
{
    return syscall(SYS_unshare, CLONE_NEWNET);
}

static const struct change {
    const char *name;
    long (*make)(void);
    bool pools; /* goes on to pool, and so may make another family */
} changes[] = {
    {"setuid", by_setuid, true},
    {"setgid", by_setgid, true},
    {"setgroups", by_setgroups, true},
    {"setresuid", by_setresuid, true},
    {"chroot", by_chroot, true},
    {"unshare", by_unshare, false},
    {"setuid by number", by_number_of_setuid, true},
    {"setgroups by number", by_number_of_setgroups, true},
    {"unshare by number", by_number_of_unshare, false},
};
static const struct change *change;

static void leave_the_family(void)
{
    cr_assert(count_queues() == QUEUES);
    if (change->make() != 0) {
        cr_expect(errno == EPERM, "%s: errno %d", change->name, errno);
        return;
    }
    cr_expect(count_queues() == 0, "%s: %zu queues", change->name, count_queues());
    if (!change->pools)
        return;
    in_child(give_one);
    cr_expect(count_queues() == QUEUES, "%s: %zu queues after it", change->name,
              count_queues());
    EXPECT_TAKEN();
}

/* What is queued stays with the family. */
static void changes_of_identity(void)
{
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        int port;

        change = &changes[i];
        in_child(give_one);
        port = told->port;
        in_child(leave_the_family);
        cr_expect(port_of_next() == port, "%s took it away", change->name);
    }
}

Test(family, changes_of_identity)
{
    alone(changes_of_identity);
}

static void set_the_same_ids(void)
{
    uid_t user = geteuid();
    gid_t group = getegid();

    cr_assert(setuid(user) == 0 && setgid(group) == 0);
    cr_assert(seteuid(user) == 0 && setegid(group) == 0);
    cr_assert(setreuid(user, user) == 0 && setregid(group, group) == 0);
    cr_assert(setresuid(user, user, user) == 0 && setresgid(group, group, group) == 0);
    give_one();
}

/* As each worker of gunicorn 20 does. */
static void the_same_ids_are_no_change(void)
{
    in_child(by_exit_now);
    in_child(set_the_same_ids);
    EXPECT_TAKEN();
}

Test(family, the_same_ids_are_no_change)
{
    alone(the_same_ids_are_no_change);
}

/* A child that no handler of fork() has prepared has the queues as well. */
static void an_orphan_changes_its_identity(void)
{
    pid_t child;

    in_child(by_exit_now);
    cr_assert(count_queues() == QUEUES);
    child = _Fork();
    if (child == 0)
        _exit(setresuid(54321, 54321, 54321) != 0 && errno == EPERM ? 0 : (int)count_queues());
    wait_for(child);
    cr_expect(count_queues() == QUEUES);
    in_child(give_one);
    EXPECT_TAKEN();
}

Test(family, an_orphan_changes_its_identity)
{
    alone(an_orphan_changes_its_identity);
}

/* The queues are closed by an exec, and no loop of the program closes them. */
static void a_program_has_no_queue(void)
{
    pid_t child;

    in_child(by_exit_now);
    child = fork();
    if (child == 0) {
        unsetenv("LD_PRELOAD");
        execl("/bin/sh", "sh", "-c",
              "for fd in /proc/self/fd/*; do readlink $fd; done | grep -q socket && exit 1; "
              "exit 0",
              NULL);
        _exit(127);
    }
    wait_for(child);
}

Test(family, a_program_has_no_queue)
{
    not_under_asan();
    alone(a_program_has_no_queue);
}

static void close_all_one_by_one(void)
{
    for (int fd = 3; fd < 65536; fd++)
        close(fd);
    give_one();
}

static void survives_a_loop(void)
{
    in_child(by_exit_now);
    in_child(close_all_one_by_one);
    EXPECT_TAKEN();
}

Test(family, survives_a_loop_that_closes)
{
    alone(survives_a_loop);
}

static void close_all_at_once(void)
{
    int fd;

    cr_assert(unseen(SYS_close_range, 3, ~0U, 0) == 0);
    fd = open("/dev/null", O_RDONLY);
    cr_expect(count_queues() == 0);
    give_one();
    close(fd);
}

/* Unseen by the library. */
static void survives_a_lost_queue(void)
{
    in_child(by_exit_now);
    in_child(close_all_at_once);
    EXPECT_NOT_TAKEN();
    in_child(give_one);
    EXPECT_TAKEN();
}

Test(family, survives_a_lost_queue)
{
    needs_close_range();
    not_under_asan();
    alone(survives_a_lost_queue);
}

/* Bounds. */

/* The process leaves the family and has one of its own, as many programs of one user. */
static pid_t another_family(void)
{
    int ready[2];
    pid_t child;

    cr_assert(pipe(ready) == 0);
    child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        cr_assert(syscall(SYS_setuid, getuid()) == 0); /* which counts as a change */
        use_one();
        in_child(by_exit_now);
        cr_assert(count_queues() == QUEUES);
        cr_assert(poll(NULL, 0, 1200) == 0); /* the counters say so */
        cr_assert(write(ready[1], "", 1) == 1);
        pause();
        _exit(0);
    }
    cr_assert(read(ready[0], &(char){0}, 1) == 1);
    close(ready[0]);
    close(ready[1]);
    return child;
}

static int families;

static unsigned int count_queued(void)
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

#define AT_ONCE 30

/* Has many connections at the same time as others, until the pipe GO ends. */
static void give_many(int go)
{
    int fds[AT_ONCE];

    for (int i = 0; i < AT_ONCE; i++)
        ask(fds[i] = dial_server());
    __atomic_fetch_add(&told->result, 1, __ATOMIC_SEQ_CST);
    cr_assert(read(go, &(char){0}, 1) == 0);
    for (int i = 0; i < AT_ONCE; i++)
        close(fds[i]);
}

/* More than there is room for. */
static void let_many_give(void)
{
    pid_t children[3];
    int go[2];

    cr_assert(pipe(go) == 0);
    told->result = 0;
    for (int i = 0; i < 3; i++) {
        children[i] = fork();
        if (children[i] == 0) {
            close(go[1]);
            give_many(go[0]);
            _exit(0);
        }
    }
    while (__atomic_load_n(&told->result, __ATOMIC_SEQ_CST) < 3)
        cr_assert(poll(NULL, 0, 20) == 0);
    close(go[1]);
    for (int i = 0; i < 3; i++)
        wait_for(children[i]);
    close(go[0]);
}

/* A sixteenth of 1,024, divided by the number of families. */
static void queues_are_bounded(void)
{
    unsigned int most = 1024 / 16 / (unsigned int)families, queued;
    pid_t others[16];

    for (int i = 1; i < families; i++)
        others[i] = another_family();
    in_child(give_one);
    cr_assert(poll(NULL, 0, 1200) == 0); /* this process looks after the queue */
    let_many_give();
    queued = count_queued();
    cr_expect(queued <= most && queued >= most / 2, "%u of %u", queued, most);
    for (int i = 1; i < families; i++) {
        kill(others[i], SIGKILL);
        waitpid(others[i], NULL, 0);
    }
}

Test(family, the_queues_of_one)
{
    families = 1;
    alone(queues_are_bounded);
}

Test(family, the_queues_of_four)
{
    families = 4;
    alone(queues_are_bounded);
}

Test(family, the_queues_of_sixteen)
{
    families = 16;
    alone(queues_are_bounded);
}

/* Has no counters, so it does not know how many families there are. */
static void use_one_uncounted(void)
{
    cr_assert(setrlimit(RLIMIT_FSIZE, &(struct rlimit){0, 0}) == 0);
    use_one();
}

/* It is killed, as in an orderly end the last process at work closes nearly all. */
static void look_after_queues_uncounted(void)
{
    use_one_uncounted();
    cr_assert(poll(NULL, 0, 4000) == 0);
    raise(SIGKILL);
}

static void a_count_holds(void)
{
    unsigned int before, after;
    pid_t child;

    in_child(give_one);
    cr_assert(poll(NULL, 0, 1200) == 0);
    let_many_give();
    before = count_queued();
    child = fork();
    if (child == 0)
        look_after_queues_uncounted();
    cr_assert(waitpid(child, NULL, 0) == child);
    after = count_queued();
    cr_expect(before >= 32 && after + 2 >= before, "%u, then %u", before, after);
}

Test(family, a_count_holds_for_a_member_that_cannot_count)
{
    alone(a_count_holds);
}

static void give_one_uncounted(void)
{
    use_one_uncounted();
    exit(0);
}

/* The first bursts of a service that has just started. */
static void the_first_count(void)
{
    unsigned int queued;

    in_child(give_one_uncounted);
    let_many_give();
    queued = count_queued();
    cr_expect(queued >= 32, "%u", queued);
}

Test(family, the_first_member_that_can_count_does_so_at_once)
{
    alone(the_first_count);
}

/* Requests of a process that blocks in accept(). */

static void accept_none(int listener)
{
    const struct itimerval moment = {.it_value = {.tv_usec = 20000}};

    cr_assert(setitimer(ITIMER_REAL, &moment, NULL) == 0);
    cr_expect(accept(listener, NULL, NULL) == -1 && errno == EINTR);
}

static void serve(void)
{
    const struct sigaction action = {.sa_handler = no_restart};
    int port, listener = listen_here(&port);

    cr_assert(sigaction(SIGALRM, &action, NULL) == 0);
    use_one();
    cr_expect(count_queued() == 0);
    accept_none(listener);
    cr_expect(count_queued() == 1, "before it blocks");
    use_one();
    cr_expect(count_queued() == 1, "at close, after one request with one connection");
    accept_none(listener);
    use_one();
    cr_expect(count_queued() == 1, "at close, after another one");
    use_one();
    cr_expect(count_queued() == 0, "the second connection of a request is kept");
    accept_none(listener);
    cr_expect(count_queued() == 1, "before it blocks");
    use_one();
    cr_expect(count_queued() == 0, "and so is the first one of the next request");
    for (int i = 0; i < 100; i++)
        accept_none(listener);
    use_one();
    accept_none(listener);
    use_one();
    cr_expect(count_queued() == 1, "at close again, a hundred requests later");
}

static void requests_with_one_connection(void)
{
    in_child(serve);
}

Test(family, what_is_closed_at_the_end_of_a_request_is_given_at_once)
{
    alone(requests_with_one_connection);
}

/* A burst of requests. */

#define BURST 5

static void have_a_burst(void)
{
    int fds[BURST], ready[2];
    struct pollfd waiting = {.events = POLLIN};

    cr_assert(pipe(ready) == 0 && write(ready[1], "", 1) == 1);
    for (int i = 0; i < BURST; i++)
        ask(fds[i] = dial_server());
    for (int i = 0; i < BURST; i++)
        close(fds[i]);
    cr_expect(count_queued() == 0);
    waiting.fd = ready[0];
    cr_assert(poll(&waiting, 1, 1000) == 1);
    told->result = (int)count_queued();
}

static void use_one_and_wait(void)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    use_one();
    for (;;)
        poll(NULL, 0, 1000);
}

static void what_a_burst_leaves(void)
{
    pid_t other;

    in_child(have_a_burst);
    cr_expect(told->result == 0, "%d given to a family that no other process uses",
              told->result);
    other = fork();
    if (other == 0)
        use_one_and_wait();
    cr_assert(poll(NULL, 0, 200) == 0);
    in_child(have_a_burst);
    cr_expect(told->result == BURST - 1, "%d", told->result);
    kill(other, SIGKILL);
    waitpid(other, NULL, 0);
}

Test(family, what_a_burst_leaves_is_given_but_for_one)
{
    alone(what_a_burst_leaves);
}
