/*
 * The family: what the process does to its queues, or lacks for them.
 */
#include "harness.h"

#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/fsuid.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "family.h"

TestSuite(family_queues, .init = share_memory, .timeout = 60);

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

Test(family_queues, none_is_lost_for_lack_of_fds)
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

/* A process uses its own connection again, and none of another process. */
static void each_uses_its_own(void)
{
    int port;

    in_child(give_one);
    port = use_one();
    cr_expect(port != told->port);
    cr_assert(poll(NULL, 0, 100) == 0);
    cr_expect(port_of_next() == port);
}

/* It ends the sharing, of all members, and nothing else. */
static void a_shutdown_ends_sharing_only(void)
{
    in_child(give_one);
    in_child(shut_down_queues);
    each_uses_its_own();
}

Test(family_queues, a_shutdown_ends_sharing_only)
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
    in_child(fill_queues);
    each_uses_its_own();
}

Test(family_queues, a_full_queue_is_no_obstacle)
{
    alone(a_full_queue_is_no_obstacle);
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

Test(family_queues, a_program_has_no_queue)
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

Test(family_queues, survives_a_loop_that_closes)
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

Test(family_queues, survives_a_lost_queue)
{
    needs_close_range();
    not_under_asan();
    alone(survives_a_lost_queue);
}

static void expect_bad(const char *call, long result)
{
    cr_expect(result == -1 && errno == EBADF, "%s: %ld, errno %d", call, result, errno);
}

/* As a shell does that saves each open fd, or a program that clears close-on-exec everywhere.
 */
static void try_to_use(int fd)
{
    int on = 1;

    expect_bad("dup", dup(fd));
    expect_bad("dup2", dup2(fd, 30));
    expect_bad("dup3", dup3(fd, 30, O_CLOEXEC));
    expect_bad("F_DUPFD", fcntl(fd, F_DUPFD, 3));
    expect_bad("F_DUPFD_CLOEXEC", fcntl64(fd, F_DUPFD_CLOEXEC, 3));
    expect_bad("F_GETFD", fcntl(fd, F_GETFD));
    expect_bad("F_SETFD", fcntl(fd, F_SETFD, 0));
    expect_bad("F_SETFL", fcntl(fd, F_SETFL, O_NONBLOCK));
    expect_bad("FIONCLEX", ioctl(fd, FIONCLEX));
    expect_bad("FIONBIO", ioctl(fd, FIONBIO, &on));
    cr_expect(unseen(SYS_fcntl, fd, F_GETFD) == FD_CLOEXEC);
}

static long pass(int fd)
{
    char control[CMSG_SPACE(sizeof(fd))] __attribute__((aligned(8))) = {0};
    struct cmsghdr *header = (void *)control;
    struct iovec byte = {"x", 1};
    struct msghdr msg = {.msg_iov = &byte,
                         .msg_iovlen = 1,
                         .msg_control = control,
                         .msg_controllen = CMSG_LEN(4)};
    int ends[2];
    long result;

    *header = (struct cmsghdr){CMSG_LEN(4), SOL_SOCKET, SCM_RIGHTS};
    memcpy(CMSG_DATA(header), &fd, sizeof(fd));
    cr_assert(socketpair(AF_UNIX, SOCK_DGRAM, 0, ends) == 0);
    result = sendmsg(ends[0], &msg, 0);
    close(ends[0]);
    close(ends[1]);
    return result;
}

static void pass_a_queue(void)
{
    int queues[QUEUES];

    cr_assert(find_queues(queues) == QUEUES);
    expect_bad("sendmsg", pass(queues[3]));
    cr_expect(count_queues() == 0);
}

static void duplicate_a_queue_by_number(void)
{
    int queues[QUEUES];

    cr_assert(find_queues(queues) == QUEUES);
    expect_bad("SYS_dup", syscall(SYS_dup, queues[3]));
    cr_expect(count_queues() == 0);
}

static void cannot_be_used(void)
{
    int queues[QUEUES], port;

    in_child(by_exit_now);
    cr_assert(find_queues(queues) == QUEUES);
    for (size_t i = 0; i < QUEUES; i++)
        try_to_use(queues[i]);
    in_child(give_one);
    EXPECT_TAKEN();
    in_child(pass_a_queue);
    in_child(duplicate_a_queue_by_number);
    port = use_one();
    try_to_use(shadow_fd());
    cr_expect(port_of_next() == port, "the idle connection was lost");
}

/* The program never got these fds. */
Test(family_queues, cannot_be_used_by_the_program)
{
    not_under_asan();
    alone(cannot_be_used);
}

static int count_mappings(void)
{
    FILE *maps = fopen("/proc/self/maps", "r");
    int n = 0;

    cr_assert(maps != NULL);
    for (int c = getc(maps); c != EOF; c = getc(maps))
        n += c == '\n';
    fclose(maps);
    return n;
}

/* A server that becomes its user for each child, and root again, makes a family each time. */
static void a_new_family_for_each_fork(void)
{
    int before;

    in_child(by_exit_now);
    before = count_mappings();
    for (int i = 0; i < 100; i++) {
        setfsgid(getegid());
        in_child(by_exit_now);
    }
    cr_expect(count_mappings() < before + 50, "%d, after %d", count_mappings(), before);
    in_child(give_one);
    EXPECT_NOT_TAKEN();
}

Test(family_queues, a_new_family_for_each_fork)
{
    alone(a_new_family_for_each_fork);
}
