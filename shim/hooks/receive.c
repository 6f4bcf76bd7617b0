/*
 * Hooks that receive: read(), recv() and their kind. Each makes the real call, then passes the
 * bytes that came to the wire tracker of the connection.
 */
#include "hooks/io.h"

#include "base/compiler.h"
#include "wire/lone.h"

/* MSG_OOB: the bytes are not those of the stream. MSG_TRUNC: the kernel discards them without a
 * copy (tcp(7)). */
#define UNTRACKABLE (MSG_OOB | MSG_TRUNC)

/* Flags with which a call takes no bytes off the stream. */
#define TAKES_NOTHING (MSG_PEEK | MSG_ERRQUEUE)

/* MOVED bytes came to BYTES. The caller has conn_trylock(). */
static __attribute__((noinline)) void account_bytes(struct conn *conn, const void *bytes,
                                                    size_t moved)
{
    if (!io_is_accounted(conn))
        return;
    conn->received += moved;
    wire_received(&conn->wire, bytes, moved);
}

/* The real call, with FLAGS, is next; then one of the receive_end functions. */
static inline void receive_guard(io_guard_t *guard, struct conn *conn, int flags)
{
    io_guard(guard, conn, CONN_CALL_RECEIVE, flags & UNTRACKABLE);
}

/* A call with these FLAGS has moved bytes that are not looked at, or has failed. */
COLD static void end_unread(struct conn *conn, ssize_t moved, int flags)
{
    if (flags & UNTRACKABLE)
        conn_refuse(conn, REASON_UNTRACKED_IO);
    if (moved <= 0)
        life_note_failure(conn, moved);
}

/* The real call has put MOVED bytes at BYTES; -1 if it failed. Nearly always they are the reply
 * to a lone `get` (wire/lone.h), on a connection of which nothing else need be asked. */
ALWAYS_INLINE void receive_end(io_guard_t *guard, struct conn *conn, const void *bytes,
                               ssize_t moved, int flags)
{
    if (__builtin_expect(moved <= 0 || flags & (TAKES_NOTHING | UNTRACKABLE), 0)) {
        end_unread(conn, moved, flags);
    } else if (__builtin_expect(conn_trylock(conn), 1)) {
        if (__builtin_expect(lone_received(&conn->wire, &conn->lone_key, bytes, (size_t)moved),
                             1))
            conn->received += (size_t)moved;
        else
            account_bytes(conn, bytes, (size_t)moved);
        conn_unlock(conn);
    }
    _pthread_cleanup_pop(guard, 0);
    conn_put(conn, CONN_CALL_RECEIVE);
}

static void account_iov(struct conn *conn, const struct iovec *iov, size_t count, size_t moved)
{
    if (!io_account_begin(conn, CONN_CALL_RECEIVE, moved))
        return;
    for (size_t i = 0; i < count && moved > 0; i++) {
        size_t n = iov[i].iov_len < moved ? iov[i].iov_len : moved;

        wire_received(&conn->wire, iov[i].iov_base, n);
        moved -= n;
    }
    conn_unlock(conn);
}

/* The real call has put MOVED bytes into the COUNT buffers at IOV; -1 if it failed. */
static inline void receive_end_iov(io_guard_t *guard, struct conn *conn,
                                   const struct iovec *iov, size_t count, ssize_t moved)
{
    if (moved > 0)
        account_iov(conn, iov, count, (size_t)moved);
    io_end(guard, conn, CONN_CALL_RECEIVE, moved);
}

/* The same for the buffers of MSG. MSG may be unreadable when nothing moved. */
static inline void receive_end_message(io_guard_t *guard, struct conn *conn,
                                       const struct msghdr *msg, ssize_t moved, int flags)
{
    if (!(flags & TAKES_NOTHING) && moved > 0)
        account_iov(conn, msg->msg_iov, msg->msg_iovlen, (size_t)moved);
    io_end(guard, conn, CONN_CALL_RECEIVE, moved);
}

/* The same for COUNT messages; -1 if the call failed. */
static inline void receive_end_messages(io_guard_t *guard, struct conn *conn,
                                        const struct mmsghdr *msgs, int count, int flags)
{
    for (int i = 0; i < count && !(flags & TAKES_NOTHING); i++)
        account_iov(conn, msgs[i].msg_hdr.msg_iov, msgs[i].msg_hdr.msg_iovlen, msgs[i].msg_len);
    io_end(guard, conn, CONN_CALL_RECEIVE, count > 0 && msgs[0].msg_len == 0 ? 0 : count);
}

TRACKED ssize_t tracked_read(int fd, void *buf, size_t n, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_read(fd, buf, n);
    receive_guard(&guard, conn, 0);
    moved = real_read(fd, buf, n);
    receive_end(&guard, conn, buf, moved, 0);
    return moved;
}

HOOKED ssize_t read(int fd, void *buf, size_t n)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real_read(fd, buf, n);
    return tracked_read(fd, buf, n, conn);
}
HOOKED_ALIAS(__read, read);

