/*
 * Signals and threads: calls that are interrupted or cancelled, or made while another thread
 * closes the fd.
 */
#include "program.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/uio.h>

static volatile sig_atomic_t alarms;

static void on_alarm(int signal)
{
    (void)signal;
    alarms = alarms + 1;
}

/* One alarm after 100 ms. */
static void set_alarm(void (*handler)(int signal), int flags)
{
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    struct itimerval once = {{0, 0}, {0, 100000}};

    alarms = 0;
    sigaction(SIGALRM, &action, NULL);
    setitimer(ITIMER_REAL, &once, NULL);
}

POOLED_PROGRAM(alarm_while_receiving)
{
    char byte;

    park();
    for (int i = 0; i < 2; i++) {
        struct pollfd wanted = {.events = POLLIN};
        fd_set readable;
        int fd = dial();

        wanted.fd = fd;
        FD_ZERO(&readable);
        FD_SET(fd, &readable);
        set_alarm(on_alarm, 0);
        STEP(recv(fd, &byte, 1, 0));
        set_alarm(on_alarm, 0);
        STEP(read(fd, &byte, 1));
        set_alarm(on_alarm, SA_RESTART);
        STEP(poll(&wanted, 1, 5000));
        set_alarm(on_alarm, SA_RESTART);
        STEP(select(fd + 1, &readable, NULL, NULL, &(struct timeval){5, 0}));
        SAY("alarms: %d\n", alarms);
        ask(fd, "one");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(alarm_and_restart)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        set_alarm(on_alarm, SA_RESTART);
        ask(fd, "slow");
        SAY("alarms: %d\n", alarms);
        STEP(close(fd));
    }
}

PROGRAM(alarm_while_connecting)
{
    struct sockaddr_in deaf = deaf_server();
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

    set_alarm(on_alarm, 0);
    STEP(connect(fd, (struct sockaddr *)&deaf, sizeof(deaf)));
    STEP(close(fd));
}

static void use_a_connection(int signal)
{
    int saved = errno;

    (void)signal;
    for (int i = 0; i < 2; i++) {
        int fd = dial_quietly();

        ask(fd, "handler");
        close(fd);
    }
    alarms = alarms + 1;
    errno = saved;
}

POOLED_PROGRAM(handler_that_connects)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        set_alarm(use_a_connection, SA_RESTART);
        ask(fd, "slow");
        SAY("alarms: %d\n", alarms);
        STEP(close(fd));
    }
}

static int handled_fd;

static void close_it(int signal)
{
    (void)signal;
    close(handled_fd);
    alarms = alarms + 1;
}

/* The handler closes the fd for which the interrupted call waits. */
PROGRAM(handler_that_closes)
{
    char byte;

    park();
    handled_fd = dial();
    ask(handled_fd, "one");
    set_alarm(close_it, 0);
    STEP(recv(handled_fd, &byte, 1, 0));
    STEP(recv(handled_fd, &byte, 1, 0));
    handled_fd = dial();
    ask(handled_fd, "two");
    set_alarm(close_it, SA_RESTART);
    STEP(poll(&(struct pollfd){handled_fd, POLLIN, 0}, 1, 5000));
    STEP(close(handled_fd));
}

struct cancelled {
    const char *name;
    void (*call)(int fd);
    int fd;
    atomic_bool started;
};

static char buffer[1 << 20];

static void by_recv(int fd)
{
    recv(fd, buffer, 1, 0);
}

static void by_recvfrom(int fd)
{
    recvfrom(fd, buffer, 1, 0, NULL, NULL);
}

static void by_read(int fd)
{
    read(fd, buffer, 1);
}

static void by_readv(int fd)
{
    readv(fd, &(struct iovec){buffer, 1}, 1);
}

static void by_recvmsg(int fd)
{
    struct iovec piece = {buffer, 1};

    recvmsg(fd, &(struct msghdr){.msg_iov = &piece, .msg_iovlen = 1}, 0);
}

static void by_poll(int fd)
{
    poll(&(struct pollfd){fd, POLLIN, 0}, 1, -1);
}

static void by_ppoll(int fd)
{
    ppoll(&(struct pollfd){fd, POLLIN, 0}, 1, NULL, NULL);
}

static void by_select(int fd)
{
    fd_set readable;

    FD_ZERO(&readable);
    FD_SET(fd, &readable);
    select(fd + 1, &readable, NULL, NULL, NULL);
}

static void by_send(int fd)
{
    while (send(fd, "get never\r\n", 11, MSG_NOSIGNAL) > 0)
        continue;
}

static void by_write(int fd)
{
    while (write(fd, buffer, sizeof(buffer)) > 0)
        continue;
}

static void by_writev(int fd)
{
    while (writev(fd, &(struct iovec){buffer, sizeof(buffer)}, 1) > 0)
        continue;
}

