/*
 * Hooks that send: write(), send() and their kind. Each parses what is about to be sent, makes
 * the real call, then adds to the connection's account what was sent. pool/sending.h says why
 * the bytes are parsed before the call.
 *
 * Before the first request of a reused connection is sent, a wrong guess of its protocol is put
 * right (pool/swap.h). A quit may not be sent at all (pool/quit.h).
 */
#include "hooks/io.h"

#include "base/compiler.h"
#include "base/usermem.h"
#include "conn/endpoint.h"
#include "pool/quit.h"
#include "pool/sending.h"
#include "pool/tending.h"
#include "pool/swap.h"

/* MSG_OOB: the bytes are not those of the stream. MSG_FASTOPEN: the call connects as well.
 * MSG_ZEROCOPY: the kernel reads the memory after the call. */
#define UNTRACKABLE (MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY)

/* One call that sends. */
struct send {
    struct io io;
    struct sending sending;
    bool readable; /* see sending_look() */
};

/* Gets the connection at FD, on which PIECES are about to be sent. If it does not speak their
 * protocol, another one takes its place first. False, with errno set, when there is no other:
 * the hook fails. */
static bool send_get(struct send *send, int fd, uint32_t word, const struct pieces *pieces)
{
    struct io *io = &send->io;

    io->kind = CONN_CALL_SEND;
    io->conn = conn_get_at(fd, word, CONN_CALL_SEND);
    if (!io->conn || guess_fits(io->conn, pieces)) {
        io_put_refused(io);
        return true;
    }
    conn_put(io->conn, io->kind);
    if (!swap_to_fit(fd, pieces))
        return false;
    io_get(io, fd, fdmap_word(fd), CONN_CALL_SEND);
    return true;
}

/* The same for N bytes at BUF, which may be a quit. Returns 0 when the real call is next, else
 * the result of the hook. Asks at once whether the first and the last of a few bytes can be
 * read, as one question often does for both. */
static inline ssize_t send_get_bytes(struct send *send, int fd, uint32_t word, const void *buf,
                                     size_t n)
{
    struct iovec one = {(void *)buf, n};
    bool readable = usermem_ends_readable(buf, n <= WIRE_ONE_GET_MAX ? n : 1, 1);

    if (n <= QUIT_LONGEST && readable && wire_may_be_quit(buf, n) &&
        quit_intercept(fd, word, buf, n))
        return (ssize_t)n;
    send->readable = readable;
    return send_get(send, fd, word, &(struct pieces){&one, 1, readable}) ? 0 : -1;
}

/* When false, the hook only makes the real call. When true, it parses what is about to be sent
 * (pool/sending.h), makes the real call, then calls send_end(). */
static inline bool send_begin(struct send *send, int flags)
{
    if (!send->io.conn)
        return false;
    io_guard(&send->io, flags & UNTRACKABLE);
    return true;
}

/* Whether the call sent some bytes, but not all that were parsed: the part that was sent must
 * be parsed again, alone. */
static inline bool send_was_partial(const struct send *send, ssize_t moved)
{
    return moved > 0 && !sending_is(&send->sending, (size_t)moved);
}

/* In steps, so that threads seldom change what they share. */
static inline void count_send(struct conn *conn)
{
    if (++conn->sends % STATS_SENDS == 0)
        stats_add(&conn->endpoint->stats->sends, STATS_SENDS);
}

/* The part that was sent was parsed again. It differs from what was sent only if the program
 * changed its memory during the call. */
static void check_partial(const struct send *send, ssize_t moved)
{
    if (!sending_is(&send->sending, (size_t)moved))
        conn_refuse(send->io.conn, REASON_UNTRACKED_IO);
}

/* Accounts MOVED bytes, all that were parsed last. */
static void account_sent(struct send *send, size_t moved)
{
    struct io *io = &send->io;

    if (!io_account_begin(io, moved))
        return;
    sending_commit(&send->sending, &io->conn->wire);
    count_send(io->conn);
    conn_unlock(io->conn);
}

/* The real call has sent MOVED bytes; -1 if it failed. */
static inline void send_end(struct send *send, ssize_t moved)
{
    if (moved > 0)
        account_sent(send, (size_t)moved);
    io_end(&send->io, moved);
}

/* send_begin() and the parsing of the N bytes at BUF. */
static inline bool send_begin_bytes(struct send *send, const void *buf, size_t n, int flags)
{
    if (!send_begin(send, flags))
        return false;
    sending_look(&send->sending, &send->io.conn->wire, buf, n, send->readable);
    return true;
}

/* send_end() after send_begin_bytes(). */
static inline void send_end_bytes(struct send *send, const void *buf, ssize_t moved)
{
    if (send_was_partial(send, moved)) {
        sending_look_at_bytes(&send->sending, &send->io.conn->wire, buf, false, (size_t)moved);
        check_partial(send, moved);
    }
    send_end(send, moved);
}

TRACKED ssize_t tracked_write(int fd, uint32_t word, const void *buf, size_t n)
{
    struct send send;
    ssize_t moved = send_get_bytes(&send, fd, word, buf, n);

    if (moved != 0)
        return moved;
    if (!send_begin_bytes(&send, buf, n, 0))
        return real_write(fd, buf, n);
    moved = real_write(fd, buf, n);
    send_end_bytes(&send, buf, moved);
    return moved;
}

HOOKED ssize_t write(int fd, const void *buf, size_t n)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_write(fd, buf, n);
    return tracked_write(fd, word, buf, n);
}
HOOKED_ALIAS(__write, write);

