/*
 * The few sockets that are kept.
 */
#include "pool/spare.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "conn/fdmap.h"
#include "base/owner.h"
#include "conn/sockid.h"
#include "base/rawsys.h"
#include "conn/shadow.h"

/* The spares; NULL for a free place. The thread whose exchange takes one out of here has it. */
static _Atomic(struct conn *) kept[SPARE_MAX];

ALWAYS_INLINE bool put_at(_Atomic(struct conn *) *place, struct conn *conn)
{
    struct conn *none = NULL;

    return atomic_compare_exchange_strong(place, &none, conn);
}

COLD static bool put_anywhere(struct conn *conn)
{
    for (int i = 0; i < SPARE_MAX; i++) {
        if (put_at(&kept[i], conn))
            return true;
    }
    return false;
}

ALWAYS_INLINE bool put_in(struct conn *conn)
{
    return __builtin_expect(put_at(&kept[0], conn), 1) || put_anywhere(conn);
}

COLD static void give_up(struct conn *conn)
{
    shadow_drop(conn);
    conn_move(conn, CONN_CLOSED);
}

/* Not while another thread is in a call on the record: it had looked up the word of the spare's
 * former fd. */
ALWAYS_INLINE bool is_still_good(const struct conn *conn)
{
    return owner_refusal() == REASON_NONE && !conn_calls_in_flight(conn) &&
           conn->fork_epoch == atomic_load(&fork_epoch) &&
           conn->cred_epoch == atomic_load(&cred_epoch);
}

/* CONN, which was taken out, is of no use to the caller. */
COLD static struct conn *put_back(struct conn *conn)
{
    if (!is_still_good(conn) || !put_anywhere(conn))
        give_up(conn);
    return NULL;
}

/* The spare at PLACE, if it can be of use for DOMAIN. */
ALWAYS_INLINE struct conn *take_out(_Atomic(struct conn *) *place, int domain)
{
    /* relaxed: a hint, the exchange decides */
    struct conn *conn =
        atomic_load_explicit(place, memory_order_relaxed) ? atomic_exchange(place, NULL) : NULL;

    if (__builtin_expect(!conn, 0))
        return NULL;
    return __builtin_expect(is_still_good(conn) && conn->domain == domain, 1) ? conn
                                                                              : put_back(conn);
}

COLD static struct conn *take_anywhere(int domain)
{
    struct conn *conn = NULL;

    for (int i = 0; i < SPARE_MAX && !conn; i++)
        conn = take_out(&kept[i], domain);
    return conn;
}

ALWAYS_INLINE struct conn *find(int domain)
{
    struct conn *conn = take_out(&kept[0], domain);

    return __builtin_expect(conn != NULL, 1) ? conn : take_anywhere(domain);
}

/* Gives FD, a new fd of CONN, the flags of TYPE; false if that failed. */
ALWAYS_INLINE bool set_flags(struct conn *conn, int fd, int type)
{
    int had = conn_flags(conn);
    int flags = (had & ~O_NONBLOCK) | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0);

    conn_set_flags(conn, flags, type & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
    return __builtin_expect(flags == had, 1) || raw_syscall(SYS_fcntl, fd, F_SETFL, flags) == 0;
}

COLD static struct conn *no_reuse(struct conn *conn, long fd)
{
    if (fd >= 0)
        raw_close((int)fd);
    give_up(conn);
    return NULL;
}

INLINED struct conn *spare_reuse(int domain, int type, int *fd)
{
    struct conn *conn = find(domain);
    int command = type & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD;
    long copy;

    if (__builtin_expect(!conn, 0))
        return NULL;
    copy = raw_syscall(SYS_fcntl, conn->shadow_fd, command, 0);
    /* If the shadow fd was closed in bulk meanwhile, COPY may be a duplicate of anything:
     * looked at after the call. */
    if (__builtin_expect(copy < 0 || copy >= FDMAP_SIZE || !shadow_exists(conn) ||
                             !set_flags(conn, (int)copy, type),
                         0))
        return no_reuse(conn, copy);
    *fd = (int)copy;
    conn_renew(conn, *fd);
    return conn;
}

ALWAYS_INLINE bool can_be_spare(const struct conn *conn)
{
    return conn_refusal(conn) == REASON_NONE && conn_flags(conn) != CONN_UNKNOWN &&
           conn->epoll_regs.count == 0 && sockopts_can_be_cleared(&conn->options);
}

/* Sets the options of CONN, which can be a spare, back to the kernel's defaults. */
static bool clear_options(const struct conn *conn)
{
    return conn->options.given == 0 ||
           (shadow_exists(conn) && sockopts_clear(conn->shadow_fd, &conn->options));
}

COLD static void save(struct conn *fresh, int fd)
{
    /* Without a shadow fd the map cannot tell that the socket is at FD: the fd may have been
     * closed and reused where no hook saw it. */
    if (can_be_spare(fresh) && (shadow_exists(fresh) || sockid_is_at(fresh, fd)))
        shadow_make(fresh, fd);
    else
        shadow_drop(fresh);
}

INLINED void spare_save(struct conn *fresh, int fd)
{
    /* Relaxed: whether the shadow fd was closed in bulk is looked at when the spare is used. */
    if (__builtin_expect(atomic_load_explicit(&fresh->shadow_fd, memory_order_relaxed) < 0, 0))
        save(fresh, fd);
}

INLINED void spare_keep(struct conn *fresh)
{
    /* Relaxed: as above. */
    if (atomic_load_explicit(&fresh->shadow_fd, memory_order_relaxed) >= 0 &&
        can_be_spare(fresh) && !conn_calls_in_flight(fresh) && clear_options(fresh)) {
        conn_move(fresh, CONN_SPARE);
        if (put_in(fresh))
            return;
    }
    give_up(fresh);
}

bool spare_lose(struct conn *conn, int fd)
{
    if (!shadow_lose(conn, fd))
        return false;
    for (int i = 0; i < SPARE_MAX; i++) {
        struct conn *lost = conn;

        if (atomic_compare_exchange_strong(&kept[i], &lost, NULL))
            conn_move(conn, CONN_CLOSED);
    }
    return true;
}

void spare_flush(void)
{
    for (int i = 0; i < SPARE_MAX; i++) {
        struct conn *conn = atomic_exchange(&kept[i], NULL);

        if (conn)
            give_up(conn);
    }
}
