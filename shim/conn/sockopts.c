/*
 * The table of the socket options that we know, and how they are copied and set back.
 */
#include "conn/sockopts.h"

#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/time.h>

#include "base/rawsys.h"

#define ROW_KEEPALIVE    0
#define ROW_LINGER       3
#define ROW_NODELAY      5
#define ROW_KEEPIDLE     6
#define ROW_KEEPINTVL    7
#define ROW_KEEPCNT      8
#define ROW_USER_TIMEOUT 9
#define ROW_TOS          10
#define ROW_PRIORITY     11

_Static_assert(OPTIONS_OF_KEEPALIVE ==
                   (1u << ROW_KEEPALIVE | 1u << ROW_KEEPIDLE | 1u << ROW_KEEPINTVL |
                    1u << ROW_KEEPCNT | 1u << ROW_USER_TIMEOUT),
               "the bits that the header has");

static const struct row {
    int level;
    int name;
    uint8_t size;
    bool fixed; /* once set it cannot be set back */
    bool zero;  /* the kernel's default is all zeros */
} rows[OPTIONS_COUNT] = {
    [ROW_KEEPALIVE] = {SOL_SOCKET, SO_KEEPALIVE, sizeof(int), false, true},
    {SOL_SOCKET, SO_RCVTIMEO, sizeof(struct timeval), false, true},
    {SOL_SOCKET, SO_SNDTIMEO, sizeof(struct timeval), false, true},
    [ROW_LINGER] = {SOL_SOCKET, SO_LINGER, sizeof(struct linger), false, false},
    {SOL_SOCKET, SO_REUSEADDR, sizeof(int), false, true},
    [ROW_NODELAY] = {IPPROTO_TCP, TCP_NODELAY, sizeof(int), false, true},
    [ROW_KEEPIDLE] = {IPPROTO_TCP, TCP_KEEPIDLE, sizeof(int), false, false},
    [ROW_KEEPINTVL] = {IPPROTO_TCP, TCP_KEEPINTVL, sizeof(int), false, false},
    [ROW_KEEPCNT] = {IPPROTO_TCP, TCP_KEEPCNT, sizeof(int), false, false},
    [ROW_USER_TIMEOUT] = {IPPROTO_TCP, TCP_USER_TIMEOUT, sizeof(int), false, true},
    [ROW_TOS] = {IPPROTO_IP, IP_TOS, sizeof(int), false, true},
    /* After IP_TOS, because a change of that sets the priority too (__ip_sock_set_tos() of
     * Linux). */
    [ROW_PRIORITY] = {SOL_SOCKET, SO_PRIORITY, sizeof(int), false, true},
    /* Setting a buffer size switches off the kernel's own tuning for good. */
    {SOL_SOCKET, SO_SNDBUF, sizeof(int), true, false},
    {SOL_SOCKET, SO_RCVBUF, sizeof(int), true, false},
    /* The kernel refuses to change it once the socket has an address. */
    {IPPROTO_IPV6, IPV6_V6ONLY, sizeof(int), true, false},
};

/* The rows of TCP keepalive, in the order in which they are set: the kernel starts its timer
 * anew when TCP_KEEPIDLE is set, but only if SO_KEEPALIVE is on. */
static const int keepalive_rows[] = {ROW_KEEPALIVE, ROW_KEEPIDLE, ROW_KEEPINTVL, ROW_KEEPCNT};

#define KEEPALIVE_ROWS (sizeof(keepalive_rows) / sizeof(keepalive_rows[0]))

/* What these options are on a socket on which nothing was set (sysctl
 * net.ipv4.tcp_keepalive_*). Each thread that finds them unknown reads the same. */
static _Atomic int usual[KEEPALIVE_ROWS];
static atomic_bool usual_known;

static bool given(const struct sockopts *options, int row)
{
    return options->given & (1u << row);
}

static bool same(const struct sockopts *a, const struct sockopts *b, int row)
{
    return given(a, row) == given(b, row) &&
           (!given(a, row) || memcmp(a->value[row], b->value[row], rows[row].size) == 0);
}

bool sockopts_note(struct sockopts *options, bool connected, int level, int name,
                   const void *value, socklen_t len)
{
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (rows[i].level != level || rows[i].name != name)
            continue;
        if (len != rows[i].size || (connected && rows[i].fixed) ||
            (i == ROW_TOS && given(options, ROW_PRIORITY)))
            return false;
        memcpy(options->value[i], value, len);
        options->given |= (uint16_t)(1u << i);
        return true;
    }
    return false;
}

