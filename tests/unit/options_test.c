/*
 * Socket options: which the library notes, which must be equal, and their transfer between two
 * real TCP connections.
 */
#include "conn/sockopts.h"

#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/time.h>
#include <unistd.h>

#include <criterion/criterion.h>

static int listener;

static int connect_one(void)
{
    struct sockaddr_in addr;
    socklen_t len = sizeof(addr);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int accepted;

    cr_assert(getsockname(listener, (struct sockaddr *)&addr, &len) == 0);
    cr_assert(connect(fd, (struct sockaddr *)&addr, len) == 0);
    accepted = accept(listener, NULL, NULL);
    cr_assert(accepted >= 0);
    close(accepted);
    return fd;
}

static void set_up(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};

    listener = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(bind(listener, (struct sockaddr *)&addr, sizeof(addr)) == 0);
    cr_assert(listen(listener, 8) == 0);
}

TestSuite(options, .init = set_up);

/* The kernel's value of an option, as bytes. It keeps the time of a linger that was switched
 * off, which means nothing. */
static socklen_t value_of(int fd, int level, int name, void *value)
{
    socklen_t len = OPTION_VALUE_MAX;
    struct linger linger;

    memset(value, 0, OPTION_VALUE_MAX);
    cr_assert(getsockopt(fd, level, name, value, &len) == 0);
    if (level == SOL_SOCKET && name == SO_LINGER) {
        memcpy(&linger, value, sizeof(linger));
        if (!linger.l_onoff)
            memset(value, 0, OPTION_VALUE_MAX);
    }
    return len;
}

static bool equal(int a, int b, int level, int name)
{
    unsigned char x[OPTION_VALUE_MAX], y[OPTION_VALUE_MAX];

    return value_of(a, level, name, x) == value_of(b, level, name, y) &&
           memcmp(x, y, sizeof(x)) == 0;
}

static void give(struct sockopts *options, int fd, int level, int name, const void *value,
                 socklen_t len)
{
    cr_assert(setsockopt(fd, level, name, value, len) == 0, "%d/%d: %s", level, name,
              strerror(errno));
    cr_assert(sockopts_note(options, true, level, name, value, len), "%d/%d", level, name);
}

static const int one = 1, three = 3, seven = 7, cheap = 0x08;
static const struct timeval soon = {.tv_sec = 1, .tv_usec = 500000};
static const struct timeval later = {.tv_sec = 60, .tv_usec = 4000};
static const struct linger lingering = {.l_onoff = 1, .l_linger = 3};

static const struct {
    int level;
    int name;
    const void *value;
    socklen_t len;
} movable[] = {
    {SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one)},
    {SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon)},
    {SOL_SOCKET, SO_SNDTIMEO, &later, sizeof(later)},
    {SOL_SOCKET, SO_LINGER, &lingering, sizeof(lingering)},
    {SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)},
    {IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)},
    {IPPROTO_TCP, TCP_KEEPIDLE, &seven, sizeof(seven)},
    {IPPROTO_TCP, TCP_KEEPINTVL, &seven, sizeof(seven)},
    {IPPROTO_TCP, TCP_KEEPCNT, &seven, sizeof(seven)},
    {IPPROTO_TCP, TCP_USER_TIMEOUT, &seven, sizeof(seven)},
    {IPPROTO_IP, IP_TOS, &cheap, sizeof(cheap)},
    {SOL_SOCKET, SO_PRIORITY, &three, sizeof(three)},
};

#define MOVABLE (sizeof(movable) / sizeof(movable[0]))

static void give_row(struct sockopts *options, int fd, size_t i)
{
    give(options, fd, movable[i].level, movable[i].name, movable[i].value, movable[i].len);
}

/* One option on either side at a time, then all on one side, then half on each. What becomes of
 * TCP_NODELAY has tests of its own. */
