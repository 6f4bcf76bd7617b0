/*
 * The tests of a connection, each with its reason.
 */
#include "pool/verify.h"

#include <fcntl.h>
#include <linux/tcp.h>
#include <stddef.h>
#include <unistd.h>

#include "conn/endpoint.h"
#include "base/owner.h"
#include "base/rawsys.h"
#include "conn/sockid.h"
#include "conn/ring.h"
#include "pool/drain.h"

#define TCP_STATE_ESTABLISHED 1 /* linux/tcp_states.h is not for user space */

/* Returns from the function with REFUSAL, unless that is REASON_NONE. */
#define RETURN_IF_REFUSED(refusal)                                                             \
    do {                                                                                       \
        enum reason reason_ = (refusal);                                                       \
        if (reason_ != REASON_NONE)                                                            \
            return reason_;                                                                    \
    } while (0)

static enum reason unless(bool good, enum reason reason)
{
    return good ? REASON_NONE : reason;
}

/* Whether FLAGS are known, and none of them is odd: CONN_UNKNOWN has all bits. */
static inline bool flags_are_good(int flags)
{
    return (flags & ~(O_ACCMODE | O_NONBLOCK | O_LARGEFILE)) == 0;
}

COLD static enum reason ask_for_flags(struct conn *conn, int fd)
{
    int flags = conn_flags(conn);

    if (flags == CONN_UNKNOWN) {
        flags = (int)raw_syscall(SYS_fcntl, fd, F_GETFL);
        if (flags >= 0)
            conn_set_flags(conn, flags, conn_fd_flags(conn));
    }
    return unless(flags >= 0 && flags_are_good(flags), REASON_ODD_FLAGS);
}

/* Asks the kernel for the file status flags of FD, if the program may have changed them. */
static inline enum reason flags_are_known(struct conn *conn, int fd)
{
    return __builtin_expect(flags_are_good(conn_flags(conn)), 1) ? REASON_NONE
                                                                 : ask_for_flags(conn, fd);
}

enum reason verify_flags(struct conn *conn, int fd)
{
    conn_set_flags(conn, CONN_UNKNOWN, CONN_UNKNOWN);
    return ask_for_flags(conn, fd);
}

ALWAYS_INLINE enum reason ask_tcp(int fd, struct tcp_info *info)
{
    if (sockid_tcp_info(fd, info) < SOCKID_TCP_INFO)
        return REASON_NO_PROOF;
    return unless(info->tcpi_state == TCP_STATE_ESTABLISHED, REASON_NOT_ESTABLISHED);
}

/*
 * The kernel's count of the bytes against ours. They differ if a byte is unread, unsent or
 * unacknowledged, or moved where no hook saw it. The SYN counts as one acknowledged byte.
 */
ALWAYS_INLINE enum reason kernel_agrees(const struct conn *conn, int fd, struct tcp_info *info)
{
    RETURN_IF_REFUSED(ask_tcp(fd, info));
    return unless(info->tcpi_bytes_received == conn->received &&
                      info->tcpi_bytes_acked == conn->sent + 1 && info->tcpi_unacked == 0 &&
                      info->tcpi_notsent_bytes == 0,
                  REASON_UNSEEN_BYTES);
}

/* The same for a connection with outstanding replies, on which bytes may still be unread or
 * unacknowledged. They are counted when it is checked out. */
COLD static enum reason kernel_may_agree(const struct conn *conn, int fd)
{
    struct tcp_info info;

    RETURN_IF_REFUSED(ask_tcp(fd, &info));
    return unless(info.tcpi_bytes_received >= conn->received &&
                      info.tcpi_bytes_acked <= conn->sent + 1,
                  REASON_UNSEEN_BYTES);
}

/* A connection that the program opened itself: nothing is believed that the kernel does not
 * confirm. */
COLD static enum reason verify_opened(struct conn *conn, int fd, bool clean)
{
    struct tcp_info info;

    RETURN_IF_REFUSED(unless(sockid_is_at(conn, fd), REASON_OTHER_SOCKET));
    RETURN_IF_REFUSED(verify_flags(conn, fd));
    return clean ? kernel_agrees(conn, fd, &info) : kernel_may_agree(conn, fd);
}

/* A reused connection was verified at check-out through this shadow fd. The kernel's byte
 * counters only grow, so a difference that exists now is still there at the next check-out:
 * clean connections need no system call here. */
static enum reason verify_reused(struct conn *conn, int shadow_fd, bool clean)
{
    RETURN_IF_REFUSED(flags_are_known(conn, shadow_fd));
    return clean ? REASON_NONE : kernel_may_agree(conn, shadow_fd);
}

