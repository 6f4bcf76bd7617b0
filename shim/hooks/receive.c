/*
 * Hooks that receive: read(), recv() and their kind. Each makes the real call, then passes the
 * bytes that came to the wire tracker of the connection.
 */
#include "hooks/io.h"

#include <string.h>

#include "base/compiler.h"
#include "base/usermem.h"
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

/* More pieces than this are not followed. Nearly always there are one or two. */
#define PIECES_MOST 16

/* Where a call with several buffers puts what comes. It is noted before the call, as the kernel
 * reads it then: the program may let the bytes come to the very memory that says where. */
struct landing {
    struct iovec pieces[PIECES_MOST];
    size_t count;
    /* What the kernel writes as well: the header, control messages, the time that is left. An
     * address is not written, as TCP has none to tell (inet_recvmsg() of Linux). */
    struct iovec beside[3];
};

static bool pieces_overlap(const struct iovec *a, const struct iovec *b)
{
    return usermem_overlap((uintptr_t)a->iov_base, a->iov_len, (uintptr_t)b->iov_base,
                           b->iov_len);
}

/* The COUNT buffers at IOV. None when IOV cannot be read: the real call fails then. */
static void note_pieces(struct landing *landing, const struct iovec *iov, size_t count)
{
    size_t n = count < PIECES_MOST ? count : PIECES_MOST;

    if (n == 0 || !usermem_readable(iov, n * sizeof(*iov)))
        return;
    memcpy(landing->pieces, iov, n * sizeof(*iov));
    landing->count = n;
}

/* The same for the buffers of MSG. The kernel writes SIZE bytes there. */
static void note_message(struct landing *landing, struct msghdr *msg, size_t size)
{
    if (!usermem_readable(msg, size))
        return;
    landing->beside[0] = (struct iovec){msg, size};
    landing->beside[1] = (struct iovec){msg->msg_control, msg->msg_controllen};
    note_pieces(landing, msg->msg_iov, msg->msg_iovlen);
}

/* Cuts the pieces to those that got the MOVED bytes. False if there were more pieces. */
static bool cut_pieces(struct landing *landing, size_t moved)
{
    for (size_t i = 0; i < landing->count; i++) {
        struct iovec *piece = &landing->pieces[i];

        if (piece->iov_len > moved)
            piece->iov_len = moved;
        moved -= piece->iov_len;
    }
    return moved == 0;
}

/* Whether each byte that came is still where it was put: the kernel wrote nothing else there.
 */
static bool are_apart(const struct landing *landing)
{
    for (size_t i = 0; i < landing->count; i++) {
        const struct iovec *piece = &landing->pieces[i];

        for (size_t j = 0; j < i; j++) {
            if (pieces_overlap(piece, &landing->pieces[j]))
                return false;
        }
        for (size_t j = 0; j < sizeof(landing->beside) / sizeof(landing->beside[0]); j++) {
            if (pieces_overlap(piece, &landing->beside[j]))
                return false;
        }
    }
    return true;
}

static void account_pieces(struct conn *conn, struct landing *landing, size_t moved)
{
    if (!cut_pieces(landing, moved) || !are_apart(landing))
        conn_refuse(conn, REASON_UNTRACKED_IO);
    if (!io_account_begin(conn, CONN_CALL_RECEIVE, moved))
        return;
    for (size_t i = 0; i < landing->count; i++)
        wire_received(&conn->wire, landing->pieces[i].iov_base, landing->pieces[i].iov_len);
    conn_unlock(conn);
}

/* The real call, with FLAGS, has put MOVED bytes into the pieces; -1 if it failed. */
static inline void receive_end_pieces(io_guard_t *guard, struct conn *conn,
                                      struct landing *landing, ssize_t moved, int flags)
{
    if (!(flags & TAKES_NOTHING) && moved > 0)
        account_pieces(conn, landing, (size_t)moved);
    io_end(guard, conn, CONN_CALL_RECEIVE, moved);
}

/* The real call has filled COUNT messages, the first at MSG; -1 if it failed. On a stream one
 * message is enough, so several are not followed. */
static inline void receive_end_messages(io_guard_t *guard, struct conn *conn,
                                        struct landing *landing, const struct mmsghdr *msg,
                                        int count, int flags)
{
    if (count > 1)
        conn_refuse(conn, REASON_UNTRACKED_IO);
    receive_end_pieces(guard, conn, landing, count > 0 ? (ssize_t)msg->msg_len : count, flags);
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
    struct landing landing = {0};
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_readv(fd, iov, count);
    receive_guard(&guard, conn, 0);
    note_pieces(&landing, iov, count > 0 ? (size_t)count : 0);
    moved = real_readv(fd, iov, count);
    receive_end_pieces(&guard, conn, &landing, moved, 0);
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

/* Whether the kernel writes the length of the address, at LEN, over what came to the N bytes at
 * BUF. It writes no length without a place for the address, FROM. */
static inline bool spoils(const struct sockaddr *from, const socklen_t *len, const void *buf,
                          size_t n)
{
    return __builtin_expect(from != NULL, 0) &&
           usermem_overlap((uintptr_t)len, sizeof(*len), (uintptr_t)buf, n);
}

TRACKED ssize_t tracked_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *from,
                                 socklen_t *len, struct conn *conn)
{
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recvfrom(fd, buf, n, flags, from, len);
    io_guard(&guard, conn, CONN_CALL_RECEIVE, spoils(from, len, buf, n));
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
    io_guard(&guard, conn, CONN_CALL_RECEIVE, spoils(from, len, buf, n));
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
    struct landing landing = {0};
    io_guard_t guard;
    ssize_t moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recvmsg(fd, msg, flags);
    receive_guard(&guard, conn, flags);
    note_message(&landing, msg, sizeof(*msg));
    moved = real_recvmsg(fd, msg, flags);
    receive_end_pieces(&guard, conn, &landing, moved, flags);
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
    struct landing landing = {.beside[2] = {timeout, timeout ? sizeof(*timeout) : 0}};
    io_guard_t guard;
    int moved;

    if (!conn_begin(conn, fd, CONN_CALL_RECEIVE))
        return real_recvmmsg(fd, msgs, count, flags, timeout);
    receive_guard(&guard, conn, flags);
    if (count > 0)
        note_message(&landing, &msgs->msg_hdr, sizeof(*msgs));
    moved = real_recvmmsg(fd, msgs, count, flags, timeout);
    receive_end_messages(&guard, conn, &landing, msgs, moved, flags);
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
