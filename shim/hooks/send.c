/*
 * Calls that move bytes. Each has three parts: what is about to be sent is parsed, the real
 * call is made, and what moved goes to the connection's account and its wire tracker.
 *
 * A hook asks whether its fd is tracked and leaves the rest to tracked_NAME(), a function of
 * its own, so that a call on another fd needs no frame.
 */
#include "hooks/hooks.h"

#include <stdint.h>

#include "base/compiler.h"
#include "pool/quit.h"
#include "pool/swap.h"
#include "base/usermem.h"
#include "pool/sending.h"
#include "base/unwind.h"

/* The part of a hook that is for tracked fds. */
#define TRACKED static __attribute__((noinline))

/* A call on a connection, from before the real call until its bytes are accounted. */
struct io {
    struct conn *conn; /* NULL: there is nothing to account */
    enum conn_call kind;
    struct _pthread_cleanup_buffer cleanup;
};

/* The same for a call that sends. */
struct send {
    struct io io;
    struct sending sending;
    bool readable; /* see sending_look() */
};

/* Flags under which the bytes given or wanted are not the bytes of the stream that moved. */
#define SEND_ODDLY    (MSG_OOB | MSG_FASTOPEN | MSG_ZEROCOPY)
#define RECEIVE_ODDLY (MSG_OOB | MSG_TRUNC)
#define MOVES_NOTHING (MSG_PEEK | MSG_ERRQUEUE)

/* A connection that is refused needs no account. */
static void leave_refused(struct io *io)
{
    if (io->conn && conn_refusal(io->conn) != REASON_NONE) {
        conn_put(io->conn, io->kind);
        io->conn = NULL;
    }
}

static void enter(struct io *io, int fd, uint32_t word, enum conn_call kind)
{
    io->kind = kind;
    io->conn = conn_get_at(fd, word, kind);
    leave_refused(io);
}

/* The real call was left for good, or its bytes are not accounted: what moved is unknown. */
static void abandoned(void *argument)
{
    struct io *io = argument;

    conn_refuse(io->conn, REASON_UNTRACKED_IO);
    conn_put(io->conn, io->kind);
}

/* The real call is next. From here to io_end() a thread that is cancelled, or jumps, leaves
 * nothing half done. */
static inline void io_guard(struct io *io, int flags)
{
    if (flags & (io->kind == CONN_CALL_SEND ? SEND_ODDLY : RECEIVE_ODDLY))
        conn_refuse(io->conn, REASON_UNTRACKED_IO);
    _pthread_cleanup_push(&io->cleanup, abandoned, io);
}

/* After the real call and the account of its bytes. */
static inline void io_end(struct io *io)
{
    _pthread_cleanup_pop(&io->cleanup, 0);
    conn_put(io->conn, io->kind);
}

/* Whether MOVED bytes are to be accounted; to be ended by conn_unlock(). Not those of a refused
 * connection: with odd flags the bytes need not be where they seem to be. */
static bool account_begin(struct io *io, size_t moved)
{
    struct conn *conn = io->conn;

    if (conn_state(conn) == CONN_FRESH)
        conn_refuse(conn, REASON_UNTRACKED_IO);
    if (conn_refusal(conn) != REASON_NONE || !conn_trylock(conn))
        return false;
    if (io->kind == CONN_CALL_SEND)
        conn->sent += moved;
    else
        conn->received += moved;
    return true;
}

/* Receiving. */

/* Begins a receive on FD, of which the map has said WORD. False when there is nothing to
 * account: the real call is all there is to do. Otherwise one of the io_received functions ends
 * it. */
static inline bool io_begin_receive(struct io *io, int fd, uint32_t word, int flags)
{
    enter(io, fd, word, CONN_CALL_RECEIVE);
    if (!io->conn)
        return false;
    io_guard(io, flags);
    return true;
}

/* MOVED bytes came, to BYTES. */
static inline void io_received(struct io *io, const void *bytes, ssize_t moved, int flags)
{
    if (!(flags & MOVES_NOTHING) && moved > 0 && account_begin(io, (size_t)moved)) {
        wire_received(&io->conn->wire, bytes, (size_t)moved);
        conn_unlock(io->conn);
    }
    io_end(io);
}

