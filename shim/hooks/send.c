/*
 * Hooks that send: write(), send() and their kind. Each parses what is about to be sent, makes
 * the real call, then adds to the connection's account what was sent. pool/sending.h says why
 * the bytes are parsed before the call.
 *
 * Before the first request of a reused connection is sent, a wrong guess of its protocol is put
 * right (pool/swap.h). A quit may not be sent at all (pool/quit.h).
 */
#include "hooks/io.h"

#include <limits.h>

#include "base/compiler.h"
#include "base/usermem.h"
#include "conn/endpoint.h"
#include "pool/quit.h"
#include "pool/sending.h"
#include "pool/tending.h"
#include "pool/swap.h"
#include "wire/lone.h"

/* MSG_OOB: the bytes are not those of the stream. MSG_FASTOPEN: the call connects as well.
 * MSG_ZEROCOPY: the kernel reads the memory after the call. */
#define UNTRACKABLE (MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY)

/* So many bytes are in two pages at most. */
#define FEW 256

/* One call that sends. */
struct send {
    struct sending sending;
    bool first, all; /* see sending_look() */
};

/* The first bytes of a user, PIECES, are about to be sent on CONN. If it does not speak their
 * protocol, another connection takes its place and is returned; sets *FAILED, and errno, when
 * there is no other: the hook fails. */
static struct conn *begin_to_speak(struct conn *conn, int fd, const struct pieces *pieces,
                                   bool *failed)
{
    if (guess_fits(conn, pieces))
        return conn;
    conn_put(conn, CONN_CALL_SEND);
    *failed = !swap_to_fit(fd, pieces);
    return *failed ? NULL : conn_get_at(fd, fdmap_word(fd), CONN_CALL_SEND);
}

/* io_conn() for hooks that send: a refused connection too, before the first bytes of its user.
 * It may still have to be swapped. */
static inline struct conn *conn_to_send(int fd)
{
    uint32_t word = fdmap_word(fd);
    struct conn *conn;

    if (UNTRACKED(word))
        return NULL;
    conn = conn_of_fd_word(word);
    return conn && (__builtin_expect(conn_refusal(conn) == REASON_NONE, 1) ||
                    !guess_is_past(conn))
               ? conn
               : NULL;
}

/* Begins a call on CONN, which is at FD and on which PIECES are about to be sent. Returns the
 * connection on which they are. NULL when there is none any more; or when the hook fails, with
 * *FAILED and errno set. */
static struct conn *send_get(struct conn *conn, int fd, const struct pieces *pieces,
                             bool *failed)
{
    *failed = false;
    if (!conn_begin(conn, fd, CONN_CALL_SEND))
        return NULL;
    return guess_is_past(conn) ? conn : begin_to_speak(conn, fd, pieces, failed);
}

/* The same for bytes. */
static __attribute__((noinline)) struct conn *begin_with_bytes(struct conn *conn, int fd,
                                                               const void *buf, size_t n,
                                                               bool readable, bool *failed)
{
    struct iovec one = {(void *)buf, n};

    return begin_to_speak(conn, fd, &(struct pieces){&one, 1, readable}, failed);
}

/* Finds out which of the N bytes at BUF can be read. Of a few bytes it asks for the first and
 * the last at once, as one question often does for both. */
ALWAYS_INLINE void look_for_bytes(struct send *send, const void *buf, size_t n)
{
    send->all = send->first = n > 0 && usermem_all_certain(buf, n, (uintptr_t)send);
    if (__builtin_expect(send->all, 1))
        return;
    send->all = n <= FEW && usermem_ends_readable(buf, n, 1);
    send->first = send->all || (n > FEW && usermem_ends_readable(buf, 1, 1));
}

/* send_get() for N bytes at BUF, which may be a quit. Sets *RESULT to 0 when the real call is
 * next, else to the result of the hook. */
