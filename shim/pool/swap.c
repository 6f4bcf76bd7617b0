/*
 * Swapping the connection at an fd and at its duplicates. First the other connection is found:
 * in the pool, or by a connect() of our own. Then its socket is put over the program's fds,
 * then its record into the map.
 */
#include "pool/swap.h"

#include <errno.h>
#include <fcntl.h>

#include "pool/checkin.h"
#include "pool/install.h"
#include "conn/endpoint.h"
#include "conn/fdmap.h"
#include "pool/checkout.h"
#include "pool/discard.h"
#include "stats/log.h"
#include "base/owner.h"
#include "conn/sockid.h"
#include "base/rawsys.h"

/* What takes the place of a connection. */
struct substitute {
    int fd; /* our fd for it, closed in the end; -1: there is no substitute */
    struct conn *record;
    bool pooled;         /* FD is a shadow fd of the pool */
    uint32_t fork_epoch; /* from before there was an fd that a child can have inherited */
};

/* A new socket with the options of CONN, which connects to the peer of FD without blocking; -1
 * if there is none, or the server refuses at once. With AT_ONCE it is connected already. */
static int reconnect(int fd, const struct conn *conn, int flags, bool at_once)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    long new_fd, result = -EINVAL;

    if (raw_syscall(SYS_getpeername, fd, &peer, &len) != 0)
        return -1;
    new_fd =
        raw_syscall(SYS_socket, conn->domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (new_fd < 0)
        return -1;
    if (sockopts_give((int)new_fd, &conn->options))
        result = raw_syscall(SYS_connect, new_fd, &peer, len);
    /* The second call says whether the server has refused, and ends connecting (connect(2)). */
    if (result == -EINPROGRESS)
        result = raw_syscall(SYS_connect, new_fd, &peer, len);
    if ((result == 0 || (result == -EALREADY && !at_once)) &&
        raw_syscall(SYS_fcntl, new_fd, F_SETFL, flags) == 0)
        return (int)new_fd;
    raw_close((int)new_fd);
    return -1;
}

/* A record for the new socket at SOCKET_FD, which is to replace CONN at FD; NULL if there is
 * none. ORPHANS is the orphan_epoch from before the socket was made. */
static struct conn *new_record(int socket_fd, int fd, const struct conn *conn, msec_t now,
                               uint32_t orphans)
{
    struct conn *record = conn_new(fd, conn->domain);

    if (!record)
        return NULL;
    record->orphan_epoch = orphans;
    record->cred_epoch = atomic_load(&cred_epoch);
    record->options = conn->options;
    record->options.forced_nodelay = false;
    record->options.bound = false;
    record->options.keep_idle = 0;
    record->idle_since = 0;
    if (sockid_cookie(socket_fd, &record->cookie) &&
        check_out_bind(record, &conn->endpoint->address, now))
        return record;
    conn_move(record, CONN_CLOSED);
    return NULL;
}

/* In another network namespace the address may lead to another server. And epoll registrations
 * that we do not know cannot be made for the new socket. */
static bool may_reconnect(const struct conn *conn)
{
    enum reason reason = conn_refusal(conn);

    return owner_refusal() != REASON_NAMESPACE && reason != REASON_EPOLL_SETS &&
           reason != REASON_EPOLL_UNKNOWN;
}

/* A pooled connection that speaks WANTED, or a new one. Nothing here blocks. Without AT_ONCE
 * the new one may still be connecting: the program's send then waits for it, or reports that it
 * must be waited for. */
static struct substitute find_substitute(int fd, struct conn *conn, enum wire_protocol wanted,
                                         bool at_once)
{
    msec_t now = clock_now();
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFL);
    struct conn *pooled =
        flags < 0 || wanted == WIRE_UNDECIDED ? NULL : check_out_find(conn, wanted, now);
    struct substitute substitute = {.fd = -1, .fork_epoch = atomic_load(&fork_epoch)};

    if (pooled) {
        enum reason reason = install_options(pooled, fd, conn, (int)flags);

        if (reason == REASON_NONE) {
            substitute.fd = pooled->fd;
            substitute.record = pooled;
            substitute.pooled = true;
            sockopts_equalize(&pooled->options, &conn->options);
        } else {
            discard(pooled, reason);
        }
    }
    if (!substitute.record && flags >= 0 && may_reconnect(conn)) {
        uint32_t orphans = atomic_load(&orphan_epoch);

        substitute.fd = reconnect(fd, conn, (int)flags, at_once);
        if (substitute.fd >= 0)
            substitute.record = new_record(substitute.fd, fd, conn, now, orphans);
    }
    return substitute;
}