Test(options, make_a_connection_equal_to_the_fresh_socket)
{
    for (size_t round = 0; round < 2 * MOVABLE + 3; round++) {
        struct sockopts have = {.given = 0}, want = {.given = 0};
        int connection = connect_one();
        int fresh = socket(AF_INET, SOCK_STREAM, 0);

        for (size_t i = 0; i < MOVABLE; i++) {
            bool first =
                round == i || round == 2 * MOVABLE || (round == 2 * MOVABLE + 2 && i % 2 == 0);
            bool second = round == MOVABLE + i || round == 2 * MOVABLE + 1 ||
                          (round == 2 * MOVABLE + 2 && i % 2 == 1);

            if (first)
                give_row(&have, connection, i);
            if (second)
                give_row(&want, fresh, i);
            cr_expect(!(first || second) ||
                          !equal(connection, fresh, movable[i].level, movable[i].name),
                      "row %zu is no test", i);
        }
        cr_expect(sockopts_fit(&have, &want));
        cr_expect(sockopts_apply(connection, &have, fresh, &want));
        for (size_t i = 0; i < MOVABLE; i++)
            cr_expect((movable[i].level == IPPROTO_TCP && movable[i].name == TCP_NODELAY) ||
                          equal(connection, fresh, movable[i].level, movable[i].name),
                      "round %zu, row %zu", round, i);
        close(connection);
        close(fresh);
    }
}

Test(options, two_values_of_the_same_option)
{
    struct sockopts have = {.given = 0}, want = {.given = 0};
    int connection = connect_one(), fresh = socket(AF_INET, SOCK_STREAM, 0);

    give(&have, connection, SOL_SOCKET, SO_RCVTIMEO, &later, sizeof(later));
    give(&want, fresh, SOL_SOCKET, SO_RCVTIMEO, &soon, sizeof(soon));
    cr_expect(sockopts_apply(connection, &have, fresh, &want));
    cr_expect(equal(connection, fresh, SOL_SOCKET, SO_RCVTIMEO));
}

/* The value that was set last counts. */
Test(options, set_twice)
{
    struct sockopts have = {.given = 0}, want = {.given = 0};
    int connection = connect_one(), fresh = socket(AF_INET, SOCK_STREAM, 0);
    int off = 0;

    give(&have, connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    give(&want, fresh, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    give(&want, fresh, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off));
    cr_expect(sockopts_apply(connection, &have, fresh, &want));
    cr_expect(equal(connection, fresh, IPPROTO_TCP, TCP_NODELAY));
}

/* Equal options cost no system call: with these invalid fds any call would fail. */
Test(options, nothing_to_do)
{
    struct sockopts have = {.forced_nodelay = true}, want = {.given = 0};
    int off = 0;

    cr_expect(sockopts_apply(-1, &have, -1, &want));
    cr_assert(sockopts_note(&have, true, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)));
    cr_expect(!sockopts_apply(-1, &have, -1, &want));
    cr_assert(sockopts_note(&want, true, IPPROTO_TCP, TCP_NODELAY, &off, sizeof(off)));
    cr_expect(sockopts_apply(-1, &have, -1, &want));
}

Test(options, failure_keeps_errno)
{
    struct sockopts have = {.given = 0}, want = {.given = 0};

    errno = ERANGE;
    cr_expect(!sockopts_apply(-1, &have, -1, &want));
    cr_expect(errno == ERANGE);
}

Test(options, what_can_be_noted)
{
    struct sockopts options = {.given = 0};
    long wide = 1;
    char narrow = 1;

    for (size_t i = 0; i < MOVABLE; i++)
        cr_expect(sockopts_note(&options, true, movable[i].level, movable[i].name,
                                movable[i].value, movable[i].len));
    cr_expect(!sockopts_note(&options, false, SOL_SOCKET, SO_MARK, &one, sizeof(one)));
    cr_expect(!sockopts_note(&options, false, SOL_SOCKET, TCP_KEEPINTVL, &one, sizeof(one)),
              "a number means another option on another level");
    cr_expect(!sockopts_note(&options, false, IPPROTO_TCP, TCP_NODELAY, &wide, sizeof(wide)));
    cr_expect(
        !sockopts_note(&options, false, IPPROTO_TCP, TCP_NODELAY, &narrow, sizeof(narrow)));
    cr_expect(!sockopts_note(&options, false, IPPROTO_TCP, TCP_NODELAY, &one, 0));
}