ALWAYS_INLINE struct conn *send_get_bytes(struct send *send, struct conn *conn, int fd,
                                          const void *buf, size_t n, ssize_t *result)
{
    bool failed = false;

    look_for_bytes(send, buf, n);
    *result = (ssize_t)n;
    if (__builtin_expect(wire_quit_has_length(n), 0) && send->all && wire_may_be_quit(buf, n) &&
        quit_intercept(fd, conn_id(conn), buf, n))
        return NULL;
    *result = 0;
    if (!conn_begin(conn, fd, CONN_CALL_SEND))
        return NULL;
    if (__builtin_expect(!guess_is_past(conn), 0)) {
        conn = begin_with_bytes(conn, fd, buf, n, send->first, &failed);
        *result = failed ? -1 : 0;
    }
    return conn;
}

/* The real call, with FLAGS, is next. What it sends was parsed (pool/sending.h). */
static inline void send_guard(io_guard_t *guard, struct conn *conn, int flags)
{
    io_guard(guard, conn, CONN_CALL_SEND, flags & UNTRACKABLE);
}

/* Whether the call sent some bytes, but not all that were parsed: the part that was sent must
 * be parsed again, alone. */
static inline bool send_was_partial(const struct send *send, ssize_t moved)
{
    return moved > 0 && !sending_is(&send->sending, (size_t)moved);
}

/* A user that has sent so often on a connection gains nothing from a pool: opening one costs it
 * a thousandth. So its calls are plain ones from then on. */
#define LONG_USE 4096

/* Counts in steps, so that threads seldom change what they share. */
COLD static void count_sends(struct conn *conn)
{
    conn->sends_left = STATS_SENDS;
    conn->sends += STATS_SENDS;
    stats_add(&conn->endpoint->stats->sends, STATS_SENDS);
    if (conn->sends - conn->sends_before >= LONG_USE)
        conn_refuse(conn, REASON_LONG_USE);
}

static inline void count_send(struct conn *conn)
{
    if (--conn->sends_left == 0)
        count_sends(conn);
}

/* The part that was sent was parsed again. It differs from what was sent only if the program
 * changed its memory during the call. */
static void check_partial(const struct send *send, struct conn *conn, ssize_t moved)
{
    if (!sending_is(&send->sending, (size_t)moved))
        conn_refuse(conn, REASON_UNTRACKED_IO);
}

/* Accounts MOVED bytes, all that were parsed last. */
ALWAYS_INLINE void account_sent(struct send *send, struct conn *conn, size_t moved)
{
    if (!io_account_begin(conn, CONN_CALL_SEND, moved))
        return;
    sending_commit(&send->sending, &conn->wire);
    count_send(conn);
    conn_unlock(conn);
}

/* The real call has sent MOVED bytes; -1 if it failed. */
ALWAYS_INLINE void send_end(struct send *send, io_guard_t *guard, struct conn *conn,
                            ssize_t moved)
{
    if (moved > 0)
        account_sent(send, conn, (size_t)moved);
    io_end(guard, conn, CONN_CALL_SEND, moved);
}

/* The same for the bytes at BUF. */
ALWAYS_INLINE void send_end_bytes(struct send *send, io_guard_t *guard, struct conn *conn,
                                  const void *buf, ssize_t moved)
{
    if (__builtin_expect(send_was_partial(send, moved), 0)) {
        sending_look_at_bytes(&send->sending, &conn->wire, buf, false, (size_t)moved);
        check_partial(send, conn, moved);
    }
    send_end(send, guard, conn, moved);
}

/* The commonest case by far is a `get` of one key on a connection that is settled
 * (wire/lone.h). It needs neither the struct send nor its many branches. */

/* Whether the next byte on CONN, which is not the first one that it carries, finds CONN as it
 * should be: it speaks TEXT as those with the same kind of socket did before. It is noted that
 * the user has sent something. Otherwise begin_to_speak() has work. */
ALWAYS_INLINE bool is_as_guessed(struct conn *conn)
{
    if (guess_is_past(conn))
        return true;
    if (!guess_was_text(conn))
        return false;
    atomic_store_explicit(&conn->has_sent, true, memory_order_relaxed);
    return true;
}

