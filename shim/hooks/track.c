/*
 * The lives of numbers.
 */
#include "hooks/track.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>

#include "conn/epoll_reg.h"
#include "pool/discard.h"
#include "base/owner.h"
#include "conn/sockid.h"
#include "pool/swap.h"
#include "base/rawsys.h"
#include "base/usermem.h"
#include "conn/ring.h"
#include "pool/spare.h"
#include "conn/shadow.h"

/* TCP, whose bytes the kernel counts. Of the bytes on other sockets there is no proof. */
static bool could_be_pooled(int domain, int type, int protocol)
{
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        return false;
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

void track_opened(int fd, int domain, int type, int protocol, uint32_t children,
                  uint32_t orphans)
{
    struct conn *conn;

    track_lowest_number(fd);
    if (fd >= FDMAP_SIZE || !could_be_pooled(domain, type, protocol) || !process_is_owner())
        return;
    conn = conn_new(fd, domain);
    if (!conn)
        return;
    conn->children = children;
    conn->orphans = orphans;
    conn->identities = atomic_load(&process_identities);
    conn_set_flags(conn, O_RDWR | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0),
                   type & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
    if (sockid_cookie(fd, &conn->cookie))
        fdmap_exchange(fd, conn_slot(conn));
    else
        conn_move(conn, CONN_CLOSED);
}

void track_epoll(int fd)
{
    track_lowest_number(fd);
    if (fd < FDMAP_SIZE && process_is_owner())
        epoll_reg_set_made(fd);
}

/* Only the thread that empties the slot may go on with what was there. STALE: it was closed
 * unseen. Whether the fd is a private one, which is the caller's to close: not if it was closed
 * unseen before, and something of the program's is there. */
static bool forget(int fd, bool stale)
{
    uint32_t slot = fdmap_get(fd);
    struct conn *conn = conn_of_slot(slot);
    bool ours;

    if (slot == FDMAP_NONE || slot & FDMAP_CLOSING)
        return false;
    ours = conn && slot & FDMAP_PRIVATE && !sockid_is_elsewhere(conn, fd);
    if (!fdmap_replace(fd, slot, FDMAP_NONE))
        return false;
    if (slot & FDMAP_RING)
        ring_closed(slot);
    else if (slot & FDMAP_EPOLL)
        epoll_reg_set_gone(fd, slot, stale);
    else if (slot & FDMAP_PRIVATE)
        lending_lose_private(conn, fd);
    else
        lending_drop(conn, stale ? REASON_OTHER_SOCKET : REASON_SWEPT);
    return ours;
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
        raw_close(fd);
    else
        conn_for_each_in_use(refuse_swept, 0);
}

bool track_close_private(int fd)
{
    bool ours = track_forget(fd);

    if (ours)
        raw_close(fd);
    return ours;
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
            raw_close((int)fd);
    }
    return true;
}

void track_swept(bool closed)
{
    twin_sweep_ends();
    if (!closed)
        conn_for_each_in_use(refuse_swept, 0);
}

/* Whether bind() to ADDR leaves both address and port to the kernel. */
static bool is_wildcard(const struct sockaddr *addr, socklen_t len)
{
    const struct sockaddr_in *in = (const void *)addr;
    const struct sockaddr_in6 *in6 = (const void *)addr;

    if (len < sizeof(*in) || !is_readable(addr, len))
        return false;
    if (addr->sa_family == AF_INET)
        return in->sin_port == 0 && in->sin_addr.s_addr == htonl(INADDR_ANY);
    return addr->sa_family == AF_INET6 && len >= sizeof(*in6) && in6->sin6_port == 0 &&
           IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
}

void track_bound(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);
    bool may_pool = false;

    if (!conn)
        return;
    if (process_is_owner() && conn_state(conn) == CONN_FRESH && is_wildcard(addr, len) &&
        conn_hold(conn)) {
        conn->options.bound = may_pool = true;
        twin_drop(conn);
        conn_let_go(conn);
    }
    conn_leave(conn, CONN_CALL_OTHER);
    if (!may_pool)
        track_refuse(fd, REASON_BOUND);
}

void track_name_asked(int fd)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (process_is_owner() && conn_state(conn) == CONN_FRESH && conn->options.bound)
        conn_refuse(conn, REASON_BOUND);
    conn_leave(conn, CONN_CALL_OTHER);
}

/* The kernel takes it for the end of connecting (inet_shutdown() of Linux). */
void track_shut_down(int fd)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    conn_is_connected(conn);
    conn_leave(conn, CONN_CALL_OTHER);
    track_refuse(fd, REASON_SHUT_DOWN);
}

bool track_unseen(int fd, enum reason reason)
{
    bool good = protocol_renew(fd);

    track_refuse(fd, reason);
    return good;
}