TRACKED ssize_t tracked_send(int fd, uint32_t word, const void *buf, size_t n, int flags)
{
    struct send send;
    ssize_t moved = send_get_bytes(&send, fd, word, buf, n);

    if (moved != 0)
        return moved;
    if (!send_begin_bytes(&send, buf, n, flags))
        return real_send(fd, buf, n, flags);
    moved = real_send(fd, buf, n, flags);
    send_end_bytes(&send, buf, moved);
    return moved;
}

HOOKED ssize_t send(int fd, const void *buf, size_t n, int flags)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_send(fd, buf, n, flags);
    return tracked_send(fd, word, buf, n, flags);
}
HOOKED_ALIAS(__send, send);

TRACKED ssize_t tracked_sendto(int fd, uint32_t word, const void *buf, size_t n, int flags,
                               const struct sockaddr *to, socklen_t len)
{
    struct send send;
    ssize_t moved = send_get_bytes(&send, fd, word, buf, n);

    if (moved != 0)
        return moved;
    if (!send_begin_bytes(&send, buf, n, flags))
        return real_sendto(fd, buf, n, flags, to, len);
    moved = real_sendto(fd, buf, n, flags, to, len);
    send_end_bytes(&send, buf, moved);
    return moved;
}

HOOKED ssize_t sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *to,
                      socklen_t len)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_sendto(fd, buf, n, flags, to, len);
    return tracked_sendto(fd, word, buf, n, flags, to, len);
}

TRACKED ssize_t tracked_writev(int fd, uint32_t word, const struct iovec *iov, int count)
{
    size_t n = count > 0 ? (size_t)count : 0;
    struct pieces pieces = {iov, n, false};
    struct send send;
    ssize_t moved;

    if (!send_get(&send, fd, word, &pieces))
        return -1;
    if (!send_begin(&send, 0))
        return real_writev(fd, iov, count);
    sending_look_at_pieces(&send.sending, &send.io.conn->wire, iov, n, SIZE_MAX);
    moved = real_writev(fd, iov, count);
    if (send_was_partial(&send, moved)) {
        sending_look_at_pieces(&send.sending, &send.io.conn->wire, iov, n, (size_t)moved);
        check_partial(&send, moved);
    }
    send_end(&send, moved);
    return moved;
}

HOOKED ssize_t writev(int fd, const struct iovec *iov, int count)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_writev(fd, iov, count);
    return tracked_writev(fd, word, iov, count);
}

/* The pieces of MSG. None when MSG cannot be read: the real call fails with EFAULT then. */
static struct pieces pieces_of(const struct msghdr *msg)
{
    if (!usermem_readable(msg, sizeof(*msg)))
        return (struct pieces){NULL, 0, false};
    return (struct pieces){msg->msg_iov, msg->msg_iovlen, false};
}

TRACKED ssize_t tracked_sendmsg(int fd, uint32_t word, const struct msghdr *msg, int flags)
{
    struct pieces pieces = pieces_of(msg);
    struct send send;
    ssize_t moved;

    if (!send_get(&send, fd, word, &pieces))
        return -1;
    if (!send_begin(&send, flags))
        return real_sendmsg(fd, msg, flags);
    sending_look_at_messages(&send.sending, &send.io.conn->wire, msg, sizeof(*msg), 1,
                             SIZE_MAX);
    moved = real_sendmsg(fd, msg, flags);
    if (send_was_partial(&send, moved)) {
        sending_look_at_messages(&send.sending, &send.io.conn->wire, msg, sizeof(*msg), 1,
                                 (size_t)moved);
        check_partial(&send, moved);
    }
    send_end(&send, moved);
    return moved;
}

HOOKED ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    uint32_t word = fdmap_word(fd);
    struct passing passing;
    ssize_t moved;

    passing_begin(msg, 0, 1, &passing);
    moved =
        UNTRACKED(word) ? real_sendmsg(fd, msg, flags) : tracked_sendmsg(fd, word, msg, flags);
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

TRACKED int tracked_sendmmsg(int fd, uint32_t word, struct mmsghdr *msgs, unsigned int count,
                             int flags)
{
    struct pieces pieces = count > 0 ? pieces_of(&msgs->msg_hdr) : (struct pieces){0};
    struct send send;
    ssize_t moved;
    int sent;

    if (!send_get(&send, fd, word, &pieces))
        return -1;
    if (!send_begin(&send, flags))
        return real_sendmmsg(fd, msgs, count, flags);
    sending_look_at_messages(&send.sending, &send.io.conn->wire, msgs, sizeof(*msgs), count,
                             SIZE_MAX);
    sent = real_sendmmsg(fd, msgs, count, flags);
    moved = bytes_sent(msgs, sent);
    if (send_was_partial(&send, moved)) {
        sending_look_at_messages(&send.sending, &send.io.conn->wire, msgs, sizeof(*msgs), count,
                                 (size_t)moved);
        check_partial(&send, moved);
    }
    send_end(&send, moved);
    return sent;
}

HOOKED int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    uint32_t word = fdmap_word(fd);
    struct passing passing;
    int moved;

    passing_begin(msgs, sizeof(*msgs), count, &passing);
    moved = UNTRACKED(word) ? real_sendmmsg(fd, msgs, count, flags)
                            : tracked_sendmmsg(fd, word, msgs, count, flags);
    if (moved < 0 && errno == ETOOMANYREFS && tending_make_way())
        moved = real_sendmmsg(fd, msgs, count, flags);
    passing_end(&passing);
    return moved;
}