static void account_iov(struct io *io, const struct iovec *iov, size_t count, size_t moved)
{
    if (!account_begin(io, moved))
        return;
    for (size_t i = 0; i < count && moved > 0; i++) {
        size_t n = iov[i].iov_len < moved ? iov[i].iov_len : moved;

        wire_received(&io->conn->wire, iov[i].iov_base, n);
        moved -= n;
    }
    conn_unlock(io->conn);
}

/* MOVED bytes came, to the COUNT buffers at IOV. */
static inline void io_received_iov(struct io *io, const struct iovec *iov, size_t count,
                                   ssize_t moved)
{
    if (moved > 0)
        account_iov(io, iov, count, (size_t)moved);
    io_end(io);
}

/* The same, to the buffers of MSG, which need not be readable when nothing moved. */
static inline void io_received_message(struct io *io, const struct msghdr *msg, ssize_t moved,
                                       int flags)
{
    if (!(flags & MOVES_NOTHING) && moved > 0)
        account_iov(io, msg->msg_iov, msg->msg_iovlen, (size_t)moved);
    io_end(io);
}

/* COUNT messages came. */
static inline void io_received_messages(struct io *io, const struct mmsghdr *msgs, int count,
                                        int flags)
{
    for (int i = 0; i < count && !(flags & MOVES_NOTHING); i++)
        account_iov(io, msgs[i].msg_hdr.msg_iov, msgs[i].msg_hdr.msg_iovlen, msgs[i].msg_len);
    io_end(io);
}

TRACKED ssize_t tracked_read(int fd, uint32_t word, void *buf, size_t n)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, 0))
        return real_read(fd, buf, n);
    moved = real_read(fd, buf, n);
    io_received(&io, buf, moved, 0);
    return moved;
}

HOOKED ssize_t read(int fd, void *buf, size_t n)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_read(fd, buf, n);
    return tracked_read(fd, word, buf, n);
}
HOOKED_ALIAS(__read, read);

TRACKED ssize_t tracked___read_chk(int fd, uint32_t word, void *buf, size_t n, size_t room)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, 0))
        return real___read_chk(fd, buf, n, room);
    moved = real___read_chk(fd, buf, n, room);
    io_received(&io, buf, moved, 0);
    return moved;
}

HOOKED ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real___read_chk(fd, buf, n, room);
    return tracked___read_chk(fd, word, buf, n, room);
}

TRACKED ssize_t tracked_readv(int fd, uint32_t word, const struct iovec *iov, int count)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, 0))
        return real_readv(fd, iov, count);
    moved = real_readv(fd, iov, count);
    io_received_iov(&io, iov, (size_t)count, moved);
    return moved;
}

HOOKED ssize_t readv(int fd, const struct iovec *iov, int count)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_readv(fd, iov, count);
    return tracked_readv(fd, word, iov, count);
}

TRACKED ssize_t tracked_recv(int fd, uint32_t word, void *buf, size_t n, int flags)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, flags))
        return real_recv(fd, buf, n, flags);
    moved = real_recv(fd, buf, n, flags);
    io_received(&io, buf, moved, flags);
    return moved;
}

HOOKED ssize_t recv(int fd, void *buf, size_t n, int flags)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_recv(fd, buf, n, flags);
    return tracked_recv(fd, word, buf, n, flags);
}

TRACKED ssize_t tracked___recv_chk(int fd, uint32_t word, void *buf, size_t n, size_t room,
                                   int flags)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, flags))
        return real___recv_chk(fd, buf, n, room, flags);
    moved = real___recv_chk(fd, buf, n, room, flags);
    io_received(&io, buf, moved, flags);
    return moved;
}

HOOKED ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real___recv_chk(fd, buf, n, room, flags);
    return tracked___recv_chk(fd, word, buf, n, room, flags);
}

TRACKED ssize_t tracked_recvfrom(int fd, uint32_t word, void *buf, size_t n, int flags,
                                 struct sockaddr *from, socklen_t *len)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, flags))
        return real_recvfrom(fd, buf, n, flags, from, len);
    moved = real_recvfrom(fd, buf, n, flags, from, len);
    io_received(&io, buf, moved, flags);
    return moved;
}

HOOKED ssize_t recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *from,
                        socklen_t *len)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_recvfrom(fd, buf, n, flags, from, len);
    return tracked_recvfrom(fd, word, buf, n, flags, from, len);
}

