/*
 * Bytes: what is to be sent is parsed, the real call is made, and then what moved goes to the
 * connection's account and its wire tracker.
 */
#include "hooks/hooks.h"

#include <stdint.h>

#include "base/compiler.h"
#include "pool/quit.h"
#include "pool/swap.h"
#include "base/readable.h"
#include "pool/sending.h"
#include "base/unwind.h"

/* A call on a connection, from before the real call until its bytes are accounted. */
struct call {
    struct conn *conn;
    enum conn_call kind;
};

/* A connection that is refused needs no account. */
static void leave_refused(struct call *call)
{
    if (call->conn && conn_refusal(call->conn) != REASON_NONE) {
        conn_leave(call->conn, call->kind);
        call->conn = NULL;
    }
}

static void begin(struct call *call, int fd, enum conn_call kind)
{
    call->kind = kind;
    call->conn = conn_enter(fd, kind);
    leave_refused(call);
}

static void end(struct call *call)
{
    conn_leave(call->conn, call->kind);
}

/* Left for good in the real call, or before its bytes were accounted: what moved is unknown. */
static void abandoned(void *argument)
{
    struct call *call = argument;

    conn_refuse(call->conn, REASON_UNTRACKED_IO);
    end(call);
}

/* Whether what MOVED is to be accounted; to be ended by conn_let_go(). Nothing for one that is
 * refused: with odd flags the bytes need not be where they seem to be. */
static bool account_begin(struct call *call, size_t moved)
{
    struct conn *conn = call->conn;

    if (conn_state(conn) == CONN_FRESH)
        conn_refuse(conn, REASON_UNTRACKED_IO);
    if (conn_refusal(conn) != REASON_NONE || !conn_hold(conn))
        return false;
    if (call->kind == CONN_CALL_SEND)
        conn->sent += moved;
    else
        conn->received += moved;
    return true;
}

/* What was sent. Only where memory changed while it was sent can it differ from what a second
 * look found. */
static void account_sent(struct call *call, const struct sending *sending, size_t moved)
{
    if (!sending_is(sending, moved))
        conn_refuse(call->conn, REASON_UNTRACKED_IO);
    if (!account_begin(call, moved))
        return;
    sending_commit(sending, &call->conn->wire);
    conn_let_go(call->conn);
}

static void account_iov(struct call *call, const struct iovec *iov, size_t count, size_t moved)
{
    if (!account_begin(call, moved))
        return;
    for (size_t i = 0; i < count && moved > 0; i++) {
        size_t n = iov[i].iov_len < moved ? iov[i].iov_len : moved;

        wire_received(&call->conn->wire, iov[i].iov_base, n);
        moved -= n;
    }
    conn_let_go(call->conn);
}