/* The kernel counts in ticks what it tells in milliseconds, and so does our clock. */
#define TWO_TICKS ((msec_t)20)

/*
 * A first `set` whose value holds a space may have been a login (memcached -Y). It was none if
 * the server has answered another client, without a login, since its last answer here: a server
 * asks all clients for a login or none, and a restart would have ended one of the two
 * connections.
 */
COLD static enum reason was_no_login(struct conn *conn)
{
    msec_t shown_at = atomic_load(&conn->endpoint->no_auth_at), now = clock_now();
    struct tcp_info info;

    RETURN_IF_REFUSED(ask_tcp(conn->fd, &info));
    RETURN_IF_REFUSED(unless(shown_at > now - (msec_t)info.tcpi_last_data_recv + TWO_TICKS,
                             REASON_MAYBE_AUTH));
    wire_rule_out_login(&conn->wire);
    return REASON_NONE;
}

static enum reason is_not_logged_in(struct conn *conn)
{
    return __builtin_expect(wire_may_be_authenticated(&conn->wire), 0) ? was_no_login(conn)
                                                                       : REASON_NONE;
}

/* TLS is reported in place of other reasons, as that helps most. Libraries that encrypt end a
 * connection by shutdown() or duplicate it, and a program that uses them cannot change that. */
static enum reason refusal_of(const struct conn *conn)
{
    enum reason reason = conn_refusal(conn);

    return reason != REASON_NONE && wire_refusal(&conn->wire) == REASON_TLS ? REASON_TLS
                                                                            : reason;
}

INLINED enum reason verify_for_idle(struct conn *conn, int fd, int shadow_fd, msec_t now,
                                    bool *is_clean)
{
    bool clean;

    *is_clean = false;
    RETURN_IF_REFUSED(owner_refusal());
    RETURN_IF_REFUSED(unless(ring_all_seen(), REASON_IO_URING));
    RETURN_IF_REFUSED(refusal_of(conn));
    RETURN_IF_REFUSED(unless(conn->fork_epoch == atomic_load(&fork_epoch), REASON_FORKED));
    RETURN_IF_REFUSED(unless(conn->cred_epoch == atomic_load(&cred_epoch), REASON_IDENTITY));
    RETURN_IF_REFUSED(unless(!conn_calls_in_flight(conn), REASON_IN_FLIGHT));
    *is_clean = clean = wire_verdict(&conn->wire) == WIRE_CLEAN;
    RETURN_IF_REFUSED(clean ? REASON_NONE : drain_prospect(conn, now));
    RETURN_IF_REFUSED(is_not_logged_in(conn));
    RETURN_IF_REFUSED(shadow_fd >= 0 ? verify_reused(conn, shadow_fd, clean)
                                     : verify_opened(conn, fd, clean));
    return unless(now < conn->expires_at, REASON_TOO_OLD);
}

INLINED enum reason verify_for_reuse(const struct conn *conn, struct tcp_info *info)
{
    /* While CONN was idle, its shadow fd may have been closed in bulk and given out again. CONN
     * is CHECKING_OUT before this look at the map; see concurrency.md, 3. */
    RETURN_IF_REFUSED(
        unless(fdmap_holds(conn->fd, conn_id(conn) | FDMAP_SHADOW), REASON_CLOSED_IN_BULK));
    RETURN_IF_REFUSED(owner_refusal());
    RETURN_IF_REFUSED(unless(conn->orphan_epoch == atomic_load(&orphan_epoch), REASON_FORKED));
    RETURN_IF_REFUSED(unless(conn->cred_epoch == atomic_load(&cred_epoch), REASON_IDENTITY));
    return kernel_agrees(conn, conn->fd, info);
}

enum reason verify_bytes(struct conn *conn)
{
    RETURN_IF_REFUSED(wire_refusal(&conn->wire));
    return is_not_logged_in(conn);
}

INLINED enum reason verify_fresh(struct conn *conn, int fd)
{
    RETURN_IF_REFUSED(owner_refusal());
    RETURN_IF_REFUSED(conn_refusal(conn));
    RETURN_IF_REFUSED(unless(conn->fork_epoch == atomic_load(&fork_epoch), REASON_FORKED));
    /* daemon(3) and login_tty(3) replace fds 0 to 2 where no hook sees it. */
    RETURN_IF_REFUSED(
        unless(fd > STDERR_FILENO || sockid_is_at(conn, fd), REASON_OTHER_SOCKET));
    return flags_are_known(conn, fd);
}
