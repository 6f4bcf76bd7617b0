/*
 * Bytes: the real call, then what moved goes to the connection's account and its wire tracker.
 */
#include "hooks.h"

#include <pthread.h>

/* A call on a connection, from before the real call until its bytes are accounted. */
struct call {
    struct conn *conn;
    enum conn_call kind;
};

static bool begin(struct call *call, int fd, enum conn_call kind)
{
    call->kind = kind;
    call->conn = conn_enter(fd, kind);
    if (call->conn && conn_refusal(call->conn) != REASON_NONE) {
        conn_leave(call->conn, kind);
        call->conn = NULL;
    }
    return call->conn != NULL;
}

static void end(struct call *call)
{
    conn_leave(call->conn, call->kind);
}

/* The thread was cancelled in the real call: what moved is unknown. */
static void cancelled(void *argument)
{
    struct call *call = argument;

    conn_refuse(call->conn, REASON_UNTRACKED_IO);
    end(call);
}

static void account_iov(struct call *call, const struct iovec *iov, size_t count, size_t moved)
{
    struct conn *conn = call->conn;

    if (conn_state(conn) == CONN_FRESH)
        conn_refuse(conn, REASON_UNTRACKED_IO);
    if (!conn_hold(conn))
        return;
    if (call->kind == CONN_CALL_SEND)
        conn->sent += moved;
    else
        conn->received += moved;
    for (size_t i = 0; i < count && moved > 0; i++) {
        size_t n = iov[i].iov_len < moved ? iov[i].iov_len : moved;

        if (call->kind == CONN_CALL_SEND)
            wire_sent(&conn->wire, iov[i].iov_base, n);
        else
            wire_received(&conn->wire, iov[i].iov_base, n);
        moved -= n;
    }
    conn_let_go(conn);
}

static void account(struct call *call, const void *bytes, ssize_t moved)
{
    struct iovec one = {(void *)bytes, moved > 0 ? (size_t)moved : 0};

    if (moved > 0)
        account_iov(call, &one, 1, (size_t)moved);
}

static void account_messages(struct call *call, const struct mmsghdr *msgs, int count)
{
    for (int i = 0; i < count; i++)
        account_iov(call, msgs[i].msg_hdr.msg_iov, msgs[i].msg_hdr.msg_iovlen, msgs[i].msg_len);
}

/* Flags under which the bytes given or wanted are not the bytes of the stream that moved. */
#define SEND_ODDLY    (MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY)
#define RECEIVE_ODDLY (MSG_OOB | MSG_TRUNC)
#define MOVES_NOTHING (MSG_PEEK | MSG_ERRQUEUE)

static void check_flags(struct call *call, int flags)
{
    if (flags & (call->kind == CONN_CALL_SEND ? SEND_ODDLY : RECEIVE_ODDLY))
        conn_refuse(call->conn, REASON_UNTRACKED_IO);
}

/*
 * The hook NAME and its slow path, which is a function of its own to keep the fast path free of
 * a frame. ACCOUNT is what to do with `moved`, the result, in `call`.
 */
#define STREAM(ret, name, params, args, direction, flags, account)                             \
    static __attribute__((noinline)) ret tracked_##name params                                 \
    {                                                                                          \
        struct call call;                                                                      \
        ret moved;                                                                             \
                                                                                               \
        if (!begin(&call, fd, CONN_CALL_##direction))                                          \
            return real_##name args;                                                           \
        check_flags(&call, flags);                                                             \
        pthread_cleanup_push(cancelled, &call);                                                \
        moved = real_##name args;                                                              \
        pthread_cleanup_pop(0);                                                                \
        account;                                                                               \
        end(&call);                                                                            \
        return moved;                                                                          \
    }                                                                                          \
    HOOKED ret name params                                                                     \
    {                                                                                          \
        if (PLAIN(fd))                                                                         \
            return real_##name args;                                                           \
        return tracked_##name args;                                                            \
    }

#define ALL_OF(bytes) account(&call, bytes, moved)
#define UNLESS_PEEKED(flags, accounted)                                                        \
    do {                                                                                       \
        if (!((flags)&MOVES_NOTHING))                                                          \
            accounted;                                                                         \
    } while (0)
#define IOV(iov, count)                                                                        \
    do {                                                                                       \
        if (moved > 0)                                                                         \
            account_iov(&call, iov, (size_t)(count), (size_t)moved);                           \
    } while (0)

STREAM(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n), RECEIVE, 0, ALL_OF(buf))
HOOKED_ALIAS(__read, read);

STREAM(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n), SEND, 0, ALL_OF(buf))
HOOKED_ALIAS(__write, write);

STREAM(ssize_t, readv, (int fd, const struct iovec *iov, int count), (fd, iov, count), RECEIVE,
       0, IOV(iov, count))