static const struct {
    int level;
    int name;
} fixed[] = {{SOL_SOCKET, SO_SNDBUF}, {SOL_SOCKET, SO_RCVBUF}, {IPPROTO_IPV6, IPV6_V6ONLY}};

Test(options, fixed_ones_must_be_equal)
{
    int small = 4096, large = 8192;

    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]); i++) {
        struct sockopts a = {.forced_nodelay = true}, b = {.given = 0};
        int level = fixed[i].level, name = fixed[i].name;

        cr_assert(sockopts_note(&a, false, level, name, &small, sizeof(small)));
        cr_expect(!sockopts_fit(&a, &b) && !sockopts_fit(&b, &a));
        cr_assert(sockopts_note(&b, false, level, name, &large, sizeof(large)));
        cr_expect(!sockopts_fit(&a, &b));
        cr_assert(sockopts_note(&b, false, level, name, &small, sizeof(small)));
        cr_expect(sockopts_fit(&a, &b) && sockopts_apply(-1, &a, -1, &b));
        cr_expect(!sockopts_note(&a, true, level, name, &small, sizeof(small)), "too late");
    }
}

static int nodelay_of(int fd)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &value, &len) == 0);
    return value;
}

/* Reused by a user that sets nothing, one that sets it to no, one to yes, and one that sets
 * nothing again. Only changes cost a system call, and each user reads the value it set. */
Test(options, reused_connections_are_quick)
{
    static const struct {
        bool given;
        int value;
        int carried;
    } users[] = {{false, 0, 1}, {false, 0, 1}, {true, 0, 0}, {true, 0, 0},
                 {true, 1, 1},  {false, 0, 1}, {true, 1, 1}, {true, 0, 0}};
    struct sockopts have = {.given = 0};
    int connection = connect_one();
    int carried = 0;

    for (size_t i = 0; i < sizeof(users) / sizeof(users[0]); i++) {
        struct sockopts want = {.given = 0};
        int fresh = socket(AF_INET, SOCK_STREAM, 0);
        int seen;

        if (users[i].given)
            give(&want, fresh, IPPROTO_TCP, TCP_NODELAY, &users[i].value, sizeof(int));
        if (users[i].carried == carried && have.given == want.given)
            cr_expect(sockopts_apply(-1, &have, -1, &want), "no call");
        else
            cr_expect(sockopts_apply(connection, &have, fresh, &want));
        sockopts_equalize(&have, &want);
        seen = carried = nodelay_of(connection);
        cr_expect(carried == users[i].carried, "user %zu", i);
        sockopts_seen(&have, IPPROTO_TCP, TCP_NODELAY, &seen, sizeof(seen));
        cr_expect(seen == (users[i].given && users[i].value), "user %zu", i);
        close(fresh);
    }
}

struct keepalive {
    int on, idle, interval, probes;
};

static int int_of(int fd, int level, int name)
{
    int value = -1;
    socklen_t len = sizeof(value);

    cr_assert(getsockopt(fd, level, name, &value, &len) == 0);
    return value;
}

static struct keepalive keepalive_of(int fd)
{
    return (struct keepalive){
        int_of(fd, SOL_SOCKET, SO_KEEPALIVE), int_of(fd, IPPROTO_TCP, TCP_KEEPIDLE),
        int_of(fd, IPPROTO_TCP, TCP_KEEPINTVL), int_of(fd, IPPROTO_TCP, TCP_KEEPCNT)};
}

static int seen_of(const struct sockopts *options, int fd, int level, int name)
{
    int value = int_of(fd, level, name);

    sockopts_seen(options, level, name, &value, sizeof(value));
    return value;
}