TRACKED ssize_t tracked___recvfrom_chk(int fd, uint32_t word, void *buf, size_t n, size_t room,
                                       int flags, struct sockaddr *from, socklen_t *len)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, flags))
        return real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    moved = real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    io_received(&io, buf, moved, flags);
    return moved;
}

HOOKED ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
                              struct sockaddr *from, socklen_t *len)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    return tracked___recvfrom_chk(fd, word, buf, n, room, flags, from, len);
}

TRACKED ssize_t tracked_recvmsg(int fd, uint32_t word, struct msghdr *msg, int flags)
{
    struct io io;
    ssize_t moved;

    if (!io_begin_receive(&io, fd, word, flags))
        return real_recvmsg(fd, msg, flags);
    moved = real_recvmsg(fd, msg, flags);
    io_received_message(&io, msg, moved, flags);
    return moved;
}

HOOKED ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    uint32_t word = fdmap_word(fd);
    ssize_t moved =
        UNTRACKED(word) ? real_recvmsg(fd, msg, flags) : tracked_recvmsg(fd, word, msg, flags);

    if (moved >= 0 && msg->msg_controllen > 0)
        track_received(msg);
    return moved;
}

TRACKED int tracked_recvmmsg(int fd, uint32_t word, struct mmsghdr *msgs, unsigned int count,
                             int flags, struct timespec *timeout)
{
    struct io io;
    int moved;

    if (!io_begin_receive(&io, fd, word, flags))
        return real_recvmmsg(fd, msgs, count, flags, timeout);
    moved = real_recvmmsg(fd, msgs, count, flags, timeout);
    io_received_messages(&io, msgs, moved, flags);
    return moved;
}

HOOKED int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags,
                    struct timespec *timeout)
{
    uint32_t word = fdmap_word(fd);
    int moved = UNTRACKED(word) ? real_recvmmsg(fd, msgs, count, flags, timeout)
                                : tracked_recvmmsg(fd, word, msgs, count, flags, timeout);

    for (int i = 0; i < moved; i++) {
        if (msgs[i].msg_hdr.msg_controllen > 0)
            track_received(&msgs[i].msg_hdr);
    }
    return moved;
}

/* Sending. */

/* Gets the connection at FD, on which PIECES are about to be sent. False, with errno set, when
 * they must not be. */
static bool send_enter(struct send *send, int fd, uint32_t word, const struct pieces *pieces)
{
    struct io *io = &send->io;

    io->kind = CONN_CALL_SEND;
    io->conn = conn_get_at(fd, word, CONN_CALL_SEND);
    if (!io->conn || guess_fits(io->conn, pieces)) {
        leave_refused(io);
        return true;
    }
    conn_put(io->conn, io->kind);
    if (!swap_to_fit(fd, pieces))
        return false;
    enter(io, fd, fdmap_word(fd), CONN_CALL_SEND);
    return true;
}

/* The same for N bytes at BUF, which may be a quit. Whether the first and the last of a few
 * can be read is asked at once. Returns 0 when the call is to be made, otherwise its result. */
static inline ssize_t send_enter_bytes(struct send *send, int fd, uint32_t word,
                                       const void *buf, size_t n)
{
    struct iovec one = {(void *)buf, n};
    bool readable = usermem_ends_readable(buf, n <= WIRE_ONE_GET_MAX ? n : 1, 1);

    if (n <= QUIT_LONGEST && readable && wire_may_be_quit(buf, n) &&
        quit_intercept(fd, word, buf, n))
        return (ssize_t)n;
    send->readable = readable;
    return send_enter(send, fd, word, &(struct pieces){&one, 1, readable}) ? 0 : -1;
}

/* Begins to send. False when there is nothing to account: the real call is all there is to do.
 * Otherwise send_end() ends it. What is sent is looked at in between. */
static inline bool send_begin(struct send *send, int flags)
{
    if (!send->io.conn)
        return false;
    io_guard(&send->io, flags);
    return true;
}

/* Whether MOVED bytes were sent, but not all that were looked at: then they are looked at. */
static inline bool send_was_partial(const struct send *send, ssize_t moved)
{
    return moved > 0 && !sending_is(&send->sending, (size_t)moved);
}