static void by_connect(int fd)
{
    struct sockaddr_in deaf = deaf_server();

    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    connect(fd, (struct sockaddr *)&deaf, sizeof(deaf));
}

static void by_recvmmsg(int fd)
{
    struct iovec piece = {buffer, 1};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}};

    recvmmsg(fd, &message, 1, 0, NULL);
}

static void by_preadv2(int fd)
{
    preadv2(fd, &(struct iovec){buffer, 1}, 1, -1, 0);
}

static void by_pselect(int fd)
{
    fd_set readable;

    FD_ZERO(&readable);
    FD_SET(fd, &readable);
    pselect(fd + 1, &readable, NULL, NULL, NULL, NULL);
}

static void by_sendto(int fd)
{
    while (sendto(fd, buffer, sizeof(buffer), MSG_NOSIGNAL, NULL, 0) > 0)
        continue;
}

static void by_sendmsg(int fd)
{
    struct iovec piece = {buffer, sizeof(buffer)};

    while (sendmsg(fd, &(struct msghdr){.msg_iov = &piece, .msg_iovlen = 1}, 0) > 0)
        continue;
}

static void by_sendmmsg(int fd)
{
    struct iovec piece = {buffer, sizeof(buffer)};
    struct mmsghdr message = {.msg_hdr = {.msg_iov = &piece, .msg_iovlen = 1}};

    while (sendmmsg(fd, &message, 1, 0) > 0)
        continue;
}

static void by_pwritev2(int fd)
{
    while (pwritev2(fd, &(struct iovec){buffer, sizeof(buffer)}, 1, -1, 0) > 0)
        continue;
}

static void by_accept(int fd)
{
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    listen(fd, 1);
    accept(fd, NULL, NULL);
}

static void by_accept4(int fd)
{
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM, 0);
    listen(fd, 1);
    accept4(fd, NULL, NULL, SOCK_CLOEXEC);
}

static void by_splice(int fd)
{
    int pipes[2];

    pipe(pipes);
    splice(fd, NULL, pipes[1], NULL, 1, 0);
}

ssize_t __read_chk(int fd, void *buf, size_t n, size_t room);
ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags);
ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
                       struct sockaddr *from, socklen_t *len);
int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                const sigset_t *mask, size_t room);

static void by_read_chk(int fd)
{
    __read_chk(fd, buffer, 1, 1);
}

static void by_recv_chk(int fd)
{
    __recv_chk(fd, buffer, 1, 1, 0);
}

static void by_recvfrom_chk(int fd)
{
    __recvfrom_chk(fd, buffer, 1, 1, 0, NULL, NULL);
}

static void by_poll_chk(int fd)
{
    struct pollfd wanted = {fd, POLLIN, 0};

    __poll_chk(&wanted, 1, -1, sizeof(wanted));
}

static void by_ppoll_chk(int fd)
{
    struct pollfd wanted = {fd, POLLIN, 0};

    __ppoll_chk(&wanted, 1, NULL, NULL, sizeof(wanted));
}

/* Waits for a lock that the same file has through another open(). */
static void by_fcntl(int fd)
{
    struct flock whole = {.l_type = F_WRLCK};
    char path[] = "/tmp/mcpool-program-XXXXXX";
    int held = mkstemp(path), wanted = open(path, O_RDWR);

    unlink(path);
    fcntl(held, F_OFD_SETLK, &whole);
    fcntl(wanted, F_OFD_SETLKW, &whole);
}

static void by_system(int fd)
{
    system("exec sleep 5");
}

static void by_close(int fd)
{
    while (true)
        close(dup(fd));
}

static void *until_cancelled(void *argument)
{
    struct cancelled *cancelled = argument;

    cancelled->started = true;
    cancelled->call(cancelled->fd);
    return NULL;
}

POOLED_PROGRAM(cancelled)
{
    static struct cancelled calls[] = {
        {"recv", by_recv},           {"recvfrom", by_recvfrom},
        {"read", by_read},           {"readv", by_readv},
        {"recvmsg", by_recvmsg},     {"poll", by_poll},
        {"ppoll", by_ppoll},         {"select", by_select},
        {"send", by_send},           {"write", by_write},
        {"writev", by_writev},       {"connect", by_connect},
        {"close", by_close},         {"recvmmsg", by_recvmmsg},
        {"preadv2", by_preadv2},     {"pselect", by_pselect},
        {"sendto", by_sendto},       {"sendmsg", by_sendmsg},
        {"sendmmsg", by_sendmmsg},   {"pwritev2", by_pwritev2},
        {"accept", by_accept},       {"accept4", by_accept4},
        {"splice", by_splice},       {"__read_chk", by_read_chk},
        {"__recv_chk", by_recv_chk}, {"__recvfrom_chk", by_recvfrom_chk},
        {"__poll_chk", by_poll_chk}, {"__ppoll_chk", by_ppoll_chk},
        {"fcntl", by_fcntl},         {"system", by_system},
    };

    park();
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        pthread_t thread;
        void *result;

        calls[i].fd = dial();
        if (pthread_create(&thread, NULL, until_cancelled, &calls[i]) != 0)
            SAY("no thread\n");
        while (!calls[i].started)
            usleep(1000);
        usleep(20000);
        pthread_cancel(thread);
        pthread_join(thread, &result);
        SAY("%s: cancelled %d\n", calls[i].name, result == PTHREAD_CANCELED);
        STEP(close(calls[i].fd));
        park();
    }
}