/* Begins a call on CONN, at FD, for the N bytes at BUF, and registers GUARD. False, and nothing
 * is begun, if they are for another function: they are no lone `get`, or CONN is not prepared
 * for one. ODD: the call has flags for which they are not looked at. */
ALWAYS_INLINE bool lone_begin(io_guard_t *guard, struct conn *conn, int fd, const void *buf,
                              size_t n, bool odd)
{
    _Static_assert(WIRE_LONE_KEY < USERMEM_FEW / 2, "a lone get has few bytes");
    if (odd || !usermem_few_certain(buf, (uintptr_t)guard) || !lone_is_get(buf, n) ||
        !conn_begin(conn, fd, CONN_CALL_SEND))
        return false;
    if (!lone_may_begin(&conn->wire) || !is_as_guessed(conn)) {
        conn_put(conn, CONN_CALL_SEND);
        return false;
    }
    lone_keep_key(&conn->wire, &conn->lone_key, buf, n);
    io_guard(guard, conn, CONN_CALL_SEND, false);
    return true;
}

/* The real call has sent MOVED of the N bytes at BUF, not all of them. */
static __attribute__((noinline)) void lone_end_partial(struct conn *conn, const void *buf,
                                                       ssize_t moved)
{
    struct send send;

    if (moved > 0) {
        sending_look_at_bytes(&send.sending, &conn->wire, buf, false, (size_t)moved);
        check_partial(&send, conn, moved);
        account_sent(&send, conn, (size_t)moved);
    } else {
        life_note_failure(conn, moved);
    }
}

/* The real call has sent MOVED of the N bytes at BUF; -1 if it failed. Another thread may have
 * refused the connection meanwhile: then what is noted here is never asked for. */
ALWAYS_INLINE void lone_end(io_guard_t *guard, struct conn *conn, const void *buf, size_t n,
                            ssize_t moved)
{
    if (__builtin_expect(moved != (ssize_t)n, 0)) {
        lone_end_partial(conn, buf, moved);
    } else if (__builtin_expect(conn_trylock(conn), 1)) {
        conn->sent += n;
        lone_sent(&conn->wire);
        count_send(conn);
        conn_unlock(conn);
    }
    _pthread_cleanup_pop(guard, 0);
    conn_put(conn, CONN_CALL_SEND);
}

TRACKED ssize_t detailed_write(int fd, const void *buf, size_t n, struct conn *conn)
{
    struct send send;
    io_guard_t guard;
    ssize_t moved;

    conn = send_get_bytes(&send, conn, fd, buf, n, &moved);
    if (!conn)
        return moved != 0 ? moved : real_write(fd, buf, n);
    send_guard(&guard, conn, 0);
    sending_look(&send.sending, &conn->wire, buf, n, send.first, send.all);
    moved = real_write(fd, buf, n);
    send_end_bytes(&send, &guard, conn, buf, moved);
    return moved;
}

TRACKED ssize_t tracked_write(int fd, const void *buf, size_t n, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (__builtin_expect(!lone_begin(&guard, conn, fd, buf, n, false), 0))
        return detailed_write(fd, buf, n, conn);
    moved = real_write(fd, buf, n);
    lone_end(&guard, conn, buf, n, moved);
    return moved;
}

HOOKED ssize_t write(int fd, const void *buf, size_t n)
{
    struct conn *conn = conn_to_send(fd);

    if (!conn)
        return real_write(fd, buf, n);
    return lone_may_begin(&conn->wire) ? tracked_write(fd, buf, n, conn)
                                       : detailed_write(fd, buf, n, conn);
}
HOOKED_ALIAS(__write, write);

TRACKED ssize_t detailed_send(int fd, const void *buf, size_t n, int flags, struct conn *conn)
{
    struct send send;
    io_guard_t guard;
    ssize_t moved;

    conn = send_get_bytes(&send, conn, fd, buf, n, &moved);
    if (!conn)
        return moved != 0 ? moved : real_send(fd, buf, n, flags);
    send_guard(&guard, conn, flags);
    sending_look(&send.sending, &conn->wire, buf, n, send.first, send.all);
    moved = real_send(fd, buf, n, flags);
    send_end_bytes(&send, &guard, conn, buf, moved);
    return moved;
}