/* The record of SUBSTITUTE gets what the program did to CONN, and whether it is about to send
 * (WANTED). */
static void inherit(const struct substitute *substitute, const struct conn *conn,
                    enum wire_protocol wanted)
{
    struct conn *record = substitute->record;

    record->epoll_regs = conn->epoll_regs;
    record->socket_kind = conn->socket_kind;
    record->received_before = record->received;
    record->sends_before = record->sends;
    conn_set_answer(record, conn_answer(conn));
    record->has_sent = wanted != WIRE_UNDECIDED;
    record->fork_epoch = substitute->fork_epoch;
}

/* Puts RECORD into the map for the duplicates in MOVED and counts them. One that another thread
 * has closed or reused meanwhile is left out. */
static void share_with(struct conn *record, const struct check_in_moved *moved)
{
    for (unsigned int i = 0; i < moved->count; i++) {
        if (!conn_share(record))
            return;
        if (!fdmap_replace(moved->fds[i], FDMAP_NONE, conn_id(record)))
            conn_unshare(record);
    }
}

/* Puts the substitute's socket over FD and all its duplicates in the kernel, not in the map.
 * MOVED is set to the duplicates. REASON_NONE, or as check_in_swap(). FD comes last, as a
 * connection can be checked in only from its last fd. */
static enum reason replace_all(const struct substitute *substitute, int fd, uint32_t word,
                               struct check_in_moved *moved)
{
    enum reason reason = REASON_DUPLICATED;

    if (check_in_duplicates(fd, word, substitute->fd, moved))
        reason = check_in_swap(fd, word, substitute->fd);
    if (reason == REASON_NONE && !sockid_is_at(substitute->record, fd))
        reason = REASON_OTHER_SOCKET;
    if (reason == REASON_NONE || moved->count == 0)
        return reason;
    /* Some duplicates were replaced and FD was not, so two fds of what was one connection have
     * two sockets. The new one is shut down: the program must not wait there for replies to
     * what it sends on the other. */
    raw_syscall(SYS_shutdown, substitute->fd, SHUT_RDWR);
    return REASON_DUPLICATED;
}

/* Puts SUBSTITUTE at FD, of which the map has said WORD. REASON_NONE, or as check_in_swap():
 * then the substitute's record is given up. Our fd of the substitute is closed either way. The
 * order is decisive: first the socket over the program's fds, then our fd, then the record,
 * then the map. */
static enum reason put_in_place(const struct substitute *substitute, int fd, uint32_t word)
{
    struct conn *record = substitute->record;
    struct check_in_moved moved = {.count = 0};
    enum reason reason =
        record ? replace_all(substitute, fd, word, &moved) : REASON_NOT_ESTABLISHED;
    bool ours = substitute->fd >= 0;

    /* A pooled substitute is in the map at our fd; a new one is not, and our fd may have the
     * number of the program's, which another thread has closed meanwhile. The word goes before
     * the fd is closed: otherwise another thread could be given the fd while the map still
     * calls it ours. If the word is gone, a bulk close has closed the fd, and it may be the
     * program's by now: then we must not close it. */
    if (substitute->pooled)
        ours = fdmap_replace(substitute->fd, conn_id(record) | FDMAP_SHADOW, FDMAP_NONE);
    if (ours)
        raw_close(substitute->fd);
    if (!record)
        return reason;
    /* The record is complete before the map names it: from then on any thread may use it. The
     * duplicates are counted before the map has FD. Otherwise another thread that closes FD
     * would take it for the last fd, and keep a connection that the duplicates still name. */
    record->fd = fd;
    if (reason == REASON_NONE) {
        conn_move(record, CONN_IN_USE);
        share_with(record, &moved);
    }
    /* The map may have a word for FD by now: another thread closed it and got it for a new
     * socket. Then FD is that socket's. Our record ends, unless duplicates name it. */
    if (reason != REASON_NONE ||
        (!fdmap_replace(fd, FDMAP_NONE, conn_id(record)) && conn_unshare(record)))
        conn_move(record, CONN_CLOSED);
    return reason;
}