void track_unseen_everywhere(enum reason reason)
{
    if (!process_is_owner())
        return;
    protocol_renew_all();
    process_refuse(reason);
    lending_flush(reason);
}

bool track_give_up_private(int fd, uint32_t slot, enum reason reason)
{
    if (!process_is_owner())
        return false;
    conn_refuse(conn_of_slot(slot), reason);
    return forget(fd, false);
}

void track_shared(int fd, enum reason reason)
{
    uint32_t slot = fdmap_get(fd);

    if (slot & FDMAP_EPOLL) {
        if (process_is_owner() && !(slot & FDMAP_RING))
            fdmap_replace(fd, slot, EPOLL_REG_SHARED);
        return;
    }
    if (!(slot & FDMAP_PRIVATE))
        track_refuse(fd, reason);
    else if (track_give_up_private(fd, slot, reason))
        raw_close(fd);
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

static bool is_watched(struct conn *conn)
{
    bool watched = true;

    if (conn_hold(conn)) {
        watched = conn->watches.count > 0;
        conn_let_go(conn);
    }
    return watched;
}

/* One more fd is counted before the look at the registrations, as epoll_reg_note() looks at the
 * count after it has noted one. */
struct conn *track_share(int fd)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return NULL;
    if (process_is_owner() && conn_state(conn) == CONN_IN_USE &&
        conn_refusal(conn) == REASON_NONE && conn_share(conn)) {
        /* The time to connect is noted for the first fd alone. A private fd is of no use: the
         * proof has to be asked of the last fd. */
        conn->untimed = false;
        twin_drop(conn);
        if (is_watched(conn))
            conn_refuse(conn, REASON_DUPLICATED);
        return conn;
    }
    conn_leave(conn, CONN_CALL_OTHER);
    return NULL;
}

static void end_sharing(struct conn *conn, int twin)
{
    if (twin >= 0 && twin < FDMAP_SIZE) {
        fdmap_exchange(twin, conn_slot(conn));
    } else {
        if (twin >= 0)
            conn_refuse(conn, REASON_DUPLICATED);
        if (conn_unshare(conn)) {
            lending_note_refused(conn, REASON_DUPLICATED);
            conn_move(conn, CONN_CLOSED);
        }
    }
    conn_leave(conn, CONN_CALL_OTHER);
}

void track_duplicated(int fd, struct conn *conn, int twin)
{
    if (conn) {
        end_sharing(conn, twin);
        return;
    }
    if (twin < 0 || fdmap_is_plain(fd))
        return;
    track_shared(fd, REASON_DUPLICATED);
    if ((fdmap_get(fd) & (FDMAP_EPOLL | FDMAP_RING)) == FDMAP_EPOLL && twin < FDMAP_SIZE &&
        process_is_owner())
        fdmap_exchange(twin, EPOLL_REG_SHARED);
}

/* Whether something else is at FD. Before connect() nothing is asked, as in connect() itself.
 */
static bool is_strange(struct conn *conn, int fd)
{
    return conn_state(conn) == CONN_IN_USE && lending_is_elsewhere(conn, fd);
}

/* Whether an option that was set on something else would do harm, taken for one that a
 * connection has when it is lent again. TCP_NODELAY, which many programs set after connect(),
 * is set on what is lent, and only makes it slower or faster. */
static bool does_harm_elsewhere(int level, int name)
{
    return level != IPPROTO_TCP || name != TCP_NODELAY;
}

/* Whether a new connection took the place of what was at FD. */
static bool was_renewed(int fd)
{
    uint32_t slot = fdmap_get(fd);
    uint32_t now;

    protocol_renew_if_possible(fd);
    now = fdmap_get(fd);
    return now != slot && now != FDMAP_NONE;
}

bool track_option(int fd, int level, int name, const void *value, socklen_t len)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);
    int saved = errno;
    bool ended = false, again;

    if (!conn)
        return false;
    if (process_is_owner() && !(does_harm_elsewhere(level, name) && is_strange(conn, fd)) &&
        conn_hold(conn)) {
        ended = !options_note(&conn->options, conn_state(conn) != CONN_FRESH, level, name,
                              value, len);
        if (ended) {
            conn_refuse(conn, REASON_OPTION);
            twin_drop(conn);
        }
        conn_let_go(conn);
    }
    conn_leave(conn, CONN_CALL_OTHER);
    again = ended && was_renewed(fd);
    errno = saved;
    return again;
}

void track_option_seen(int fd, int level, int name, void *value, socklen_t len)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (!options_hides(&conn->options, level, name) || !is_strange(conn, fd))
        options_seen(&conn->options, level, name, value, len);
    conn_leave(conn, CONN_CALL_OTHER);
}

void track_namespace_lost(void)
{
    process_refuse(REASON_NAMESPACE);
    lending_flush(REASON_NAMESPACE);
}