TRACKED ssize_t tracked_send(int fd, const void *buf, size_t n, int flags, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (__builtin_expect(!lone_begin(&guard, conn, fd, buf, n, flags & UNTRACKABLE), 0))
        return detailed_send(fd, buf, n, flags, conn);
    moved = real_send(fd, buf, n, flags);
    lone_end(&guard, conn, buf, n, moved);
    return moved;
}

HOOKED ssize_t send(int fd, const void *buf, size_t n, int flags)
{
    struct conn *conn = conn_to_send(fd);

    if (!conn)
        return real_send(fd, buf, n, flags);
    return lone_may_begin(&conn->wire) ? tracked_send(fd, buf, n, flags, conn)
                                       : detailed_send(fd, buf, n, flags, conn);
}
HOOKED_ALIAS(__send, send);

TRACKED ssize_t detailed_sendto(int fd, const void *buf, size_t n, int flags,
                                const struct sockaddr *to, socklen_t len, struct conn *conn)
{
    struct send send;
    io_guard_t guard;
    ssize_t moved;

    conn = send_get_bytes(&send, conn, fd, buf, n, &moved);
    if (!conn)
        return moved != 0 ? moved : real_sendto(fd, buf, n, flags, to, len);
    send_guard(&guard, conn, flags);
    sending_look(&send.sending, &conn->wire, buf, n, send.first, send.all);
    moved = real_sendto(fd, buf, n, flags, to, len);
    send_end_bytes(&send, &guard, conn, buf, moved);
    return moved;
}

TRACKED ssize_t tracked_sendto(int fd, const void *buf, size_t n, int flags,
                               const struct sockaddr *to, socklen_t len, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (__builtin_expect(!lone_begin(&guard, conn, fd, buf, n, flags & UNTRACKABLE), 0))
        return detailed_sendto(fd, buf, n, flags, to, len, conn);
    moved = real_sendto(fd, buf, n, flags, to, len);
    lone_end(&guard, conn, buf, n, moved);
    return moved;
}

HOOKED ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *to,
                      socklen_t len)
{
    struct conn *conn = conn_to_send(fd);

    if (!conn)
        return real_sendto(fd, buf, n, flags, to, len);
    return lone_may_begin(&conn->wire) ? tracked_sendto(fd, buf, n, flags, to, len, conn)
                                       : detailed_sendto(fd, buf, n, flags, to, len, conn);
}

TRACKED ssize_t tracked_writev(int fd, const struct iovec *iov, int count, struct conn *conn)
{
    size_t n = count > 0 ? (size_t)count : 0;
    struct pieces pieces = {iov, n, false};
    struct send send;
    io_guard_t guard;
    ssize_t moved;
    bool failed;

    conn = send_get(conn, fd, &pieces, &failed);
    if (!conn)
        return failed ? -1 : real_writev(fd, iov, count);
    send_guard(&guard, conn, 0);
    sending_look_at_pieces(&send.sending, &conn->wire, iov, n, SIZE_MAX);
    moved = real_writev(fd, iov, count);
    if (send_was_partial(&send, moved)) {
        sending_look_at_pieces(&send.sending, &conn->wire, iov, n, (size_t)moved);
        check_partial(&send, conn, moved);
    }
    send_end(&send, &guard, conn, moved);
    return moved;
}

HOOKED ssize_t writev(int fd, const struct iovec *iov, int count)
{
    struct conn *conn = conn_to_send(fd);

    if (!conn)
        return real_writev(fd, iov, count);
    return tracked_writev(fd, iov, count, conn);
}

/* The pieces of MSG. None when MSG cannot be read: the real call fails with EFAULT then. */
static struct pieces pieces_of(const struct msghdr *msg)
{
    if (!usermem_readable(msg, sizeof(*msg)))
        return (struct pieces){NULL, 0, false};
    return (struct pieces){msg->msg_iov, msg->msg_iovlen, false};
}