STREAM(ssize_t, writev, (int fd, const struct iovec *iov, int count), (fd, iov, count), SEND, 0,
       IOV(iov, count))

STREAM(ssize_t, send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags), SEND,
       flags, ALL_OF(buf))
HOOKED_ALIAS(__send, send);

STREAM(ssize_t, sendto,
       (int fd, const void *buf, size_t n, int flags, const struct sockaddr *to, socklen_t len),
       (fd, buf, n, flags, to, len), SEND, flags, ALL_OF(buf))

STREAM(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags), RECEIVE,
       flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

STREAM(ssize_t, recvfrom,
       (int fd, void *buf, size_t n, int flags, struct sockaddr *from, socklen_t *len),
       (fd, buf, n, flags, from, len), RECEIVE, flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

STREAM(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), RECEIVE,
       flags, UNLESS_PEEKED(flags, IOV(msg->msg_iov, msg->msg_iovlen)))

STREAM(int, recvmmsg,
       (int fd, struct mmsghdr *msgs, unsigned int count, int flags, struct timespec *timeout),
       (fd, msgs, count, flags, timeout), RECEIVE, flags,
       UNLESS_PEEKED(flags, account_messages(&call, msgs, moved)))

STREAM(ssize_t, __read_chk, (int fd, void *buf, size_t n, size_t room), (fd, buf, n, room),
       RECEIVE, 0, ALL_OF(buf))

STREAM(ssize_t, __recv_chk, (int fd, void *buf, size_t n, size_t room, int flags),
       (fd, buf, n, room, flags), RECEIVE, flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

STREAM(ssize_t, __recvfrom_chk,
       (int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *from,
        socklen_t *len),
       (fd, buf, n, room, flags, from, len), RECEIVE, flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

static ssize_t tracked_sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct call call;
    ssize_t moved;

    if (!begin(&call, fd, CONN_CALL_SEND))
        return real_sendmsg(fd, msg, flags);
    check_flags(&call, flags);
    pthread_cleanup_push(cancelled, &call);
    moved = real_sendmsg(fd, msg, flags);
    pthread_cleanup_pop(0);
    IOV(msg->msg_iov, msg->msg_iovlen);
    end(&call);
    return moved;
}

/* The message is looked at after the call: only then is it known to be readable. */
HOOKED ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t moved = PLAIN(fd) ? real_sendmsg(fd, msg, flags) : tracked_sendmsg(fd, msg, flags);

    if (moved >= 0 && msg->msg_controllen > 0)
        track_passed(msg);
    return moved;
}

static int tracked_sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    struct call call;
    int moved;

    if (!begin(&call, fd, CONN_CALL_SEND))
        return real_sendmmsg(fd, msgs, count, flags);
    check_flags(&call, flags);
    pthread_cleanup_push(cancelled, &call);
    moved = real_sendmmsg(fd, msgs, count, flags);
    pthread_cleanup_pop(0);
    account_messages(&call, msgs, moved);
    end(&call);
    return moved;
}

HOOKED int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    int moved = PLAIN(fd) ? real_sendmmsg(fd, msgs, count, flags)
                          : tracked_sendmmsg(fd, msgs, count, flags);

    for (int i = 0; i < moved; i++)
        track_passed(&msgs[i].msg_hdr);
    return moved;
}

/* Calls that move bytes past the tracker only make the connection unpoolable. */
#define UNTRACKED(ret, name, params, args)                                                     \
    HOOKED ret name params                                                                     \
    {                                                                                          \
        if (!PLAIN(fd))                                                                        \
            track_refuse(fd, REASON_UNTRACKED_IO);                                             \
        return real_##name args;                                                               \
    }

UNTRACKED(ssize_t, preadv2, (int fd, const struct iovec *iov, int count, off_t at, int flags),
          (fd, iov, count, at, flags))
UNTRACKED(ssize_t, preadv64v2,
          (int fd, const struct iovec *iov, int count, off64_t at, int flags),
          (fd, iov, count, at, flags))
UNTRACKED(ssize_t, pwritev2, (int fd, const struct iovec *iov, int count, off_t at, int flags),
          (fd, iov, count, at, flags))
UNTRACKED(ssize_t, pwritev64v2,
          (int fd, const struct iovec *iov, int count, off64_t at, int flags),
          (fd, iov, count, at, flags))
UNTRACKED(ssize_t, sendfile, (int fd, int in, off_t *at, size_t n), (fd, in, at, n))
UNTRACKED(ssize_t, sendfile64, (int fd, int in, off64_t *at, size_t n), (fd, in, at, n))

HOOKED ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
                      unsigned int flags)
{
    if (!PLAIN(in))
        track_refuse(in, REASON_UNTRACKED_IO);
    if (!PLAIN(out))
        track_refuse(out, REASON_UNTRACKED_IO);
    return real_splice(in, in_at, out, out_at, n, flags);
}
