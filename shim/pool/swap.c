/*
 * Repair and renewal.
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

/* What is to take the place of a connection. */
struct substitute {
    int fd; /* of ours, to be closed; -1 when there is none */
    struct conn *record;
};

/* A socket on its way to the same peer as FD, prepared as that is; -1 when there is none. */
static int dial_again(int fd, const struct conn *conn, int flags)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    long to, result = -EINVAL;

    if (raw_syscall(SYS_getpeername, fd, &peer, &len) != 0)
        return -1;
    to = raw_syscall(SYS_socket, conn->domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (to < 0)
        return -1;
    if (sockopts_give((int)to, &conn->options))
        result = raw_syscall(SYS_connect, to, &peer, len);
    if ((result == 0 || result == -EINPROGRESS) &&
        raw_syscall(SYS_fcntl, to, F_SETFL, flags) == 0)
        return (int)to;
    raw_close((int)to);
    return -1;
}

static struct conn *record_of(int socket_fd, int fd, const struct conn *conn, msec_t now,
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
    if (sockid_cookie(socket_fd, &record->cookie) &&
        check_out_bind(record, &conn->endpoint->address, now))
        return record;
    conn_move(record, CONN_CLOSED);
    return NULL;
}

/* In another network namespace the address may lead to another server. And an epoll
 * registration that is not known cannot be made for the new socket. */
static bool may_dial(const struct conn *conn)
{
    enum reason reason = conn_refusal(conn);

    return owner_refusal() != REASON_NAMESPACE && reason != REASON_EPOLL_SETS &&
           reason != REASON_EPOLL_UNKNOWN;
}

/* A new connection is as good as a pooled one: the send that made us look waits for it, or says
 * that it must be waited for, as on any socket that is connecting. Nothing here blocks. */
static struct substitute find_substitute(int fd, const struct conn *conn,
                                         enum wire_protocol wanted)
{
    msec_t now = clock_now();
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFL);
    struct conn *pooled =
        flags < 0 || wanted == WIRE_UNDECIDED ? NULL : check_out_find(conn, wanted, now);
    struct substitute substitute = {.fd = -1, .record = NULL};

    if (pooled) {
        enum reason reason = install_options(pooled, fd, conn, (int)flags);

        if (reason == REASON_NONE) {
            substitute = (struct substitute){pooled->fd, pooled};
            sockopts_equalize(&pooled->options, &conn->options);
        } else {
            discard(pooled, reason);
        }
    }
    if (!substitute.record && flags >= 0 && may_dial(conn)) {
        uint32_t orphans = atomic_load(&orphan_epoch);

        substitute.fd = dial_again(fd, conn, (int)flags);
        if (substitute.fd >= 0)
            substitute.record = record_of(substitute.fd, fd, conn, now, orphans);
    }
    return substitute;
}

/* Like CONN in all that its user did, and is about to do: to speak WANTED. */
static void take_after(struct conn *record, const struct conn *conn, enum wire_protocol wanted)
{
    record->epoll_regs = conn->epoll_regs;
    record->socket_kind = conn->socket_kind;
    conn_set_answer(record, conn_answer(conn));
    record->has_sent = wanted != WIRE_UNDECIDED;
    /* Read before it gets its number: a child made from now on may have it. */
    record->fork_epoch = atomic_load(&fork_epoch);
}

/* The duplicates in MOVED name RECORD now. */
static void share_with(struct conn *record, const struct check_in_moved *moved)
{
    for (unsigned int i = 0; i < moved->count; i++) {
        if (!conn_share(record))
            return;
        if (!fdmap_replace(moved->fds[i], FDMAP_NONE, conn_id(record)))
            conn_unshare(record);
    }
}

/* At FD and all its duplicates, which go to MOVED. REASON_NONE, or as check_in_swap(). */
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
    /* What one fd of the old connection was told must not be waited for at another. */
    raw_syscall(SYS_shutdown, substitute->fd, SHUT_RDWR);
    return REASON_DUPLICATED;
}

/* The private fd goes either way; a record that lost its socket goes with it. REASON_NONE, or
 * as check_in_swap(). */
static enum reason put_in_place(const struct substitute *substitute, int fd, uint32_t word)
{
    struct conn *record = substitute->record;
    struct check_in_moved moved = {.count = 0};
    enum reason reason =
        record ? replace_all(substitute, fd, word, &moved) : REASON_NOT_ESTABLISHED;
    bool ours = substitute->fd >= 0;

    if (record && record->fd == substitute->fd)
        ours = fdmap_replace(substitute->fd, conn_id(record) | FDMAP_SHADOW, FDMAP_NONE);
    if (ours)
        raw_close(substitute->fd);
    if (!record)
        return reason;
    record->fd = fd;
    if (reason == REASON_NONE) {
        conn_move(record, CONN_IN_USE);
        share_with(record, &moved);
    }
    if (reason != REASON_NONE || !fdmap_replace(fd, FDMAP_NONE, conn_id(record)))
        conn_move(record, CONN_CLOSED);
    return reason;
}

static bool fail(int fd)
{
    raw_syscall(SYS_shutdown, fd, SHUT_RDWR);
    errno = ECONNRESET;
    return false;
}

/* A registration in an epoll set is that of one fd, and which of several is not known. */
static bool is_tied(const struct conn *conn)
{
    return conn_is_shared(conn) && conn->epoll_regs.count > 0;
}

/* Puts a connection that speaks WANTED, or one on which nothing was said yet, at FD. Where
 * there is none FD is cut off, if CUTTING_OFF, or left as it is: false. */
static bool swap(int fd, enum wire_protocol wanted, bool cutting_off)
{
    uint32_t word = fdmap_word(fd);
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    struct substitute substitute;
    struct endpoint *endpoint;
    enum reason reason;
    bool done;

    if (!conn)
        return true;
    /* Another thread may have closed it meanwhile; or this program's number was reused behind
     * our back, and what it is now is none of ours. */
    if (conn_state(conn) != CONN_IN_USE || discard_if_elsewhere(conn, fd)) {
        conn_put(conn, CONN_CALL_OTHER);
        return true;
    }
    endpoint = conn->endpoint;
    substitute = is_tied(conn) || (conn_is_shared(conn) && !conn_is_only_call(conn))
                     ? (struct substitute){.fd = -1, .record = NULL}
                     : find_substitute(fd, conn, wanted);
    if (substitute.record)
        take_after(substitute.record, conn, wanted);
    conn_put(conn, CONN_CALL_OTHER);
    reason = put_in_place(&substitute, fd, word);
    /* A thread that came meanwhile may be speaking: as if it had been there before. */
    if (reason == REASON_IN_FLIGHT && wanted == WIRE_UNDECIDED)
        return true;
    done = reason == REASON_NONE;
    if (!done && !cutting_off)
        return false;
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

/* Not while another thread is in a call on it: that may be its first send, or may wait on the
 * old socket for ever. */
static bool is_to_be_swapped(int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);
    bool due;

    if (!conn)
        return false;
    due = guess_is_open(conn) && conn_is_only_call(conn) && !is_tied(conn) &&
          wire_protocol(&conn->wire) != WIRE_UNDECIDED;
    conn_put(conn, CONN_CALL_OTHER);
    return due;
}

bool swap_for_new(int fd)
{
    return !is_to_be_swapped(fd) || swap(fd, WIRE_UNDECIDED, true);
}

void swap_for_new_if_possible(int fd)
{
    if (is_to_be_swapped(fd))
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