TRACKED ssize_t tracked_sendmsg(int fd, const struct msghdr *msg, int flags, struct conn *conn)
{
    struct pieces pieces = pieces_of(msg);
    struct send send;
    io_guard_t guard;
    ssize_t moved;
    bool failed;

    conn = send_get(conn, fd, &pieces, &failed);
    if (!conn)
        return failed ? -1 : real_sendmsg(fd, msg, flags);
    send_guard(&guard, conn, flags);
    sending_look_at_messages(&send.sending, &conn->wire, msg, sizeof(*msg), 1, SIZE_MAX);
    moved = real_sendmsg(fd, msg, flags);
    if (send_was_partial(&send, moved)) {
        sending_look_at_messages(&send.sending, &conn->wire, msg, sizeof(*msg), 1,
                                 (size_t)moved);
        check_partial(&send, conn, moved);
    }
    send_end(&send, &guard, conn, moved);
    return moved;
}

HOOKED ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    struct conn *conn = conn_to_send(fd);
    struct passing passing;
    ssize_t moved;

    passing_begin(msg, 0, 1, &passing);
    moved = conn ? tracked_sendmsg(fd, msg, flags, conn) : real_sendmsg(fd, msg, flags);
    if (moved < 0 && errno == ETOOMANYREFS && tending_make_way())
        moved = real_sendmsg(fd, msg, flags);
    passing_end(&passing);
    return moved;
}

/* The bytes that the kernel sent of the first COUNT messages. SSIZE_MAX, which no look can
 * match, when another thread has unmapped one. */
static ssize_t bytes_sent(const struct mmsghdr *msgs, int count)
{
    ssize_t n = 0;

    for (int i = 0; i < count; i++) {
        if (!usermem_readable(&msgs[i], sizeof(msgs[i])))
            return SSIZE_MAX;
        n += msgs[i].msg_len;
    }
    return n;
}

/* The pieces of the first of COUNT messages that has a byte: a message may be empty. The kernel
 * takes IOV_MAX messages at most (UIO_MAXIOV of Linux). */
static struct pieces first_pieces(const struct mmsghdr *msgs, unsigned int count)
{
    for (unsigned int i = 0; i < count && i < IOV_MAX; i++) {
        struct pieces pieces = pieces_of(&msgs[i].msg_hdr);

        if (guess_first_byte(&pieces))
            return pieces;
    }
    return (struct pieces){NULL, 0, false};
}

TRACKED int tracked_sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags,
                             struct conn *conn)
{
    struct pieces pieces = first_pieces(msgs, count);
    struct send send;
    io_guard_t guard;
    ssize_t moved;
    bool failed;
    int sent;

    conn = send_get(conn, fd, &pieces, &failed);
    if (!conn)
        return failed ? -1 : real_sendmmsg(fd, msgs, count, flags);
    send_guard(&guard, conn, flags);
    sending_look_at_messages(&send.sending, &conn->wire, msgs, sizeof(*msgs), count, SIZE_MAX);
    sent = real_sendmmsg(fd, msgs, count, flags);
    moved = bytes_sent(msgs, sent);
    if (send_was_partial(&send, moved)) {
        sending_look_at_messages(&send.sending, &conn->wire, msgs, sizeof(*msgs), count,
                                 (size_t)moved);
        check_partial(&send, conn, moved);
    }
    send_end(&send, &guard, conn, moved);
    return sent;
}

HOOKED int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    struct conn *conn = conn_to_send(fd);
    struct passing passing;
    int moved;

    passing_begin(msgs, sizeof(*msgs), count, &passing);
    moved = conn ? tracked_sendmmsg(fd, msgs, count, flags, conn)
                 : real_sendmmsg(fd, msgs, count, flags);
    if (moved < 0 && errno == ETOOMANYREFS && tending_make_way())
        moved = real_sendmmsg(fd, msgs, count, flags);
    passing_end(&passing);
    return moved;
}
