/*
 * What the program does to its fds: begin and end, duplicates, options, flags.
 */
#include "hooks/track.h"

#include "hooks/wake.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "conn/epoll_reg.h"
#include "pool/connect_time.h"
#include "pool/discard.h"
#include "pool/family.h"
#include "pool/full.h"
#include "base/owner.h"
#include "conn/sockid.h"
#include "pool/swap.h"
#include "pool/due.h"
#include "base/rawsys.h"
#include "base/usermem.h"
#include "conn/ring.h"
#include "conn/waiter.h"
#include "pool/spare.h"
#include "conn/shadow.h"
#include "stats/log.h"
#include "stats/mode.h"

/* Only TCP: the kernel counts its bytes, which verifies that no byte was missed. */
static bool could_be_pooled(int domain, int type, int protocol)
{
    if ((type & ~(SOCK_NONBLOCK | SOCK_CLOEXEC)) != SOCK_STREAM)
        return false;
    return (domain == AF_INET || domain == AF_INET6) &&
           (protocol == 0 || protocol == IPPROTO_TCP);
}

/* Since track_new_fd() another thread has put WORD into the map, for the socket that was at the
 * fd before. */
static COLD void end_former(uint32_t word)
{
    struct conn *conn = conn_of_word(word);

    if (conn && !(word & (FDMAP_CLOSING | FDMAP_SHADOW)))
        discard_open(conn, REASON_OTHER_SOCKET);
}

/* CONN is new at FD; see concurrency.md, 1. */
COLD static void put_over_former(int fd, const struct conn *conn)
{
    uint32_t word;

    track_new_fd(fd);
    word = fdmap_exchange(fd, conn_id(conn));
    if (word != FDMAP_NONE)
        end_former(word);
}

ALWAYS_INLINE void put_in_map(int fd, const struct conn *conn)
{
    if (__builtin_expect(!fdmap_replace(fd, FDMAP_NONE, conn_id(conn)), 0))
        put_over_former(fd, conn);
}

INLINED int track_spare(int domain, int type, int protocol)
{
    struct conn *conn;
    int fd;

    if (!could_be_pooled(domain, type, protocol) || !owner_is_this_process())
        return -1;
    if (mode_is_off() && !wake()) {
        due_when_off();
        return -1;
    }
    conn = spare_reuse(domain, type, &fd);
    if (!conn)
        return -1;
    put_in_map(fd, conn);
    if (fdtable_is_near(fd))
        track_came_near(fd);
    return fd;
}

/* The kernel or a filter refuses SO_COOKIE, so no socket of the process is pooled. CONN is
 * tracked all the same: that it is refused is counted, where others see it. */
COLD static void refuse_all(struct conn *conn)
{
    static atomic_bool told;

    conn_refuse(conn, REASON_NO_PROOF);
    if (!atomic_exchange(&told, true))
        log_line(LOG_WARNING, "nothing is pooled: %s (%s)", reason_name(REASON_NO_PROOF),
                 reason_text(REASON_NO_PROOF));
}

void track_socket(int fd, int domain, int type, int protocol, uint32_t forks, uint32_t orphans)
{
    struct conn *conn;

    track_lowest_fd(fd);
    if (fd >= FDMAP_SIZE || !could_be_pooled(domain, type, protocol) ||
        !owner_is_this_process() || (mode_is_off() && !wake()))
        return;
    conn = conn_new(fd, domain);
    if (!conn)
        return;
    conn->fork_epoch = forks;
    conn->orphan_epoch = orphans;
    conn->cred_epoch = atomic_load(&cred_epoch);
    conn_set_flags(conn, O_RDWR | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0),
                   type & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
    if (!sockid_cookie(fd, &conn->cookie))
        refuse_all(conn);
    put_in_map(fd, conn);
}

void track_epoll(int fd)
{
    track_lowest_fd(fd);
    if (fd < FDMAP_SIZE && owner_is_this_process())
        epoll_reg_set_made(fd);
}

/* Forgets FD. Only the thread that empties the word ends what the word names (concurrency.md,
 * 1). STALE: FD was closed unseen. Returns what track_forget() does. */
