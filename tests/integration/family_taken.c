/*
 * The family: what a taken connection is like, and what must not be taken.
 */
#include "harness.h"

#include <fcntl.h>
#include <grp.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#include "family.h"

TestSuite(family_taken, .init = share_memory, .timeout = 60);

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

Test(family_taken, options_are_set_back)
{
    alone(options_are_set_back);
}

static void use_with_a_small_buffer_and_wait(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0), size = 4096;
    struct sockaddr_in server;

    cr_assert(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)) == 0);
    cr_assert(
        connect(fd, (struct sockaddr *)loopback(&server, server_port()), sizeof(server)) == 0);
    told->port = local_port(fd);
    ask(fd);
    close(fd);
    cr_assert(poll(NULL, 0, 100) == 0);
}

static void use_one_and_wait(void)
{
    told->port = use_one();
    cr_assert(poll(NULL, 0, 100) == 0);
}

/* What no other process can use goes on to be of use to this one. */
static void is_kept(void (*use)(void))
{
    int former;

    in_child(by_exit_now);
    use();
    former = told->port;
    use();
    cr_expect(told->port == former, "%d, not %d", told->port, former);
    cr_expect(count_queued() == 0);
}

static void one_with_odd_options_is_kept(void)
{
    is_kept(use_with_a_small_buffer_and_wait);
}

/* A process with more than 64 groups shares nothing. */
static void one_of_many_groups_is_kept(void)
{
    gid_t groups[65];

    for (unsigned int i = 0; i < 65; i++)
        groups[i] = 1000 + i;
    if (setgroups(65, groups) == 0)
        is_kept(use_one_and_wait);
}

Test(family_taken, what_cannot_be_given_is_kept)
{
    alone(one_with_odd_options_is_kept);
    alone(one_of_many_groups_is_kept);
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

Test(family_taken, options_are_carried_over)
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

static void with_listener(struct item *item)
{
    int port;
    int fd = listen_here(&port);

    put_in_fd(item, (int)unseen(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3));
    close(fd);
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
    {"a listener", with_listener},
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

static int count_open(void)
{
    int n = 0;

    for (int fd = 0; fd < 65536; fd++)
        n += unseen(SYS_fcntl, fd, F_GETFD) >= 0;
    return n;
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

Test(family_taken, garbage_is_not_used)
{
    alone(garbage_is_not_used);
}

/* Whether this process has a lock on FILE, as another process sees it. */
static bool is_locked(int file)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pid_t child = (pid_t)unseen(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    int status;

    if (child == 0)
        _exit(fcntl(file, F_GETLK, &lock) == 0 && lock.l_type == F_WRLCK);
    cr_assert(waitpid(child, &status, 0) == child && WIFEXITED(status));
    return WEXITSTATUS(status);
}

/* A close of any fd of a file releases the locks of the process on it (fcntl(2)), and that of a
 * Unix socket may wait for a socket that was sent through it and lingers. */
static void what_is_no_connection_stays_open(int fd)
{
    struct stat file = file_at(fd);
    struct item item;
    int queue;

    in_child(give_one);
    queue = get(&item);
    put_in_fd(&item, (int)unseen(SYS_fcntl, fd, F_DUPFD_CLOEXEC, 3));
    put(queue, &item);
    EXPECT_NOT_TAKEN();
    cr_expect(is_open(&file));
    cr_expect(count_queues() == 0);
}

static void a_locked_file(void)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    char name[] = "/tmp/mcpool-lock-XXXXXX";
    int file = mkstemp(name);

    cr_assert(file >= 0 && unlink(name) == 0 && fcntl(file, F_SETLK, &lock) == 0);
    what_is_no_connection_stays_open(file);
    cr_expect(is_locked(file));
}

static void a_unix_socket(void)
{
    int ends[2];

    cr_assert(unseen(SYS_socketpair, AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    what_is_no_connection_stays_open(ends[0]);
}

Test(family_taken, what_is_no_connection_is_not_closed)
{
    alone(a_locked_file);
    alone(a_unix_socket);
}

/* Linux 6.5 adds an fd for the sender to a message without one, if a member asks for it. */
static void senders_are_closed(void)
{
    const int pass_pidfd = 76, on = 1;
    struct item item;
    int queue, before;

    in_child(give_one);
    queue = get(&item);
    unseen(SYS_close, item.fds[0]);
    item.count = 0;
    unseen(SYS_setsockopt, queue, SOL_SOCKET, pass_pidfd, &on, sizeof(on));
    EXPECT_NOT_TAKEN();
    before = count_open();
    for (int i = 0; i < 5; i++) {
        put(queue, &item);
        in_child(give_one); /* no queue is looked into that counts as empty */
        port_of_next();
    }
    /* One may be a spare of the library. */
    cr_expect(count_open() <= before + 1, "%d fds, after %d", count_open(), before);
}

Test(family_taken, fds_of_senders_are_closed)
{
    alone(senders_are_closed);
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

Test(family_taken, a_close_does_not_linger)
{
    alone(a_close_does_not_linger);
}

/* A count may be set while a message is on its way, and be too low then. Who takes the last one
 * that is counted asks the kernel for more. */
static void a_wrong_count_hides_none(void)
{
    struct item first;
    int queue, port;

    in_child(give_one);
    queue = get(&first);
    port = local_port(first.fds[0]);
    EXPECT_NOT_TAKEN();
    put(queue, &first); /* counts as none */
    unseen(SYS_close, first.fds[0]);
    in_child(give_one);
    cr_expect(count_queued() == 2);
    cr_expect(port_of_next() == port);
    EXPECT_TAKEN();
    cr_expect(count_queued() == 0);
}

Test(family_taken, a_wrong_count_hides_none)
{
    alone(a_wrong_count_hides_none);
}