/* What the program sees of a swap that failed: a connection that was reset. */
static bool fail(int fd)
{
    raw_syscall(SYS_shutdown, fd, SHUT_RDWR);
    errno = ECONNRESET;
    return false;
}

/* An epoll registration belongs to one fd (epoll(7)), and we do not know to which of several.
 * So it cannot be repeated after a swap of all of them. */
static bool cannot_move_regs(const struct conn *conn)
{
    return conn_is_shared(conn) && conn->epoll_regs.count > 0;
}

/* Puts a connection that speaks WANTED (WIRE_UNDECIDED: a new one) at FD. If there is none:
 * with CUTTING_OFF, FD is shut down and errno is ECONNRESET; without, FD stays as it is. False
 * then. But where a new one is wanted and the program has only ever spoken the protocol of the
 * one at FD, that one stays, and the result is true: nothing was wrong with it. */
static bool swap(int fd, enum wire_protocol wanted, bool cutting_off)
{
    uint32_t word = fdmap_word(fd);
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    struct substitute substitute = {.fd = -1};
    struct endpoint *endpoint;
    enum reason reason;
    bool done, fits;

    if (!conn)
        return true;
    /* Another thread may have closed it meanwhile. Or the fd was closed and reused where no
     * hook saw it: then it is not ours. */
    if (conn_state(conn) != CONN_IN_USE || discard_if_elsewhere(conn, fd)) {
        conn_put(conn, CONN_CALL_OTHER);
        return true;
    }
    endpoint = conn->endpoint;
    fits = wanted == WIRE_UNDECIDED && guess_is_sure(conn);
    if (!cannot_move_regs(conn) && (!conn_is_shared(conn) || conn_is_only_call(conn)))
        substitute = find_substitute(fd, conn, wanted, fits);
    if (substitute.record)
        inherit(&substitute, conn, wanted);
    conn_put(conn, CONN_CALL_OTHER);
    reason = put_in_place(&substitute, fd, word);
    /* Another thread began a call meanwhile, which may be its first send. Then this is as if
     * the send had come before: no swap is due. */
    if (reason == REASON_IN_FLIGHT && wanted == WIRE_UNDECIDED)
        return true;
    done = reason == REASON_NONE;
    if (!done && (fits || !cutting_off))
        return fits;
    stats_count(done ? &endpoint->stats->swapped : &endpoint->stats->swap_failed);
    log_line(LOG_DEBUG, "%s: %s at %d, whose user %s", endpoint->text,
             done ? "swapped" : "swap failed", fd,
             wanted == WIRE_UNDECIDED ? "may speak unseen" : "speaks another protocol");
    return done || fail(fd);
}

bool swap_to_fit(int fd, const struct pieces *pieces)
{
    const uint8_t *first = guess_first_byte(pieces);

    return !first || swap(fd, wire_protocol_of(*first), true);
}

/* Not while another thread is in a call on it: that may be its first send, or it may wait on
 * the old socket for ever. */
static bool swap_is_due(int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);
    bool due;

    if (!conn)
        return false;
    due = guess_is_open(conn) && conn_is_only_call(conn) && !cannot_move_regs(conn) &&
          wire_protocol(&conn->wire) != WIRE_UNDECIDED;
    conn_put(conn, CONN_CALL_OTHER);
    return due;
}

bool swap_for_new(int fd)
{
    return !swap_is_due(fd) || swap(fd, WIRE_UNDECIDED, true);
}

void swap_for_new_if_possible(int fd)
{
    if (swap_is_due(fd))
        swap(fd, WIRE_UNDECIDED, false);
}

void swap_for_new_unless_sure(int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);
    bool sure = false;

    if (!conn)
        return;
    if (conn->endpoint)
        sure = conn->epoll_regs.count == 0 && guess_is_sure(conn);
    conn_put(conn, CONN_CALL_OTHER);
    if (!sure)
        swap_for_new_if_possible(fd);
}

void swap_all_for_new(void)
{
    int saved = errno;

    if (!conn_any_silent() || !owner_has_one_thread())
        return;
    for (int fd = 0; fd < fdmap_end(); fd++) {
        if (!fdmap_is_plain(fd))
            swap_for_new_if_possible(fd);
    }
    errno = saved;
}
