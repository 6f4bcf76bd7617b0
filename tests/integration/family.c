/*
 * The family: when a process gives idle connections to the others, and what it must not give.
 */
#include "harness.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <unistd.h>

#include "family.h"

TestSuite(family, .init = share_memory, .timeout = 60);

/* Ends of a process. */

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
    cr_expect(sigaction(999, (const struct sigaction *)8, NULL) == -1 && errno == EINVAL);
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

static void use_one_and_go_on_waiting(int unused)
{
    (void)unused;
    told->port = use_one();
    for (;;)
        poll(NULL, 0, 1000);
}

static void what_a_burst_leaves(void)
{
    pid_t other;

    in_child(have_a_burst);
    cr_expect(told->result == 0, "%d given to a family that no other process uses",
              told->result);
    told->port = 0;
    other = start(use_one_and_go_on_waiting, 0);
    /* When it has used one and given it, the others know that it is at work. */
    for (int i = 0; i < 200 && (told->port == 0 || count_queued() == 0); i++)
        cr_assert(poll(NULL, 0, 50) == 0);
    in_child(have_a_burst);
    cr_expect(told->result == BURST - 1, "%d", told->result);
    stop(other);
}

Test(family, what_a_burst_leaves_is_given_but_for_one)
{
    alone(what_a_burst_leaves);
}