/* What was sent goes to the account. Only where memory changed while it was sent can it differ
 * from what a second look found. */
static void account_sent(struct send *send, size_t moved)
{
    struct io *io = &send->io;

    if (!sending_is(&send->sending, moved))
        conn_refuse(io->conn, REASON_UNTRACKED_IO);
    if (!account_begin(io, moved))
        return;
    sending_commit(&send->sending, &io->conn->wire);
    conn_unlock(io->conn);
}

static inline void send_end(struct send *send, ssize_t moved)
{
    if (moved > 0)
        account_sent(send, (size_t)moved);
    io_end(&send->io);
}

/* send_begin() and send_end() for the N bytes at BUF. */
static inline bool send_begin_bytes(struct send *send, const void *buf, size_t n, int flags)
{
    if (!send_begin(send, flags))
        return false;
    sending_look(&send->sending, &send->io.conn->wire, buf, n, send->readable);
    return true;
}

static inline void send_end_bytes(struct send *send, const void *buf, ssize_t moved)
{
    if (send_was_partial(send, moved))
        sending_look_at_bytes(&send->sending, &send->io.conn->wire, buf, false, (size_t)moved);
    send_end(send, moved);
}

TRACKED ssize_t tracked_write(int fd, uint32_t word, const void *buf, size_t n)
{
    struct send send;
    ssize_t moved = send_enter_bytes(&send, fd, word, buf, n);

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
    ssize_t moved = send_enter_bytes(&send, fd, word, buf, n);

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
    ssize_t moved = send_enter_bytes(&send, fd, word, buf, n);

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

    if (!send_enter(&send, fd, word, &pieces))
        return -1;
    if (!send_begin(&send, 0))
        return real_writev(fd, iov, count);
    sending_look_at_pieces(&send.sending, &send.io.conn->wire, iov, n, SIZE_MAX);
    moved = real_writev(fd, iov, count);
    if (send_was_partial(&send, moved))
        sending_look_at_pieces(&send.sending, &send.io.conn->wire, iov, n, (size_t)moved);
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

/* What a message holds, nothing when it cannot be read. */
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

    if (!send_enter(&send, fd, word, &pieces))
        return -1;
    if (!send_begin(&send, flags))
        return real_sendmsg(fd, msg, flags);
    sending_look_at_messages(&send.sending, &send.io.conn->wire, msg, sizeof(*msg), 1,
                             SIZE_MAX);
    moved = real_sendmsg(fd, msg, flags);
    if (send_was_partial(&send, moved))
        sending_look_at_messages(&send.sending, &send.io.conn->wire, msg, sizeof(*msg), 1,
                                 (size_t)moved);
    send_end(&send, moved);
    return moved;
}

HOOKED ssize_t sendmsg(int fd, const struct msghdr *msg, int flags)
{
    uint32_t word = fdmap_word(fd);
    struct track_passed passed;
    ssize_t moved;

    track_passing(msg, 0, 1, &passed);
    moved =
        UNTRACKED(word) ? real_sendmsg(fd, msg, flags) : tracked_sendmsg(fd, word, msg, flags);
    track_passed(&passed);
    return moved;
}

/* How many bytes of COUNT messages were sent; more than there are when that is not known. */
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

    if (!send_enter(&send, fd, word, &pieces))
        return -1;
    if (!send_begin(&send, flags))
        return real_sendmmsg(fd, msgs, count, flags);
    sending_look_at_messages(&send.sending, &send.io.conn->wire, msgs, sizeof(*msgs), count,
                             SIZE_MAX);
    sent = real_sendmmsg(fd, msgs, count, flags);
    moved = bytes_sent(msgs, sent);
    if (send_was_partial(&send, moved))
        sending_look_at_messages(&send.sending, &send.io.conn->wire, msgs, sizeof(*msgs), count,
                                 (size_t)moved);
    send_end(&send, moved);
    return sent;
}

HOOKED int sendmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags)
{
    uint32_t word = fdmap_word(fd);
    struct track_passed passed;
    int moved;

    track_passing(msgs, sizeof(*msgs), count, &passed);
    moved = UNTRACKED(word) ? real_sendmmsg(fd, msgs, count, flags)
                            : tracked_sendmmsg(fd, word, msgs, count, flags);
    track_passed(&passed);
    return moved;
}