static void account(struct call *call, const void *bytes, ssize_t moved)
{
    if (moved <= 0 || !account_begin(call, (size_t)moved))
        return;
    wire_received(&call->conn->wire, bytes, (size_t)moved);
    conn_let_go(call->conn);
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

/* What a message holds, nothing when it cannot be read. */
static struct pieces pieces_of(const struct msghdr *msg)
{
    if (!is_readable(msg, sizeof(*msg)))
        return (struct pieces){NULL, 0, false};
    return (struct pieces){msg->msg_iov, msg->msg_iovlen, false};
}

/* How many bytes of COUNT messages were sent; more than there are when that is not known. */
static size_t bytes_sent(const struct mmsghdr *msgs, int count)
{
    size_t n = 0;

    for (int i = 0; i < count; i++) {
        if (!is_readable(&msgs[i], sizeof(msgs[i])))
            return SIZE_MAX;
        n += msgs[i].msg_len;
    }
    return n;
}

/* As begin(), for PIECES that are to be sent. False, with errno set, when they must not be. */
static bool begin_sending(struct call *call, int fd, const struct pieces *pieces)
{
    call->kind = CONN_CALL_SEND;
    call->conn = conn_enter(fd, CONN_CALL_SEND);
    if (!call->conn || protocol_fits(call->conn, pieces)) {
        leave_refused(call);
        return true;
    }
    end(call);
    if (!protocol_repair(fd, pieces))
        return false;
    begin(call, fd, CONN_CALL_SEND);
    return true;
}

/* The real call, in a call on a connection that has begun. LOOK comes before it; ACCOUNT is
 * what to do with `moved`, the result, in `call`. */
#define MOVE(name, args, flags, look, account)                                                 \
    do {                                                                                       \
        struct _pthread_cleanup_buffer cleanup;                                                \
                                                                                               \
        if (!call.conn)                                                                        \
            return real_##name args;                                                           \
        check_flags(&call, flags);                                                             \
        look;                                                                                  \
        _pthread_cleanup_push(&cleanup, abandoned, &call);                                     \
        moved = real_##name args;                                                              \
        account;                                                                               \
        _pthread_cleanup_pop(&cleanup, 0);                                                     \
        end(&call);                                                                            \
    } while (0)

/* The hook NAME; its slow path is a function of its own to keep the fast path free of a frame.
 */
#define HOOKED_STREAM(ret, name, params, args, tracked)                                        \
    HOOKED ret name params                                                                     \
    {                                                                                          \
        if (PLAIN(fd))                                                                         \
            return real_##name args;                                                           \
        return tracked args;                                                                   \
    }

#define TAKES(ret, name, params, args, flags, account)                                         \
    static __attribute__((noinline)) ret tracked_##name params                                 \
    {                                                                                          \
        struct call call;                                                                      \
        ret moved;                                                                             \
                                                                                               \
        begin(&call, fd, CONN_CALL_RECEIVE);                                                   \
        MOVE(name, args, flags, , account);                                                    \
        return moved;                                                                          \
    }

#define RECEIVES(ret, name, params, args, flags, account)                                      \
    TAKES(ret, name, params, args, flags, account)                                             \
    HOOKED_STREAM(ret, name, params, args, tracked_##name)

/* The account of BYTES that were sent, which `sending` has looked at; AGAIN looks at them if
 * they are not all of what it saw. */
#define SENT(bytes, again)                                                                     \
    do {                                                                                       \
        if (moved > 0) {                                                                       \
            const size_t sent = bytes;                                                         \
                                                                                               \
            if (!sending_is(&sending, sent))                                                   \
                again;                                                                         \
            account_sent(&call, &sending, sent);                                               \
        }                                                                                      \
    } while (0)

/* The pieces WANTED are about to be sent. LOOK_AT is the function that looks at them, with
 * ARGUMENTS in the middle; of what was sent the bytes are SENT_BYTES. */
#define SENDS(ret, name, params, args, flags, wanted, look_at, arguments, sent_bytes)          \
    static __attribute__((noinline)) ret tracked_##name params                                 \
    {                                                                                          \
        struct pieces pieces = wanted;                                                         \
        struct sending sending;                                                                \
        struct call call;                                                                      \
        ret moved;                                                                             \
                                                                                               \
        if (!begin_sending(&call, fd, &pieces))                                                \
            return -1;                                                                         \
        MOVE(name, args, flags, look_at(&sending, &call.conn->wire, EACH arguments, SIZE_MAX), \
             SENT(sent_bytes, look_at(&sending, &call.conn->wire, EACH arguments, sent)));     \
        return moved;                                                                          \
    }

#define EACH(...) __VA_ARGS__

/* N bytes at BUF, which may be a goodbye. Whether the first and the last of a few can be read
 * is asked at once. */
#define SAYS(name, params, args, flags)                                                        \
    static __attribute__((noinline)) ssize_t tracked_##name params                             \
    {                                                                                          \
        bool readable = are_ends_readable(buf, n <= WIRE_ONE_GET_MAX ? n : 1, 1);              \
        struct iovec one = {(void *)buf, n};                                                   \
        struct sending sending;                                                                \
        struct call call;                                                                      \
        ssize_t moved;                                                                         \
                                                                                               \
        if (n <= GOODBYE_LONGEST && readable && wire_may_be_goodbye(buf, n) &&                 \
            goodbye_bury(fd, fdmap_word(fd), buf, n))                                          \
            return (ssize_t)n;                                                                 \
        if (!begin_sending(&call, fd, &(struct pieces){&one, 1, readable}))                    \
            return -1;                                                                         \
        MOVE(name, args, flags, sending_look(&sending, &call.conn->wire, buf, n, readable),    \
             SENT((size_t)moved,                                                               \
                  sending_look_at_bytes(&sending, &call.conn->wire, buf, false, sent)));       \
        return moved;                                                                          \
    }                                                                                          \
    HOOKED_STREAM(ssize_t, name, params, args, tracked_##name)

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

RECEIVES(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n), 0, ALL_OF(buf))
HOOKED_ALIAS(__read, read);

SAYS(write, (int fd, const void *buf, size_t n), (fd, buf, n), 0)
HOOKED_ALIAS(__write, write);

RECEIVES(ssize_t, readv, (int fd, const struct iovec *iov, int count), (fd, iov, count), 0,
         IOV(iov, count))

SENDS(ssize_t, writev, (int fd, const struct iovec *iov, int count), (fd, iov, count), 0,
      ((struct pieces){iov, count > 0 ? (size_t)count : 0, false}), sending_look_at_pieces,
      (iov, count > 0 ? (size_t)count : 0), (size_t)moved)
HOOKED_STREAM(ssize_t, writev, (int fd, const struct iovec *iov, int count), (fd, iov, count),
              tracked_writev)

SAYS(send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags), flags)
HOOKED_ALIAS(__send, send);

SAYS(sendto,
     (int fd, const void *buf, size_t n, int flags, const struct sockaddr *to, socklen_t len),
     (fd, buf, n, flags, to, len), flags)

RECEIVES(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags), flags,
         UNLESS_PEEKED(flags, ALL_OF(buf)))