/* What the program reads on FD. */
static struct keepalive seen_keepalive_of(const struct sockopts *options, int fd)
{
    return (struct keepalive){seen_of(options, fd, SOL_SOCKET, SO_KEEPALIVE),
                              seen_of(options, fd, IPPROTO_TCP, TCP_KEEPIDLE),
                              seen_of(options, fd, IPPROTO_TCP, TCP_KEEPINTVL),
                              seen_of(options, fd, IPPROTO_TCP, TCP_KEEPCNT)};
}

static void expect_keepalive(struct keepalive is, struct keepalive wanted)
{
    cr_expect(is.on == wanted.on && is.idle == wanted.idle && is.interval == wanted.interval &&
                  is.probes == wanted.probes,
              "%d %d %d %d", is.on, is.idle, is.interval, is.probes);
}

static int watched_connection(struct sockopts *options)
{
    int fd = connect_one();

    cr_assert(sockopts_can_keep_alive(options, 15));
    cr_assert(sockopts_keep_alive(fd, options, 15));
    return fd;
}

Test(options, keepalive_is_set_once_and_hidden)
{
    struct sockopts none = {.given = 0}, have = {.given = 0};
    struct keepalive usual = keepalive_of(connect_one());
    int fd = watched_connection(&have);
    uint8_t byte = 9;

    expect_keepalive(keepalive_of(fd), (struct keepalive){1, 15, 5, 120});
    expect_keepalive(seen_keepalive_of(&have, fd), usual);
    cr_expect(!sockopts_can_keep_alive(&have, 15) && !sockopts_can_keep_alive(&have, 5));
    cr_expect(sockopts_apply(-1, &have, -1, &none) == false, "TCP_NODELAY");
    sockopts_equalize(&have, &none);
    cr_expect(sockopts_apply(-1, &have, -1, &none), "no call");
    expect_keepalive(seen_keepalive_of(&have, fd), usual);
    sockopts_seen(&have, SOL_SOCKET, SO_KEEPALIVE, &byte, 1);
    cr_expect(byte == 0, "a short value");
    sockopts_restore(fd, &have);
    expect_keepalive(keepalive_of(fd), usual);
    cr_expect(!sockopts_are_forced(&have));
}

/* The options of keepalive, and what they are when the program has set one of them. */
static const struct {
    int level, name, value;
} keepalives[] = {{SOL_SOCKET, SO_KEEPALIVE, 1},   {SOL_SOCKET, SO_KEEPALIVE, 0},
                  {IPPROTO_TCP, TCP_KEEPIDLE, 33}, {IPPROTO_TCP, TCP_KEEPINTVL, 7},
                  {IPPROTO_TCP, TCP_KEEPCNT, 3},   {IPPROTO_TCP, TCP_USER_TIMEOUT, 4000}};

#define KEEPALIVES (sizeof(keepalives) / sizeof(keepalives[0]))

Test(options, keepalive_of_the_program_is_respected)
{
    for (size_t i = 0; i < KEEPALIVES; i++) {
        struct sockopts have = {.given = 0}, given = {.given = 0};
        int level = keepalives[i].level, name = keepalives[i].name;
        int plain = connect_one(), fd = watched_connection(&have), fresh;

        give(&given, plain, level, name, &keepalives[i].value, sizeof(int));
        cr_expect(!sockopts_can_keep_alive(&given, 15), "row %zu: set before", i);
        cr_assert(setsockopt(fd, level, name, &keepalives[i].value, sizeof(int)) == 0);
        cr_expect(sockopts_yield(fd, &have, level, name));
        cr_expect(sockopts_note(&have, true, level, name, &keepalives[i].value, sizeof(int)));
        expect_keepalive(keepalive_of(fd), keepalive_of(plain));
        expect_keepalive(seen_keepalive_of(&have, fd), keepalive_of(plain));
        have = (struct sockopts){.given = 0};
        fd = watched_connection(&have);
        fresh = socket(AF_INET, SOCK_STREAM, 0);
        given = (struct sockopts){.given = 0};
        give(&given, fresh, level, name, &keepalives[i].value, sizeof(int));
        cr_expect(sockopts_apply(fd, &have, fresh, &given));
        sockopts_equalize(&have, &given);
        expect_keepalive(keepalive_of(fd), keepalive_of(plain));
        expect_keepalive(seen_keepalive_of(&have, fd), keepalive_of(plain));
    }
}