static bool forget(int fd, bool stale)
{
    uint32_t word = fdmap_get(fd);
    struct conn *conn = conn_of_word(word);
    bool ours;

    if (word == FDMAP_QUEUE)
        return family_yield(fd);
    if (word == FDMAP_NONE || word & FDMAP_CLOSING)
        return false;
    if (stale)
        waiter_closed_unseen(fd);
    ours = conn ? word & FDMAP_SHADOW && !sockid_is_elsewhere(conn, fd) : word == FDMAP_COPY;
    if (!fdmap_replace(fd, word, FDMAP_NONE))
        return false;
    if (word & FDMAP_RING)
        ring_closed(word);
    else if (word & FDMAP_EPOLL)
        epoll_reg_set_gone(fd, word, stale);
    else if (conn && word & FDMAP_SHADOW)
        discard_lose_shadow(conn, fd);
    else if (conn)
        discard_open(conn, stale ? REASON_OTHER_SOCKET : REASON_CLOSED_IN_BULK);
    return ours;
}

void track_new_fd_slow(int fd)
{
    if (owner_is_this_process())
        forget(fd, true);
}

void track_came_near(int fd)
{
    if (!owner_is_this_process())
        return;
    fdtable_move_on(fd);
    discard_idle(REASON_FD_PRESSURE);
    family_move_queues();
}

bool track_forget(int fd)
{
    return owner_is_this_process() && forget(fd, false);
}

static void refuse_bulk_closed(struct conn *conn, int unused)
{
    (void)unused;
    conn_refuse(conn, REASON_CLOSED_IN_BULK);
    shadow_drop(conn);
}

void track_still_open(int fd, bool is_shadow)
{
    if (is_shadow)
        raw_close(fd);
    else
        conn_for_each_open(refuse_bulk_closed, 0);
}

bool track_is_hidden(int fd, uint32_t word)
{
    const struct conn *conn = conn_of_word(word);

    if (!(word & FDMAP_SHADOW) || word & FDMAP_EPOLL || !owner_is_this_process())
        return false;
    if (word == FDMAP_QUEUE)
        return family_has_fd(fd);
    return conn ? !sockid_is_elsewhere(conn, fd) : word == FDMAP_COPY;
}

bool track_close_shadow(int fd)
{
    bool ours;

    if (fdmap_get(fd) == FDMAP_QUEUE && family_has_fd(fd))
        return true;
    ours = track_forget(fd);

    if (ours)
        raw_close(fd);
    return ours;
}

bool track_forget_range(unsigned int first, unsigned int last)
{
    unsigned int end;

    if (!owner_is_this_process())
        return false;
    family_leave_range(first, last);
    end = (unsigned int)fdmap_end();
    for (unsigned int fd = first; fd < end && fd <= last; fd++)
        waiter_closing((int)fd, fdmap_word((int)fd));
    bulk_close_begins();
    end = (unsigned int)fdmap_end();
    for (unsigned int fd = first; fd < end && fd <= last; fd++) {
        if (forget((int)fd, false))
            raw_close((int)fd);
    }
    return true;
}

void track_bulk_closed(bool closed)
{
    bulk_close_ends();
    if (!closed)
        conn_for_each_open(refuse_bulk_closed, 0);
}

/* Whether bind() to ADDR leaves both address and port to the kernel. */
static bool is_wildcard(const struct sockaddr *addr, socklen_t len)
{
    const struct sockaddr_in *in = (const void *)addr;
    const struct sockaddr_in6 *in6 = (const void *)addr;

    if (len < sizeof(*in) || !usermem_readable(addr, len))
        return false;
    if (addr->sa_family == AF_INET)
        return in->sin_port == 0 && in->sin_addr.s_addr == htonl(INADDR_ANY);
    return addr->sa_family == AF_INET6 && len >= sizeof(*in6) && in6->sin6_port == 0 &&
           IN6_IS_ADDR_UNSPECIFIED(&in6->sin6_addr);
}