/* A cancellation request takes effect in close(). */
static void *close_when_cancelled(void *argument)
{
    pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
    pthread_cancel(pthread_self());
    pthread_setcancelstate(PTHREAD_CANCEL_ENABLE, NULL);
    close(*(int *)argument);
    SAY("not cancelled\n");
    return NULL;
}

POOLED_PROGRAM(cancelled_before_close)
{
    park();
    for (int i = 0; i < 2; i++) {
        pthread_t thread;
        int fd = dial();

        ask(fd, "one");
        pthread_create(&thread, NULL, close_when_cancelled, &fd);
        pthread_join(thread, NULL);
        STEP(fcntl(fd, F_GETFD));
        ask(fd, "two");
        STEP(close(fd));
    }
}

static void *receive(void *argument)
{
    static char got[64];
    ssize_t n = recv(*(int *)argument, got, sizeof(got) - 1, 0);

    got[n > 0 ? n : 0] = '\0';
    return got;
}

/* A thread that waits on an fd while another thread closes it gets what it waited for, and
 * nothing else. */
PROGRAM(closed_under_a_receiver)
{
    pthread_t thread;
    void *got;
    int fd, next;

    park();
    fd = dial();
    tell(fd, "get slow\r\n");
    pthread_create(&thread, NULL, receive, &fd);
    usleep(50000);
    STEP(close(fd));
    next = dial();
    ask(next, "one");
    pthread_join(thread, &got);
    SAY("the other got %s\n", (const char *)got);
    STEP(close(next));
}

static void *poll_it(void *argument)
{
    return (void *)(long)poll(&(struct pollfd){*(int *)argument, POLLIN, 0}, 1, 300);
}

PROGRAM(closed_under_a_poller)
{
    pthread_t thread;
    void *result;
    int fd, next;

    park();
    fd = dial();
    ask(fd, "one");
    pthread_create(&thread, NULL, poll_it, &fd);
    usleep(50000);
    STEP(close(fd));
    next = dial();
    ask(next, "two");
    pthread_join(thread, &result);
    SAY("the other got %ld\n", (long)result);
    STEP(close(next));
}

static void *use_after_close(void *argument)
{
    int fd = *(int *)argument;
    char byte;

    STEP(send(fd, "get one\r\n", 9, MSG_NOSIGNAL));
    STEP(recv(fd, &byte, 1, 0));
    STEP(shutdown(fd, SHUT_RDWR));
    STEP(close(fd));
    return NULL;
}

POOLED_PROGRAM(used_after_close_by_another_thread)
{
    pthread_t thread;
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(close(fd));
    pthread_create(&thread, NULL, use_after_close, &fd);
    pthread_join(thread, NULL);
    STEP(dial());
    ask(fd, "two");
}

static void *cycles(void *argument)
{
    long wrong = 0;

    for (int i = 0; i < 50; i++) {
        char request[64], answer[128], got[128];
        int fd = socket(AF_INET, SOCK_STREAM, 0);
        size_t n;

        snprintf(request, sizeof(request), "get key-%ld-%02d\r\n", (long)argument, i);
        n = (size_t)snprintf(answer, sizeof(answer),
                             "VALUE key-%ld-%02d 0 17\r\nvalue-of-key-%ld-%02d\r\nEND\r\n",
                             (long)argument, i, (long)argument, i);
        wrong += connect(fd, SERVER) != 0 ||
                 send(fd, request, strlen(request), 0) != (ssize_t)strlen(request) ||
                 recv(fd, got, n, MSG_WAITALL) != (ssize_t)n || memcmp(got, answer, n) != 0;
        wrong += close(fd) != 0;
    }
    return (void *)wrong;
}

POOLED_PROGRAM(threads)
{
    pthread_t threads[8];

    for (long i = 0; i < 8; i++)
        pthread_create(&threads[i], NULL, cycles, (void *)i);
    for (long i = 0; i < 8; i++) {
        void *wrong;

        pthread_join(threads[i], &wrong);
        SAY("%ld: %ld wrong\n", i, (long)wrong);
    }
    say_open_fds();
}