bool sockopts_fit(const struct sockopts *have, const struct sockopts *want)
{
    if (have->bound != want->bound)
        return false;
    if (have->given == 0 && want->given == 0)
        return true;
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (rows[i].fixed && !same(have, want, i))
            return false;
    }
    return true;
}

static bool copy_option(int from, int to, const struct row *row)
{
    uint8_t value[OPTION_VALUE_MAX];
    socklen_t len = row->size;

    return raw_syscall(SYS_getsockopt, from, row->level, row->name, value, &len) == 0 &&
           raw_syscall(SYS_setsockopt, to, row->level, row->name, value, len) == 0;
}

static bool is_on(const struct sockopts *options, int row)
{
    int on = 0;

    memcpy(&on, options->value[row], sizeof(on));
    return on != 0;
}

static bool has_nodelay(const struct sockopts *options)
{
    return given(options, ROW_NODELAY) ? is_on(options, ROW_NODELAY) : options->forced_nodelay;
}

static bool set_int(int fd, int row, int value)
{
    return raw_syscall(SYS_setsockopt, fd, rows[row].level, rows[row].name, &value,
                       sizeof(value)) == 0;
}

static bool learn_usual(int fd)
{
    for (size_t i = 0; i < KEEPALIVE_ROWS; i++) {
        const struct row *row = &rows[keepalive_rows[i]];
        int value = 0;
        socklen_t len = sizeof(value);

        if (raw_syscall(SYS_getsockopt, fd, row->level, row->name, &value, &len) != 0)
            return false;
        atomic_store_explicit(&usual[i], value, memory_order_relaxed);
    }
    /* Release: a thread that sees the flag sees the values. */
    atomic_store_explicit(&usual_known, true, memory_order_release);
    return true;
}

bool sockopts_know_usual(int fd, const struct sockopts *options)
{
    return atomic_load_explicit(&usual_known, memory_order_acquire) ||
           (!(options->given & OPTIONS_OF_KEEPALIVE) && learn_usual(fd));
}

bool sockopts_keep_alive(int fd, struct sockopts *options, unsigned int idle)
{
    const int values[KEEPALIVE_ROWS] = {1, (int)idle, KEEPALIVE_INTERVAL, KEEPALIVE_PROBES};

    if (!atomic_load_explicit(&usual_known, memory_order_acquire) && !learn_usual(fd))
        return false;
    for (size_t i = 0; i < KEEPALIVE_ROWS; i++) {
        if (!set_int(fd, keepalive_rows[i], values[i]))
            return false;
    }
    options->keep_idle = (uint16_t)idle;
    return true;
}

/* Sets the options of keepalive, but that of row EXCEPT, back to what they are without us. */
static bool end_keepalive(int fd, struct sockopts *options, int except)
{
    bool all = true;

    for (size_t i = 0; i < KEEPALIVE_ROWS; i++) {
        if (keepalive_rows[i] != except)
            all &= set_int(fd, keepalive_rows[i],
                           atomic_load_explicit(&usual[i], memory_order_relaxed));
    }
    options->keep_idle = 0;
    return all;
}

static int find_row(int level, int name)
{
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (rows[i].level == level && rows[i].name == name)
            return i;
    }
    return -1;
}

bool sockopts_yield(int fd, struct sockopts *options, int level, int name)
{
    int row = find_row(level, name);

    if (options->keep_idle == 0 || row < 0 || !(OPTIONS_OF_KEEPALIVE >> row & 1))
        return true;
    return end_keepalive(fd, options, row);
}

void sockopts_equalize(struct sockopts *have, const struct sockopts *want)
{
    have->given = want->given;
    have->forced_nodelay = !given(want, ROW_NODELAY);
    have->bound = want->bound;
    if (want->given == 0)
        return;
    if (want->given & OPTIONS_OF_KEEPALIVE)
        have->keep_idle = 0;
    memcpy(have->value, want->value, sizeof(have->value));
}

/* Whether sockopts_apply() must copy the option. The priority also if IP_TOS was copied just
 * before, which may have changed it. All options of keepalive if WANT has one, and ours is on.
 */