Test(options, keepalive_does_not_yield_to_other_options)
{
    struct sockopts have = {.given = 0};
    int fd = watched_connection(&have);

    cr_expect(sockopts_yield(-1, &have, IPPROTO_TCP, TCP_NODELAY));
    cr_expect(sockopts_yield(-1, &have, SOL_SOCKET, SO_RCVTIMEO));
    cr_expect(sockopts_yield(-1, &have, SOL_SOCKET, 12345));
    expect_keepalive(keepalive_of(fd), (struct keepalive){1, 15, 5, 120});
    cr_expect(!sockopts_yield(-1, &have, SOL_SOCKET, SO_KEEPALIVE) && have.keep_idle == 0);
}

Test(options, only_nodelay_is_hidden)
{
    struct sockopts none = {.given = 0}, have = {.given = 0};
    int value = 7;

    sockopts_equalize(&have, &none);
    sockopts_seen(&have, SOL_SOCKET, TCP_NODELAY, &value, sizeof(value));
    sockopts_seen(&have, IPPROTO_TCP, TCP_KEEPIDLE, &value, sizeof(value));
    cr_expect(value == 7);
}

Test(options, push_leaves_what_was_there)
{
    struct sockopts options = {.given = 0};
    int connection = connect_one();

    sockopts_push(connection, &options);
    cr_expect(nodelay_of(connection) == 0);
    give(&options, connection, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    sockopts_push(connection, &options);
    cr_expect(nodelay_of(connection) == 1);
}

Test(options, give_sets_all_of_them)
{
    struct sockopts options = {.given = 0};
    int from = socket(AF_INET, SOCK_STREAM, 0), to = socket(AF_INET, SOCK_STREAM, 0);
    int size = 32768;

    for (size_t i = 0; i < MOVABLE; i++)
        give_row(&options, from, i);
    cr_assert(setsockopt(from, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)) == 0);
    cr_assert(sockopts_note(&options, false, SOL_SOCKET, SO_SNDBUF, &size, sizeof(size)));
    cr_expect(sockopts_give(to, &options));
    for (size_t i = 0; i < MOVABLE; i++)
        cr_expect(equal(from, to, movable[i].level, movable[i].name), "row %zu", i);
    cr_expect(equal(from, to, SOL_SOCKET, SO_SNDBUF));
    cr_expect(!sockopts_give(-1, &options));
}

/* The kernel sets the priority when IP_TOS changes: the one set last counts. */
Test(options, priority_comes_after_the_type_of_service)
{
    struct sockopts have = {0}, want = {0};
    int first = connect_one(), second = connect_one();
    int none = 0;

    give(&have, first, SOL_SOCKET, SO_PRIORITY, &none, sizeof(none));
    give(&want, second, IPPROTO_IP, IP_TOS, &cheap, sizeof(cheap));
    give(&want, second, SOL_SOCKET, SO_PRIORITY, &none, sizeof(none));
    cr_expect(sockopts_fit(&have, &want) && sockopts_apply(first, &have, second, &want));
    cr_expect(equal(first, second, SOL_SOCKET, SO_PRIORITY));
    cr_expect(equal(first, second, IPPROTO_IP, IP_TOS));
    cr_expect(!sockopts_note(&have, true, IPPROTO_IP, IP_TOS, &cheap, sizeof(cheap)));
    close(first);
    close(second);
}

Test(options, bound_sockets_are_among_themselves)
{
    struct sockopts have = {.bound = true}, want = {0};

    cr_expect(!sockopts_fit(&have, &want) && !sockopts_can_be_cleared(&have));
    cr_expect(!sockopts_fit(&want, &have));
    sockopts_equalize(&want, &have);
    cr_expect(sockopts_fit(&have, &want));
}