void track_bound(int fd, const struct sockaddr *addr, socklen_t len)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);
    bool may_pool = false;

    if (!conn)
        return;
    if (owner_is_this_process() && conn_state(conn) == CONN_FRESH && is_wildcard(addr, len) &&
        conn_trylock(conn)) {
        conn->options.bound = may_pool = true;
        shadow_drop(conn);
        conn_unlock(conn);
    }
    conn_put(conn, CONN_CALL_OTHER);
    if (!may_pool)
        track_refuse(fd, REASON_BOUND);
}

void track_name_asked(int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (owner_is_this_process() && conn_state(conn) == CONN_FRESH && conn->options.bound)
        conn_refuse(conn, REASON_BOUND);
    conn_put(conn, CONN_CALL_OTHER);
}

struct conn *track_change_begins(int fd)
{
    swap_for_new_if_possible(fd);
    return conn_get(fd, CONN_CALL_OTHER);
}

void track_change_ends(int fd, struct conn *conn, bool done)
{
    if (done)
        track_refuse(fd, REASON_ODD_FLAGS);
    if (conn)
        conn_put(conn, CONN_CALL_OTHER);
}

/* For the kernel shutdown() ends connecting (inet_shutdown() of Linux), so it does for a reused
 * connection that the program takes for one that is still connecting. */
void track_shut_down(int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    conn_finish_connecting(conn);
    conn_put(conn, CONN_CALL_OTHER);
    track_refuse(fd, REASON_SHUT_DOWN);
}

bool track_unseen(int fd, enum reason reason)
{
    bool good = swap_for_new(fd);

    track_refuse(fd, reason);
    return good;
}

void track_unseen_everywhere(enum reason reason)
{
    if (!owner_is_this_process())
        return;
    swap_all_for_new();
    owner_refuse(reason);
    discard_idle(reason);
    family_leave(SHARE_UNPOOLED);
}

bool track_give_up_shadow(int fd, uint32_t word, enum reason reason)
{
    if (!owner_is_this_process() || word == FDMAP_QUEUE)
        return false;
    if (word != FDMAP_COPY)
        conn_refuse(conn_of_word(word), reason);
    return forget(fd, false);
}

void track_shared(int fd, enum reason reason)
{
    uint32_t word = fdmap_get(fd);

    if (word & FDMAP_EPOLL) {
        if (owner_is_this_process() && !(word & FDMAP_RING))
            fdmap_replace(fd, word, EPOLL_REG_SHARED);
        return;
    }
    if (word == FDMAP_QUEUE) {
        if (track_is_hidden(fd, word))
            family_leave(SHARE_CLOSED);
        return;
    }
    if (!(word & FDMAP_SHADOW))
        track_refuse(fd, reason);
    else if (track_give_up_shadow(fd, word, reason))
        raw_close(fd);
}

void track_flags_range(unsigned int first, unsigned int last)
{
    unsigned int end = (unsigned int)fdmap_end();

    for (unsigned int fd = first; fd < end && fd <= last; fd++) {
        struct conn *conn = conn_get((int)fd, CONN_CALL_OTHER);

        if (!conn)
            continue;
        conn_set_flags(conn, CONN_UNKNOWN, CONN_UNKNOWN);
        conn_put(conn, CONN_CALL_OTHER);
    }
}

static bool has_epoll_regs(struct conn *conn)
{
    bool registered = true;

    if (conn_trylock(conn)) {
        registered = conn->epoll_regs.count > 0;
        conn_unlock(conn);
    }
    return registered;
}

/* Counts the fd, then looks at the registrations. epoll_reg_note() notes a registration, then
 * looks at the count. See concurrency.md, 4. */
struct conn *track_share(int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return NULL;
    if (owner_is_this_process() && conn_state(conn) == CONN_IN_USE &&
        conn_refusal(conn) == REASON_NONE && conn_share(conn)) {
        /* The connect time is measured at the first fd only. A shadow fd is of no use: check-in
         * verifies the connection at the last fd. */
        conn->rtt_pending = false;
        shadow_drop(conn);
        if (has_epoll_regs(conn))
            conn_refuse(conn, REASON_DUPLICATED);
        return conn;
    }
    conn_put(conn, CONN_CALL_OTHER);
    return NULL;
}