static bool differs(const struct sockopts *have, const struct sockopts *want, int row)
{
    return !same(have, want, row) ||
           (row == ROW_PRIORITY && given(want, row) && !same(have, want, ROW_TOS)) ||
           (have->keep_idle != 0 && want->given & OPTIONS_OF_KEEPALIVE &&
            OPTIONS_OF_KEEPALIVE >> row & 1);
}

static bool set_nodelay(int fd, bool on)
{
    return set_int(fd, ROW_NODELAY, on);
}

bool sockopts_apply(int connection, const struct sockopts *have, int fresh,
                    const struct sockopts *want)
{
    bool nodelay = !given(want, ROW_NODELAY) || is_on(want, ROW_NODELAY);

    if (has_nodelay(have) != nodelay && !set_nodelay(connection, nodelay))
        return false;
    if (have->given == 0 && want->given == 0)
        return true;
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (i != ROW_NODELAY && !rows[i].fixed && differs(have, want, i) &&
            !copy_option(fresh, connection, &rows[i]))
            return false;
    }
    return true;
}

void sockopts_restore(int fd, struct sockopts *options)
{
    if (options->forced_nodelay && !given(options, ROW_NODELAY))
        set_nodelay(fd, false);
    options->forced_nodelay = false;
    if (options->keep_idle != 0)
        end_keepalive(fd, options, -1);
}

/* Where the usual value of an option of keepalive is; NULL for any other option. */
static const _Atomic int *usual_of(int level, int name)
{
    for (size_t i = 0; i < KEEPALIVE_ROWS; i++) {
        const struct row *row = &rows[keepalive_rows[i]];

        if (row->level == level && row->name == name)
            return &usual[i];
    }
    return NULL;
}

bool sockopts_hides(const struct sockopts *options, int level, int name)
{
    if (level == rows[ROW_NODELAY].level && name == rows[ROW_NODELAY].name)
        return options->forced_nodelay && !given(options, ROW_NODELAY);
    return options->keep_idle != 0 && usual_of(level, name);
}

void sockopts_seen(const struct sockopts *options, int level, int name, void *value,
                   socklen_t len)
{
    const _Atomic int *keepalive = usual_of(level, name);
    int shown = 0;

    if (!sockopts_hides(options, level, name))
        return;
    if (keepalive)
        shown = atomic_load_explicit(keepalive, memory_order_relaxed);
    memcpy(value, &shown, len < sizeof(shown) ? len : sizeof(shown));
}

static bool lingers(const struct sockopts *options)
{
    struct linger linger;

    if (!given(options, ROW_LINGER))
        return false;
    memcpy(&linger, options->value[ROW_LINGER], sizeof(linger));
    return linger.l_onoff != 0 && linger.l_linger != 0;
}

bool sockopts_linger_off(int fd)
{
    static const struct linger off;

    return raw_syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &off, sizeof(off)) == 0;
}

bool sockopts_stop_lingering(int fd, struct sockopts *options)
{
    /* The kernel keeps the time of an option that is switched off (sk_setsockopt() of Linux).
     */
    static const struct linger no_time = {1, 0};

    if (!lingers(options))
        return true;
    if (raw_syscall(SYS_setsockopt, fd, SOL_SOCKET, SO_LINGER, &no_time, sizeof(no_time)) !=
            0 ||
        !sockopts_linger_off(fd))
        return false;
    options->given &= (uint16_t) ~(1u << ROW_LINGER);
    return true;
}

bool sockopts_give(int fd, const struct sockopts *options)
{
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        const struct row *row = &rows[i];

        if (given(options, i) && raw_syscall(SYS_setsockopt, fd, row->level, row->name,
                                             options->value[i], row->size) != 0)
            return false;
    }
    return true;
}

bool sockopts_can_be_cleared(const struct sockopts *options)
{
    if (options->bound)
        return false;
    if (options->given == 0)
        return true;
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (given(options, i) && !rows[i].zero)
            return false;
    }
    return true;
}

bool sockopts_clear(int fd, const struct sockopts *options)
{
    static const uint8_t zeros[OPTION_VALUE_MAX];

    if (options->given == 0)
        return true;
    for (int i = 0; i < OPTIONS_COUNT; i++) {
        if (given(options, i) && raw_syscall(SYS_setsockopt, fd, rows[i].level, rows[i].name,
                                             zeros, rows[i].size) != 0)
            return false;
    }
    return true;
}

void sockopts_push(int fd, const struct sockopts *options)
{
    if (has_nodelay(options))
        return;
    set_nodelay(fd, true);
    set_nodelay(fd, false);
}
