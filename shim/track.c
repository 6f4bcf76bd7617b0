/*
 * The lives of numbers.
 */
#include "track.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>

#include "disguise.h"
#include "libc.h"
#include "lending.h"
#include "process.h"
#include "proof.h"
#include "spare.h"
#include "twin.h"

/* The age of an epoll set that others may have as well. */
#define EPOLL_SHARED FDMAP_INDEX

static bool could_be_pooled(int domain, int type, int protocol)
{
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        return false;
    if (domain == AF_UNIX)
        return protocol == 0;
    return (domain == AF_INET || domain == AF_INET6) &&
           (protocol == 0 || protocol == IPPROTO_TCP);
}

int track_spare(int domain, int type, int protocol)
{
    struct conn *conn;
    int fd;

    if (!could_be_pooled(domain, type, protocol) || !process_is_owner())
        return -1;
    conn = spare_lend(domain, type);
    if (!conn)
        return -1;
    fd = conn->fd;
    track_new_number(fd);
    fdmap_exchange(fd, conn_slot(conn));
    if (fdtable_is_near(fd))
        track_came_near(fd);
    return fd;
}

void track_opened(int fd, int domain, int type, int protocol)
{
    struct conn *conn;

    track_lowest_number(fd);
    if (fd >= FDMAP_SIZE || !could_be_pooled(domain, type, protocol) || !process_is_owner())
        return;
    conn = conn_new(fd, domain);
    if (!conn)
        return;
    conn->children = atomic_load(&process_children);
    conn->identities = atomic_load(&process_identities);
    conn_set_flags(conn, O_RDWR | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0),
                   type & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
    if (proof_cookie(fd, &conn->cookie))
        fdmap_exchange(fd, conn_slot(conn));
    else
        conn_move(conn, CONN_CLOSED);
}

/* An epoll set is shared with every child made while it lives. */
static uint32_t epoll_slot(void)
{
    return FDMAP_EPOLL | (atomic_load(&process_children) & FDMAP_INDEX);
}

void track_epoll(int fd)
{
    track_lowest_number(fd);
    if (fd < FDMAP_SIZE && process_is_owner())
        fdmap_exchange(fd, epoll_slot());
}

static void lose_epoll(struct conn *conn, int epfd)
{
    disguise_lose_watch(conn, epfd, false);
}

static void lose_shared_epoll(struct conn *conn, int epfd)
{
    disguise_lose_watch(conn, epfd, true);
}

/* Whoever empties the slot has what it named to himself. STALE: it ended behind our back,
 * nobody knows how. Whether the fd is a private one, which is the caller's to close. */
static bool forget(int fd, bool stale)
{
    uint32_t slot = fdmap_get(fd);
    struct conn *conn = conn_of_slot(slot);

    if (slot == FDMAP_NONE || slot & FDMAP_CLOSING || !fdmap_replace(fd, slot, FDMAP_NONE))
        return false;
    if (slot & FDMAP_EPOLL)
        conn_for_each_in_use(slot == epoll_slot() && !stale ? lose_epoll : lose_shared_epoll,
                             fd);
    else if (slot & FDMAP_PRIVATE)
        lending_lose_private(conn, fd);
    else
        lending_drop(conn, stale ? REASON_OTHER_SOCKET : REASON_SWEPT);
    return slot & FDMAP_PRIVATE && !(slot & FDMAP_EPOLL);
}

void track_new_number_slow(int fd)
{
    if (process_is_owner())
        forget(fd, true);
}

void track_came_near(int fd)
{
    if (!process_is_owner())
        return;
    fdtable_move_on(fd);
    lending_flush(REASON_FD_PRESSURE);
}

bool track_forget(int fd)
{
    return process_is_owner() && forget(fd, false);
}

static void refuse_swept(struct conn *conn, int unused)
{
    (void)unused;
    conn_refuse(conn, REASON_SWEPT);
    twin_drop(conn);
}

void track_still_open(int fd, bool is_private)
{
    if (is_private)
        libc_close_quietly(fd);
    else
        conn_for_each_in_use(refuse_swept, 0);
}

bool track_forget_range(unsigned int first, unsigned int last)
{
    unsigned int end;

    if (!process_is_owner())
        return false;
    twin_sweep_begins();
    end = (unsigned int)fdmap_end();
    for (unsigned int fd = first; fd < end && fd <= last; fd++) {
        if (forget((int)fd, false))
            libc_close_quietly((int)fd);
    }
    return true;
}

void track_swept(bool closed)
{
    twin_sweep_ends();
    if (!closed)
        conn_for_each_in_use(refuse_swept, 0);
}

void track_refuse(int fd, enum reason reason)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (process_is_owner()) {
        conn_refuse(conn, reason);
        twin_drop(conn);
    }
    conn_leave(conn, CONN_CALL_OTHER);
}

void track_shared(int fd, enum reason reason)
{
    uint32_t slot = fdmap_get(fd);

    if (slot & FDMAP_EPOLL) {
        if (process_is_owner())
            fdmap_replace(fd, slot, FDMAP_EPOLL | EPOLL_SHARED);
        return;
    }
    track_refuse(fd, reason);
}

struct conn *track_set_flags(int fd)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return NULL;
    conn_set_flags(conn, CONN_UNKNOWN, CONN_UNKNOWN);
    return conn;
}

void track_set_flags_range(unsigned int first, unsigned int last)
{
    unsigned int end = (unsigned int)fdmap_end();

    for (unsigned int fd = first; fd < end && fd <= last; fd++) {
        struct conn *conn = track_set_flags((int)fd);

        if (conn)
            conn_leave(conn, CONN_CALL_OTHER);
    }
}

void track_duplicated(int fd, int twin)
{
    track_shared(fd, REASON_DUPLICATED);
    if (fdmap_get(fd) & FDMAP_EPOLL && twin < FDMAP_SIZE && process_is_owner())
        fdmap_exchange(twin, FDMAP_EPOLL | EPOLL_SHARED);
}

void track_option(int fd, int level, int name, const void *value, socklen_t len)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (process_is_owner() && conn_hold(conn)) {
        if (!options_note(&conn->options, conn_state(conn) != CONN_FRESH, level, name, value,
                          len)) {
            conn_refuse(conn, REASON_OPTION);
            twin_drop(conn);
        }
        conn_let_go(conn);
    }
    conn_leave(conn, CONN_CALL_OTHER);
}

void track_option_seen(int fd, int level, int name, void *value, socklen_t len)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    options_seen(&conn->options, level, name, value, len);
    conn_leave(conn, CONN_CALL_OTHER);
}

/* A set whose beginning was not seen may be known to others. */
void track_watch(int epfd, int op, int fd, const struct epoll_event *event)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (process_is_owner()) {
        if ((unsigned int)epfd < FDMAP_SIZE)
            fdmap_replace(epfd, FDMAP_NONE, FDMAP_EPOLL | EPOLL_SHARED);
        disguise_note_watch(conn, epfd, op, event);
        twin_drop(conn);
    }
    conn_leave(conn, CONN_CALL_OTHER);
}

void track_namespace_lost(void)
{
    process_refuse(REASON_NAMESPACE);
    lending_flush(REASON_NAMESPACE);
}

void track_passed(const struct msghdr *msg)
{
    struct cmsghdr *control;

    for (control = CMSG_FIRSTHDR(msg); control;
         control = CMSG_NXTHDR((struct msghdr *)msg, control)) {
        size_t n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
            if (!fdmap_is_plain(fd))
                track_shared(fd, REASON_PASSED);
        }
    }
}
