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

ALWAYS_INLINE bool put_in(struct conn *conn)
{
    for (int i = 0; i < SPARE_MAX; i++) {
        struct conn *none = NULL;

        if (atomic_compare_exchange_strong(&kept[i], &none, conn))
            return true;
    }
    return false;
}

COLD static void give_up(struct conn *conn)
{
    shadow_drop(conn);
    conn_move(conn, CONN_CLOSED);
}

/* Not while another thread is in a call on the record: it had looked up the word of the spare's
 * former fd. */
static bool is_still_good(const struct conn *conn)
{
    return owner_refusal() == REASON_NONE && !conn_calls_in_flight(conn) &&
           conn->fork_epoch == atomic_load(&fork_epoch) &&
           conn->cred_epoch == atomic_load(&cred_epoch);
}

static struct conn *find(int domain)
{
    for (int i = 0; i < SPARE_MAX; i++) {
        /* relaxed: a hint, the exchange decides */
        struct conn *conn = atomic_load_explicit(&kept[i], memory_order_relaxed)
                                ? atomic_exchange(&kept[i], NULL)
                                : NULL;

        if (!conn)
            continue;
        if (!is_still_good(conn))
            give_up(conn);
        else if (conn->domain == domain)
            return conn;
        else if (!put_in(conn))
            give_up(conn);
    }
    return NULL;
}

/* Gives FD, a new fd of CONN, the flags of TYPE; false if that failed. */
static bool set_flags(struct conn *conn, int fd, int type)
{
    int had = conn_flags(conn);
    int flags = (had & ~O_NONBLOCK) | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0);

    conn_set_flags(conn, flags, type & SOCK_CLOEXEC ? FD_CLOEXEC : 0);
    return flags == had || raw_syscall(SYS_fcntl, fd, F_SETFL, flags) == 0;
}

struct conn *spare_reuse(int domain, int type)
{
    struct conn *conn = find(domain);
    int command = type & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD;
    long fd;

    if (!conn)
        return NULL;
    fd = raw_syscall(SYS_fcntl, conn->shadow_fd, command, 0);
    /* If the shadow fd was closed in bulk meanwhile, FD may be a duplicate of anything: looked
     * at after the call. */
    if (fd >= 0 && fd < FDMAP_SIZE && shadow_exists(conn) && set_flags(conn, (int)fd, type)) {
        conn_renew(conn, (int)fd);
        return conn;
    }
    if (fd >= 0)
        raw_close((int)fd);
    give_up(conn);
    return NULL;
}

static bool can_be_spare(const struct conn *conn)
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
    /* Relaxed: whether the shadow fd was closed in bulk is looked at when the spare is used. A
     * socket in an epoll set must not stay open at a shadow fd of its own. */
    if (__builtin_expect(atomic_load_explicit(&fresh->shadow_fd, memory_order_relaxed) < 0 ||
                             fresh->epoll_regs.count != 0,
                         0))
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
