/*
 * Calls that take rights from the process while it has pooled connections. A pooled connection
 * must not lead where a real connect() would be refused. Each kind of call is tried. Filters
 * that kill the process for an unexpected call are in tests/interop/test_sandbox.py.
 */
#include "harness.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/capability.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <linux/securebits.h>

/* linux/landlock.h of Debian 12 knows nothing of the network; landlock_create_ruleset(2). */
#define SYS_LANDLOCK_CREATE_RULESET 444
#define SYS_LANDLOCK_RESTRICT_SELF  446
#define LANDLOCK_VERSION            1u
#define LANDLOCK_NET_SINCE          4
#define LANDLOCK_CONNECT_TCP        (UINT64_C(1) << 1)

int capset(void *header, const void *data);

static struct sock_filter no_connect[] = {
    BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_connect, 0, 1),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
    BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
};
static struct sock_fprog filter = {sizeof(no_connect) / sizeof(no_connect[0]), no_connect};

static long by_prctl(void)
{
    return prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter);
}

static long by_seccomp(void)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &filter);
}

static long for_all_threads(void)
{
    return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &filter);
}

static long with_a_listener(void)
{
    return close((int)syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
                              SECCOMP_FILTER_FLAG_NEW_LISTENER, &filter));
}

static long by_the_number_of_prctl(void)
{
    return syscall(SYS_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter, 0, 0);
}

static long landlock_abi(void)
{
    return syscall(SYS_LANDLOCK_CREATE_RULESET, NULL, 0, LANDLOCK_VERSION);
}

static long by_landlock(void)
{
    struct {
        uint64_t files;
        uint64_t net;
    } handled = {0, LANDLOCK_CONNECT_TCP};
    long ruleset = syscall(SYS_LANDLOCK_CREATE_RULESET, &handled, sizeof(handled), 0);

    long result = syscall(SYS_LANDLOCK_RESTRICT_SELF, ruleset, 0);

    close((int)ruleset);
    return result;
}

static void expect_refused(int error)
{
    struct sockaddr_in addr;
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int result = connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr));

    cr_expect(result == -1 && errno == error, "connect() gave %d (%s)", result,
              strerror(errno));
    close(fd);
}

static int open_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < FD_SETSIZE * 16; fd++)
        count += unseen(SYS_fcntl, fd, F_GETFD) >= 0;
    return count;
}

/* One connection is idle and one is in use. The one in use is used and closed as any other. */
static void expect_refused_after(long (*enter)(void), int error)
{
    int before = open_descriptors();
    int reused, idle = dial_server();
    int nodelay = 1, keepalive = 1;
    socklen_t len = sizeof(nodelay);

    park();
    exchange(idle);
    close(idle);
    reused = dial_server();
    EXPECT_EVENT(": reused as ");
    exchange(reused);
    cr_assert(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0);
    cr_assert(enter() == 0, "%s", strerror(errno));
    EXPECT_EVENT(": discarded: SANDBOX ");
    expect_refused(error);
    exchange(reused);
    cr_expect(getsockopt(reused, IPPROTO_TCP, TCP_NODELAY, &nodelay, &len) == 0 &&
              nodelay == 0);
    cr_expect(getsockopt(reused, SOL_SOCKET, SO_KEEPALIVE, &keepalive, &len) == 0 &&
              keepalive == 0);
    cr_expect(close(reused) == 0);
    cr_expect(open_descriptors() == before, "not all are closed");
    expect_refused(error);
    EXPECT_EVENT(": discarded: SANDBOX ");
}

Test(sandbox, seccomp_by_prctl, .timeout = 20)
{
    expect_refused_after(by_prctl, EPERM);
}

Test(sandbox, seccomp_by_syscall, .timeout = 20)
{
    expect_refused_after(by_seccomp, EPERM);
}

Test(sandbox, seccomp_for_all_threads, .timeout = 20)
{
    expect_refused_after(for_all_threads, EPERM);
}

Test(sandbox, seccomp_with_a_listener, .timeout = 20)
{
    expect_refused_after(with_a_listener, EPERM);
}

Test(sandbox, seccomp_by_syscall_of_prctl, .timeout = 20)
{
    expect_refused_after(by_the_number_of_prctl, EPERM);
}

Test(sandbox, landlock, .timeout = 20)
{
    if (landlock_abi() < LANDLOCK_NET_SINCE)
        cr_skip_test("this kernel's Landlock does not restrict connect()");
    expect_refused_after(by_landlock, EACCES);
}

/* The reused connection speaks text, and inside the sandbox it could no longer be swapped. So
 * it is replaced before, where no other thread can be sending on it: in a child of fork(). */
