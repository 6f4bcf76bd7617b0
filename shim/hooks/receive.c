/*
 * Hooks that receive: read(), recv() and their kind. Each makes the real call, then passes the
 * bytes that came to the wire tracker of the connection.
 */
#include "hooks/io.h"

#include "base/compiler.h"

/* MSG_OOB: the bytes are not those of the stream. MSG_TRUNC: the kernel discards them without a
 * copy (tcp(7)). */
#define UNTRACKABLE (MSG_OOB | MSG_TRUNC)

/* Flags with which a call takes no bytes off the stream. */
#define TAKES_NOTHING (MSG_PEEK | MSG_ERRQUEUE)

/* Begins a receive on FD, for which the map has WORD. When false, the hook only makes the real
 * call. When true, it makes the real call, then one of the receive_end functions. */
static inline bool receive_begin(struct io *io, int fd, uint32_t word, int flags)
{
    io_get(io, fd, word, CONN_CALL_RECEIVE);
    if (!io->conn)
        return false;
    io_guard(io, flags & UNTRACKABLE);
    return true;
}

/* The real call has put MOVED bytes at BYTES; -1 if it failed. */
static inline void receive_end(struct io *io, const void *bytes, ssize_t moved, int flags)
{
    if (!(flags & TAKES_NOTHING) && moved > 0 && io_account_begin(io, (size_t)moved)) {
        wire_received(&io->conn->wire, bytes, (size_t)moved);
        conn_unlock(io->conn);
    }
    io_end(io, moved);
}

static void account_iov(struct io *io, const struct iovec *iov, size_t count, size_t moved)
{
    if (!io_account_begin(io, moved))
        return;
    for (size_t i = 0; i < count && moved > 0; i++) {
        size_t n = iov[i].iov_len < moved ? iov[i].iov_len : moved;

        wire_received(&io->conn->wire, iov[i].iov_base, n);
        moved -= n;
    }
    conn_unlock(io->conn);
}

/* The real call has put MOVED bytes into the COUNT buffers at IOV; -1 if it failed. */
static inline void receive_end_iov(struct io *io, const struct iovec *iov, size_t count,
                                   ssize_t moved)
{
    if (moved > 0)
        account_iov(io, iov, count, (size_t)moved);
    io_end(io, moved);
}

/* The same for the buffers of MSG. MSG may be unreadable when nothing moved. */
static inline void receive_end_message(struct io *io, const struct msghdr *msg, ssize_t moved,
                                       int flags)
{
    if (!(flags & TAKES_NOTHING) && moved > 0)
        account_iov(io, msg->msg_iov, msg->msg_iovlen, (size_t)moved);
    io_end(io, moved);
}

/* The same for COUNT messages; -1 if the call failed. */
static inline void receive_end_messages(struct io *io, const struct mmsghdr *msgs, int count,
                                        int flags)
{
    for (int i = 0; i < count && !(flags & TAKES_NOTHING); i++)
        account_iov(io, msgs[i].msg_hdr.msg_iov, msgs[i].msg_hdr.msg_iovlen, msgs[i].msg_len);
    io_end(io, count > 0 && msgs[0].msg_len == 0 ? 0 : count);
}

TRACKED ssize_t tracked_read(int fd, uint32_t word, void *buf, size_t n)
{
    struct io io;
    ssize_t moved;

    if (!receive_begin(&io, fd, word, 0))
        return real_read(fd, buf, n);
    moved = real_read(fd, buf, n);
    receive_end(&io, buf, moved, 0);
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

    if (!receive_begin(&io, fd, word, 0))
        return real___read_chk(fd, buf, n, room);
    moved = real___read_chk(fd, buf, n, room);
    receive_end(&io, buf, moved, 0);
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

    if (!receive_begin(&io, fd, word, 0))
        return real_readv(fd, iov, count);
    moved = real_readv(fd, iov, count);
    receive_end_iov(&io, iov, (size_t)count, moved);
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

    if (!receive_begin(&io, fd, word, flags))
        return real_recv(fd, buf, n, flags);
    moved = real_recv(fd, buf, n, flags);
    receive_end(&io, buf, moved, flags);
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

    if (!receive_begin(&io, fd, word, flags))
        return real___recv_chk(fd, buf, n, room, flags);
    moved = real___recv_chk(fd, buf, n, room, flags);
    receive_end(&io, buf, moved, flags);
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

    if (!receive_begin(&io, fd, word, flags))
        return real_recvfrom(fd, buf, n, flags, from, len);
    moved = real_recvfrom(fd, buf, n, flags, from, len);
    receive_end(&io, buf, moved, flags);
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

    if (!receive_begin(&io, fd, word, flags))
        return real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    moved = real___recvfrom_chk(fd, buf, n, room, flags, from, len);
    receive_end(&io, buf, moved, flags);
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

    if (!receive_begin(&io, fd, word, flags))
        return real_recvmsg(fd, msg, flags);
    moved = real_recvmsg(fd, msg, flags);
    receive_end_message(&io, msg, moved, flags);
    return moved;
}

HOOKED ssize_t recvmsg(int fd, struct msghdr *msg, int flags)
{
    uint32_t word = fdmap_word(fd);
    ssize_t moved =
        UNTRACKED(word) ? real_recvmsg(fd, msg, flags) : tracked_recvmsg(fd, word, msg, flags);

    if (moved >= 0 && msg->msg_controllen > 0)
        passing_received(msg);
    return moved;
}

TRACKED int tracked_recvmmsg(int fd, uint32_t word, struct mmsghdr *msgs, unsigned int count,
                             int flags, struct timespec *timeout)
{
    struct io io;
    int moved;

    if (!receive_begin(&io, fd, word, flags))
        return real_recvmmsg(fd, msgs, count, flags, timeout);
    moved = real_recvmmsg(fd, msgs, count, flags, timeout);
    receive_end_messages(&io, msgs, moved, flags);
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
            passing_received(&msgs[i].msg_hdr);
    }
    return moved;
}
