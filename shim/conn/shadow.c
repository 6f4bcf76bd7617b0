/*
 * The numbers of twins.
 */
#include "conn/shadow.h"

#include <fcntl.h>

#include "base/owner.h"
#include "conn/fdmap.h"
#include "conn/fdtable.h"
#include "conn/limits.h"
#include "conn/sockid.h"
#include "base/rawsys.h"

static _Atomic unsigned int count;

/* Sweeps so far. In between a number that was just made may be closed, and be another's soon.
 */
static _Atomic uint32_t sweeps_begun, sweeps_ended;

/* So many have ended so long ago that nobody has a number they closed in his hands any more. */
static _Atomic uint32_t sweeps_over;

static uint32_t private_slot(const struct conn *conn)
{
    return conn_slot(conn) | FDMAP_PRIVATE;
}

void twin_close(const struct conn *conn, int fd)
{
    if (fdmap_replace(fd, private_slot(conn), FDMAP_NONE) && !sockid_is_elsewhere(conn, fd))
        raw_close(fd);
}

void twin_sweep_begins(void)
{
    atomic_fetch_add(&sweeps_begun, 1);
}

void twin_sweep_ends(void)
{
    atomic_fetch_add(&sweeps_ended, 1);
}

void twin_forget_sweeps(void)
{
    atomic_store(&sweeps_ended, atomic_load(&sweeps_begun));
    atomic_store(&sweeps_over, atomic_load(&sweeps_begun));
}

/* While a connection is checked in or out its number is written to and read from. If that was
 * swept just then it must not become another's. */
static bool sweeps_are_over(const struct conn *conn, uint32_t sweeps)
{
    if (sweeps == atomic_load(&sweeps_over))
        return true;
    if (sweeps != atomic_load(&sweeps_ended) || conn_others_pass(conn))
        return false;
    atomic_store(&sweeps_over, sweeps);
    return true;
}

long twin_duplicate(int fd)
{
    return fdtable_duplicate(fd, atomic_load_explicit(&count, memory_order_relaxed) +
                                     limits_idle());
}

static void make(struct conn *conn, int fd, uint32_t sweeps)
{
    long twin = twin_duplicate(fd);

    if (twin < 0)
        return;
    if (twin >= FDMAP_SIZE) {
        raw_close((int)twin);
        return;
    }
    fdmap_exchange((int)twin, private_slot(conn));
    if (atomic_load(&sweeps_begun) != sweeps) {
        /* A bulk close that began meanwhile may have closed it, or not seen it. */
        twin_close(conn, (int)twin);
        return;
    }
    atomic_fetch_add(&count, 1);
    atomic_store(&conn->twin, (int)twin);
}

void twin_make(struct conn *conn, int fd)
{
    uint32_t sweeps;

    if (conn->twin >= 0)
        return;
    sweeps = atomic_load(&sweeps_begun);
    if (sweeps_are_over(conn, sweeps))
        make(conn, fd, sweeps);
}

void twin_adopt(struct conn *conn, int private_fd)
{
    if (!limits_may_keep(atomic_load_explicit(&count, memory_order_relaxed))) {
        twin_close(conn, private_fd);
        return;
    }
    atomic_fetch_add(&count, 1);
    atomic_store(&conn->twin, private_fd);
    /* Who swept it before found no twin to take away. */
    if (!fdmap_holds(private_fd, private_slot(conn)))
        twin_lose(conn, private_fd);
}

/* Two may want it at once: the application's thread, and one that gives up all. */
static int take(struct conn *conn)
{
    int fd = atomic_load_explicit(&conn->twin, memory_order_relaxed);

    if (fd < 0)
        return -1;
    fd = atomic_exchange(&conn->twin, -1);
    if (fd >= 0)
        atomic_fetch_sub(&count, 1);
    return fd;
}

int twin_take(struct conn *conn)
{
    int fd = take(conn);

    return fd >= 0 && fdmap_holds(fd, private_slot(conn)) ? fd : -1;
}

bool twin_is_there(const struct conn *conn)
{
    int fd = atomic_load(&conn->twin);

    return fd >= 0 && fdmap_holds(fd, private_slot(conn));
}

void twin_drop(struct conn *conn)
{
    int fd = take(conn);

    if (fd >= 0)
        twin_close(conn, fd);
}

bool twin_lose(struct conn *conn, int fd)
{
    if (!atomic_compare_exchange_strong(&conn->twin, &fd, -1))
        return false;
    atomic_fetch_sub(&count, 1);
    return true;
}

void shadow_refuse(int fd, enum reason reason)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (process_is_owner()) {
        conn_refuse(conn, reason);
        twin_drop(conn);
    }
    conn_leave(conn, CONN_CALL_OTHER);
}

static void drop(struct conn *conn, int unused)
{
    (void)unused;
    twin_drop(conn);
}

void twin_drop_all(void)
{
    conn_for_each_in_use(drop, 0);
}

unsigned int twin_count(void)
{
    return atomic_load(&count);
}