TRACKED ssize_t tracked___read_chk(int fd, void *buf, size_t n, size_t room, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real___read_chk(fd, buf, n, room);
    receive_guard(&guard, conn, 0);
    moved = real___read_chk(fd, buf, n, room);
    receive_end(&guard, conn, buf, moved, 0);
    return moved;
}

HOOKED ssize_t __read_chk(int fd, void *buf, size_t n, size_t room)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real___read_chk(fd, buf, n, room);
    return tracked___read_chk(fd, buf, n, room, conn);
}

TRACKED ssize_t tracked_readv(int fd, const struct iovec *iov, int count, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_readv(fd, iov, count);
    receive_guard(&guard, conn, 0);
    moved = real_readv(fd, iov, count);
    receive_end_iov(&guard, conn, iov, (size_t)count, moved);
    return moved;
}

HOOKED ssize_t readv(int fd, const struct iovec *iov, int count)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real_readv(fd, iov, count);
    return tracked_readv(fd, iov, count, conn);
}

TRACKED ssize_t tracked_recv(int fd, void *buf, size_t n, int flags, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recv(fd, buf, n, flags);
    receive_guard(&guard, conn, 0);
    moved = real_recv(fd, buf, n, flags);
    receive_end(&guard, conn, buf, moved, flags);
    return moved;
}

HOOKED ssize_t recv(int fd, void *buf, size_t n, int flags)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real_recv(fd, buf, n, flags);
    return tracked_recv(fd, buf, n, flags, conn);
}

TRACKED ssize_t tracked___recv_chk(int fd, void *buf, size_t n, size_t room, int flags,
                                   struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real___recv_chk(fd, buf, n, room, flags);
    receive_guard(&guard, conn, 0);
    moved = real___recv_chk(fd, buf, n, room, flags);
    receive_end(&guard, conn, buf, moved, flags);
    return moved;
}

HOOKED ssize_t __recv_chk(int fd, void *buf, size_t n, size_t room, int flags)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real___recv_chk(fd, buf, n, room, flags);
    return tracked___recv_chk(fd, buf, n, room, flags, conn);
}

TRACKED ssize_t tracked_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *from,
                                 socklen_t *len, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recvfrom(fd, buf, n, flags, from, len);
    receive_guard(&guard, conn, 0);
    moved = real_recvfrom(fd, buf, n, flags, from, len);
    receive_end(&guard, conn, buf, moved, flags);
    return moved;
}

HOOKED ssize_t recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *from,
                        socklen_t *len)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real_recvfrom(fd, buf, n, flags, from, len);
    return tracked_recvfrom(fd, buf, n, flags, from, len, conn);
}

TRACKED ssize_t tracked___recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
                                       struct sockaddr *from, socklen_t *len, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    receive_guard(&guard, conn, 0);
    moved = real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    receive_end(&guard, conn, buf, moved, flags);
    return moved;
}

HOOKED ssize_t __recvfrom_chk(int fd, void *buf, size_t n, size_t room, int flags,
                              struct sockaddr *from, socklen_t *len)
{
    struct conn *conn = io_conn(fd);

    if (!conn)
        return real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    return tracked___recvfrom_chk(fd, buf, n, room, flags, from, len, conn);
}

TRACKED ssize_t tracked_recvmsg(int fd, struct msghdr *msg, int flags, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recvmsg(fd, msg, flags);
    receive_guard(&guard, conn, flags);
    moved = real_recvmsg(fd, msg, flags);
    receive_end_message(&guard, conn, msg, moved, flags);
    return moved;
}

HOOKED ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    struct conn *conn = io_conn(fd);
    ssize_t moved = conn ? tracked_recvmsg(fd, msg, flags, conn) : real_recvmsg(fd, msg, flags);

    if (moved >= 0 && msg->msg_controllen > 0)
        passing_received(msg);
    return moved;
}

TRACKED int tracked_recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags,
                             struct timespec *timeout, struct conn *conn)
{
    io_guard_t guard;
    int moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recvmmsg(fd, msgs, count, flags, timeout);
    receive_guard(&guard, conn, flags);
    moved = real_recvmmsg(fd, msgs, count, flags, timeout);
    receive_end_messages(&guard, conn, msgs, moved, flags);
    return moved;
}

HOOKED int recvmmsg(int fd, struct mmsghdr *msgs, unsigned int count, int flags,
                    struct timespec *timeout)
{
    struct conn *conn = io_conn(fd);
    int moved = conn ? tracked_recvmmsg(fd, msgs, count, flags, timeout, conn)
                     : real_recvmmsg(fd, msgs, count, flags, timeout);

    for (int i = 0; i < moved; i++) {
        if (msgs[i].msg_hdr.msg_controllen > 0)
            passing_received(&msgs[i].msg_hdr);
    }
    return moved;
}