static void end_sharing(struct conn *conn, int copy)
{
    if (copy >= 0 && copy < FDMAP_SIZE) {
        fdmap_exchange(copy, conn_id(conn));
    } else {
        if (copy >= 0)
            conn_refuse(conn, REASON_DUPLICATED);
        if (conn_unshare(conn)) {
            discard_note_refused(conn, REASON_DUPLICATED);
            conn_move(conn, CONN_CLOSED);
        }
    }
    conn_put(conn, CONN_CALL_OTHER);
}

void track_duplicated(int fd, struct conn *conn, int copy)
{
    if (conn) {
        end_sharing(conn, copy);
        return;
    }
    if (copy < 0 || fdmap_is_plain(fd))
        return;
    track_shared(fd, REASON_DUPLICATED);
    if ((fdmap_get(fd) & (FDMAP_EPOLL | FDMAP_RING)) == FDMAP_EPOLL && copy < FDMAP_SIZE &&
        owner_is_this_process())
        fdmap_exchange(copy, EPOLL_REG_SHARED);
}

/* Whether FD names something else than CONN. Before connect() the kernel is not asked:
 * connect() does not ask either. */
static bool is_elsewhere(struct conn *conn, int fd)
{
    return conn_state(conn) == CONN_IN_USE && discard_if_elsewhere(conn, fd);
}

/* Whether it does harm to note an option for a connection although it was set on something
 * else. TCP_NODELAY, which many programs set after connect(), does none: it changes only how
 * fast a connection is. So it costs no system call of is_elsewhere(). */
static bool matters_elsewhere(int level, int name)
{
    return level != IPPROTO_TCP || name != TCP_NODELAY;
}

/* Tries to swap what is at FD for a new connection; whether it did. */
static bool swapped_for_new(int fd)
{
    uint32_t word = fdmap_get(fd);
    uint32_t now;

    swap_for_new_if_possible(fd);
    now = fdmap_get(fd);
    return now != word && now != FDMAP_NONE;
}

bool track_setsockopt(int fd, struct conn *conn, bool done, int level, int name,
                      const void *value, socklen_t len)
{
    int saved = errno;
    bool ended = false, again;

    if (done && owner_is_this_process() &&
        !(matters_elsewhere(level, name) && is_elsewhere(conn, fd)) && conn_trylock(conn)) {
        if (!sockopts_yield(fd, &conn->options, level, name))
            conn_refuse(conn, REASON_OPTION_FAILED);
        ended = !sockopts_note(&conn->options, conn_state(conn) != CONN_FRESH, level, name,
                               value, len);
        if (ended) {
            conn_refuse(conn, REASON_OPTION);
            shadow_drop(conn);
        }
        conn_unlock(conn);
    }
    conn_put(conn, CONN_CALL_OTHER);
    again = ended && swapped_for_new(fd);
    errno = saved;
    return again;
}

/* Whether getsockopt() has told the program of an error. */
static bool tells_error(int level, int name, const void *value, socklen_t len)
{
    int error = 0;

    if (level != SOL_SOCKET || name != SO_ERROR || len != sizeof(error))
        return false;
    memcpy(&error, value, sizeof(error));
    return error != 0;
}

void track_getsockopt(int fd, int level, int name, void *value, socklen_t len)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);
    int error;

    if (!conn)
        return;
    if (tells_error(level, name, value, len))
        connect_time_failed(conn);
    if (!sockopts_hides(&conn->options, level, name) || !is_elsewhere(conn, fd))
        sockopts_seen(&conn->options, level, name, value, len);
    if (level == SOL_SOCKET && name == SO_ERROR && len == sizeof(error)) {
        memcpy(&error, value, sizeof(error));
        full_note_connect(conn, error);
    }
    conn_put(conn, CONN_CALL_OTHER);
}

void track_namespace_lost(void)
{
    owner_refuse(REASON_NAMESPACE);
    discard_idle(REASON_NAMESPACE);
    family_leave(SHARE_IDENTITY);
}