static int speak_binary_inside(void)
{
    static const char noop[24] = {'\x80', '\x0a'};
    struct pollfd wait = {.events = POLLIN};
    char answer[24] = "";

    park();
    wait.fd = dial_server();
    if (log_count(": reused as ") != 1 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 ||
        by_prctl() != 0)
        return 1;
    if (send(wait.fd, noop, sizeof(noop), MSG_NOSIGNAL) != sizeof(noop) ||
        poll(&wait, 1, 3000) != 1)
        return 2;
    return recv(wait.fd, answer, sizeof(answer), 0) == sizeof(answer) && answer[0] == '\x81'
               ? 0
               : 3;
}

Test(sandbox, the_next_word_may_be_of_either_protocol, .timeout = 20)
{
    pid_t child = fork();

    if (child == 0)
        _exit(speak_binary_inside());
    expect_good_end(child);
}

static void expect_pooling(void)
{
    int port = park();
    int fd = dial_server();

    cr_expect(local_port(fd) == port, "not pooled: %s", last_event());
    exchange(fd);
    close(fd);
}

Test(sandbox, nothing_changes_when_the_call_fails, .timeout = 20)
{
    park();
    cr_expect(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, ~0u, &filter) == -1 &&
              errno == EINVAL);
    EXPECT_EVENT(": discarded: SANDBOX ");
    expect_pooling();
    cr_expect(prctl(PR_SET_SECCOMP, 77, &filter) == -1 && errno == EINVAL);
    expect_pooling();
    cr_expect(syscall(SYS_LANDLOCK_RESTRICT_SELF, -1, 0) == -1);
    expect_pooling();
}

/* In a child, which has one thread: another thread might wait in the set. */
static void close_a_set_after_a_failure(void)
{
    int set = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    int fd;

    park();
    cr_expect(prctl(PR_SET_SECCOMP, 77, &filter) == -1);
    fd = dial_server();
    cr_assert(epoll_ctl(set, EPOLL_CTL_ADD, fd, &event) == 0);
    exchange(fd);
    close(set);
    close(fd);
    _exit(strstr(last_event(), ": kept") ? 0 : 1);
}

Test(sandbox, epoll_sets_stay_known_when_the_call_fails, .timeout = 20)
{
    pid_t child = fork();

    if (child == 0)
        close_a_set_after_a_failure();
    expect_good_end(child);
}

/* Asks the kernel whether a filter could be installed, and installs none. */
Test(sandbox, questions_cost_no_connection, .timeout = 20)
{
    int port = park();

    cr_expect(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, NULL) == -1);
    cr_expect(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, NULL) == -1);
    cr_expect(prctl(PR_GET_SECCOMP) == 0);
    cr_expect(prctl(PR_SET_NAME, "renamed") == 0);
    cr_expect(local_port(dial_server()) == port);
}

static struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
static struct __user_cap_data_struct rights[2];

/* The same rights as before, which every process may set. */
static long by_capset(void)
{
    return capset(&header, rights);
}

static long by_the_number_of_capset(void)
{
    return syscall(SYS_capset, &header, rights);
}

static long by_bounding(void)
{
    return prctl(PR_CAPBSET_DROP, CAP_WAKE_ALARM, 0, 0, 0);
}

static long by_ambience(void)
{
    return prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
}

static long by_secure_bits(void)
{
    return syscall(SYS_prctl, PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP, 0, 0, 0);
}

/* A connection opened before is no longer reused, one opened afterwards is. */
Test(sandbox, rights_given_up, .timeout = 20)
{
    static long (*const ways[])(void) = {by_capset, by_the_number_of_capset, by_bounding,
                                         by_ambience, by_secure_bits};

    if (geteuid() != 0)
        cr_skip_test("only root may give up all of these");
    cr_assert(syscall(SYS_capget, &header, rights) == 0);
    for (size_t i = 0; i < sizeof(ways) / sizeof(ways[0]); i++) {
        int port = park();
        int fd = dial_server();

        exchange(fd);
        cr_assert(ways[i]() == 0, "way %zu: %s", i, strerror(errno));
        close(fd);
        EXPECT_NOT_KEPT("IDENTITY");
        fd = dial_server();
        cr_expect(local_port(fd) != port, "way %zu: a connection of before", i);
        close(fd);
        expect_pooling();
    }
}

Test(sandbox, rights_that_could_not_be_given_up, .timeout = 20)
{
    struct __user_cap_header_struct odd = {0, 0};
    int port = park();

    cr_expect(capset(&odd, rights) == -1 && errno == EINVAL);
    cr_expect(local_port(dial_server()) == port);
}