RECEIVES(ssize_t, recvfrom,
         (int fd, void *buf, size_t n, int flags, struct sockaddr *from, socklen_t *len),
         (fd, buf, n, flags, from, len), flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

TAKES(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), flags,
      UNLESS_PEEKED(flags, IOV(msg->msg_iov, msg->msg_iovlen)))

HOOKED ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    ssize_t moved = PLAIN(fd) ? real_recvmsg(fd, msg, flags) : tracked_recvmsg(fd, msg, flags);

    if (moved >= 0 && msg->msg_controllen > 0)
        track_received(msg);
    return moved;
}

TAKES(int, recvmmsg,
      (int fd, struct mmsghdr *msgs, unsigned int count, int flags, struct timespec *timeout),
      (fd, msgs, count, flags, timeout), flags,
      UNLESS_PEEKED(flags, account_messages(&call, msgs, moved)))

HOOKED int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags,
                    struct timespec *timeout)
{
    int moved = PLAIN(fd) ? real_recvmmsg(fd, msgs, count, flags, timeout)
                          : tracked_recvmmsg(fd, msgs, count, flags, timeout);

    for (int i = 0; i < moved; i++) {
        if (msgs[i].msg_hdr.msg_controllen > 0)
            track_received(&msgs[i].msg_hdr);
    }
    return moved;
}

RECEIVES(ssize_t, __read_chk, (int fd, void *buf, size_t n, size_t room), (fd, buf, n, room), 0,
         ALL_OF(buf))

RECEIVES(ssize_t, __recv_chk, (int fd, void *buf, size_t n, size_t room, int flags),
         (fd, buf, n, room, flags), flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

RECEIVES(ssize_t, __recvfrom_chk,
         (int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *from,
          socklen_t *len),
         (fd, buf, n, room, flags, from, len), flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

SENDS(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags), flags,
      pieces_of(msg), sending_look_at_messages, (msg, sizeof(*msg), 1), (size_t)moved)

HOOKED ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct track_passed passed;
    ssize_t moved;

    track_passing(msg, 0, 1, &passed);
    moved = PLAIN(fd) ? real_sendmsg(fd, msg, flags) : tracked_sendmsg(fd, msg, flags);
    track_passed(&passed);
    return moved;
}

SENDS(int, sendmmsg, (int fd, struct mmsghdr *msgs, unsigned int count, int flags),
      (fd, msgs, count, flags), flags,
      (count > 0 ? pieces_of(&msgs->msg_hdr) : (struct pieces){NULL, 0, false}),
      sending_look_at_messages, (msgs, sizeof(*msgs), count), bytes_sent(msgs, moved))

HOOKED int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    struct track_passed passed;
    int moved;

    track_passing(msgs, sizeof(*msgs), count, &passed);
    moved = PLAIN(fd) ? real_sendmmsg(fd, msgs, count, flags)
                      : tracked_sendmmsg(fd, msgs, count, flags);
    track_passed(&passed);
    return moved;
}

/* Calls that move bytes past the tracker make the connection unpoolable; see track_unseen(). */
#define MAY_MOVE_UNSEEN(fd) (PLAIN(fd) || track_unseen(fd, REASON_UNTRACKED_IO))

#define UNTRACKED(ret, name, params, args)                                                     \
    HOOKED ret name params                                                                     \
    {                                                                                          \
        return MAY_MOVE_UNSEEN(fd) ? real_##name args : -1;                                    \
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

UNTRACKED(int, vdprintf, (int fd, const char *format, va_list list), (fd, format, list))
UNTRACKED(int, __vdprintf_chk, (int fd, int flag, const char *format, va_list list),
          (fd, flag, format, list))

HOOKED int dprintf(int fd, const char *format, ...)
{
    return MAY_MOVE_UNSEEN(fd) ? PRINTED(vdprintf, format, fd, format) : -1;
}

HOOKED int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    return MAY_MOVE_UNSEEN(fd) ? PRINTED(__vdprintf_chk, format, fd, flag, format) : -1;
}

#define ASYNCHRONOUS(name, block_type)                                                         \
    HOOKED int name(block_type *block)                                                         \
    {                                                                                          \
        return MAY_MOVE_UNSEEN(block->aio_fildes) ? real_##name(block) : -1;                   \
    }

ASYNCHRONOUS(aio_read, struct aiocb)
ASYNCHRONOUS(aio_read64, struct aiocb64)
ASYNCHRONOUS(aio_write, struct aiocb)
ASYNCHRONOUS(aio_write64, struct aiocb64)

HOOKED ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
                      unsigned int flags)
{
    return MAY_MOVE_UNSEEN(in) && MAY_MOVE_UNSEEN(out)
               ? real_splice(in, in_at, out, out_at, n, flags)
               : -1;
}
