/*
 * Bytes: the real call, then what moved goes to the connection's account and its wire tracker.
 */
#include "hooks.h"

#include "../cold.h"
#include "../goodbye.h"
#include "../protocol.h"
#include "../readable.h"
#include "../unwind.h"

/* A call on a connection, from before the real call until its bytes are accounted. */
struct call {
    struct conn *conn;
    enum conn_call kind;
};

/* One that is refused is not accounted. */
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

static inline void account_bytes(struct call *call, const void *bytes, size_t n)
{
    if (call->kind == CONN_CALL_SEND)
        wire_sent(&call->conn->wire, bytes, n);
    else
        wire_received(&call->conn->wire, bytes, n);
}

static void account_iov(struct call *call, const struct iovec *iov, size_t count, size_t moved)
{
    if (!account_begin(call, moved))
        return;
    for (size_t i = 0; i < count && moved > 0; i++) {
        size_t n = iov[i].iov_len < moved ? iov[i].iov_len : moved;

        account_bytes(call, iov[i].iov_base, n);
        moved -= n;
    }
    conn_let_go(call->conn);
}

static void account(struct call *call, const void *bytes, ssize_t moved)
{
    if (moved <= 0 || !account_begin(call, (size_t)moved))
        return;
    account_bytes(call, bytes, (size_t)moved);
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

/* What a message holds, none when it cannot be read. */
static const struct iovec *pieces_of(const struct msghdr *msg)
{
    return is_readable(msg, sizeof(*msg)) ? msg->msg_iov : NULL;
}

static size_t count_of(const struct msghdr *msg)
{
    return is_readable(msg, sizeof(*msg)) ? msg->msg_iovlen : 0;
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

/* The real call, in a call on a connection that has begun. ACCOUNT is what to do with `moved`,
 * the result, in `call`. */
#define MOVE(name, args, flags, account)                                                       \
    do {                                                                                       \
        struct _pthread_cleanup_buffer cleanup;                                                \
                                                                                               \
        if (!call.conn)                                                                        \
            return real_##name args;                                                           \
        check_flags(&call, flags);                                                             \
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

#define RECEIVES(ret, name, params, args, flags, account)                                      \
    static __attribute__((noinline)) ret tracked_##name params                                 \
    {                                                                                          \
        struct call call;                                                                      \
        ret moved;                                                                             \
                                                                                               \
        begin(&call, fd, CONN_CALL_RECEIVE);                                                   \
        MOVE(name, args, flags, account);                                                      \
        return moved;                                                                          \
    }                                                                                          \
    HOOKED_STREAM(ret, name, params, args, tracked_##name)

/* COUNT pieces at IOV are about to be sent. */
#define SENDS(ret, name, params, args, flags, account, iov, count)                             \
    static __attribute__((noinline)) ret tracked_##name params                                 \
    {                                                                                          \
        struct call call;                                                                      \
        ret moved;                                                                             \
                                                                                               \
        if (!begin_sending(&call, fd, &(struct pieces){iov, (size_t)(count), false}))          \
            return -1;                                                                         \
        MOVE(name, args, flags, account);                                                      \
        return moved;                                                                          \
    }

#define EACH(...) __VA_ARGS__

/* N bytes at BUF; what comes before a goodbye is sent first. REST are the arguments behind N.
 */
#define SAYS(name, params, args, flags, ...)                                                   \
    static inline ssize_t moved_##name(bool readable, EACH params)                             \
    {                                                                                          \
        struct iovec one = {(void *)buf, n};                                                   \
        struct call call;                                                                      \
        ssize_t moved;                                                                         \
                                                                                               \
        if (!begin_sending(&call, fd, &(struct pieces){&one, 1, readable}))                    \
            return -1;                                                                         \
        MOVE(name, args, flags, ALL_OF(buf));                                                  \
        return moved;                                                                          \
    }                                                                                          \
    static COLD ssize_t parting_##name(size_t goodbye, EACH params)                            \
    {                                                                                          \
        size_t before = n - goodbye;                                                           \
        ssize_t moved = 0, rest;                                                               \
                                                                                               \
        if (before > 0 &&                                                                      \
            (moved = moved_##name(true, fd, buf, before __VA_ARGS__)) != (ssize_t)before)      \
            return moved;                                                                      \
        if (goodbye_bury(fd, (const char *)buf + before))                                      \
            return (ssize_t)n;                                                                 \
        rest = moved_##name(true, fd, (const char *)buf + before, goodbye __VA_ARGS__);        \
        return rest < 0 && before > 0 ? moved : moved + rest;                                  \
    }                                                                                          \
    static __attribute__((noinline)) ssize_t tracked_##name params                             \
    {                                                                                          \
        bool readable = are_ends_readable(buf, n, GOODBYE_LONGEST);                            \
        size_t goodbye = readable ? goodbye_in(fd, buf, n) : 0;                                \
                                                                                               \
        return goodbye > 0 ? parting_##name(goodbye, EACH args)                                \
                           : moved_##name(readable, EACH args);                                \
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
      IOV(iov, count), iov, count > 0 ? count : 0)
HOOKED_STREAM(ssize_t, writev, (int fd, const struct iovec *iov, int count), (fd, iov, count),
              tracked_writev)

SAYS(send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags), flags, , flags)
HOOKED_ALIAS(__send, send);

SAYS(sendto,
     (int fd, const void *buf, size_t n, int flags, const struct sockaddr *to, socklen_t len),
     (fd, buf, n, flags, to, len), flags, , flags, to, len)

RECEIVES(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags), flags,
         UNLESS_PEEKED(flags, ALL_OF(buf)))

RECEIVES(ssize_t, recvfrom,
         (int fd, void *buf, size_t n, int flags, struct sockaddr *from, socklen_t *len),
         (fd, buf, n, flags, from, len), flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

RECEIVES(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), flags,
         UNLESS_PEEKED(flags, IOV(msg->msg_iov, msg->msg_iovlen)))

RECEIVES(int, recvmmsg,
         (int fd, struct mmsghdr *msgs, unsigned int count, int flags,
          struct timespec *timeout),
         (fd, msgs, count, flags, timeout), flags,
         UNLESS_PEEKED(flags, account_messages(&call, msgs, moved)))

RECEIVES(ssize_t, __read_chk, (int fd, void *buf, size_t n, size_t room), (fd, buf, n, room), 0,
         ALL_OF(buf))

RECEIVES(ssize_t, __recv_chk, (int fd, void *buf, size_t n, size_t room, int flags),
         (fd, buf, n, room, flags), flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

RECEIVES(ssize_t, __recvfrom_chk,
         (int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *from,
          socklen_t *len),
         (fd, buf, n, room, flags, from, len), flags, UNLESS_PEEKED(flags, ALL_OF(buf)))

/* The message is looked at after the call: only then is it known to be readable. */
SENDS(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags), flags,
      IOV(msg->msg_iov, msg->msg_iovlen), pieces_of(msg), count_of(msg))

/* The kernel takes no more at once (UIO_MAXIOV). */
#define MESSAGES_MOST 1024

/* Before MSG is sent. One in memory that would have to be asked about costs every sender too
 * much; what it carries is noted when it was sent. */
static inline void passing(const struct msghdr *msg)
{
    if (atomic_load_explicit(&conn_ever_used, memory_order_relaxed) &&
        is_word_certain((uintptr_t)msg) && is_word_certain((uintptr_t)&msg->msg_flags) &&
        msg->msg_controllen > 0)
        track_passing(msg);
}

HOOKED ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    ssize_t moved;

    passing(msg);
    moved = PLAIN(fd) ? real_sendmsg(fd, msg, flags) : tracked_sendmsg(fd, msg, flags);
    if (moved >= 0 && msg->msg_controllen > 0)
        track_passed(msg);
    return moved;
}

SENDS(int, sendmmsg, (int fd, struct mmsghdr *msgs, unsigned int count, int flags),
      (fd, msgs, count, flags), flags, account_messages(&call, msgs, moved),
      count > 0 ? pieces_of(&msgs->msg_hdr) : NULL, count > 0 ? count_of(&msgs->msg_hdr) : 0)

HOOKED int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    int moved;

    for (unsigned int i = 0; i < count && i < MESSAGES_MOST; i++)
        passing(&msgs[i].msg_hdr);
    moved = PLAIN(fd) ? real_sendmmsg(fd, msgs, count, flags)
                      : tracked_sendmmsg(fd, msgs, count, flags);
    for (int i = 0; i < moved; i++)
        track_passed(&msgs[i].msg_hdr);
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
