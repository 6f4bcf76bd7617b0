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
static _Atomic uint32_t bulk_closes_begun, bulk_closes_ended;

/* So many have ended so long ago that nobody has a number they closed in his hands any more. */
static _Atomic uint32_t bulk_closes_over;

static uint32_t shadow_word(const struct conn *conn)
{
    return conn_id(conn) | FDMAP_SHADOW;
}

void shadow_close(const struct conn *conn, int fd)
{
    if (fdmap_replace(fd, shadow_word(conn), FDMAP_NONE) && !sockid_is_elsewhere(conn, fd))
        raw_close(fd);
}

void bulk_close_begins(void)
{
    atomic_fetch_add(&bulk_closes_begun, 1);
}

void bulk_close_ends(void)
{
    atomic_fetch_add(&bulk_closes_ended, 1);
}

void bulk_close_after_fork_in_child(void)
{
    atomic_store(&bulk_closes_ended, atomic_load(&bulk_closes_begun));
    atomic_store(&bulk_closes_over, atomic_load(&bulk_closes_begun));
}

/* While a connection is checked in or out its number is written to and read from. If that was
 * swept just then it must not become another's. */
static bool bulk_closes_are_over(const struct conn *conn, uint32_t sweeps)
{
    if (sweeps == atomic_load(&bulk_closes_over))
        return true;
    if (sweeps != atomic_load(&bulk_closes_ended) || conn_others_in_transit(conn))
        return false;
    atomic_store(&bulk_closes_over, sweeps);
    return true;
}

long shadow_duplicate(int fd)
{
    return fdtable_duplicate(fd, atomic_load_explicit(&count, memory_order_relaxed) +
                                     limits_idle());
}

static void make(struct conn *conn, int fd, uint32_t sweeps)
{
    long twin = shadow_duplicate(fd);

    if (twin < 0)
        return;
    if (twin >= FDMAP_SIZE) {
        raw_close((int)twin);
        return;
    }
    fdmap_exchange((int)twin, shadow_word(conn));
    if (atomic_load(&bulk_closes_begun) != sweeps) {
        /* A bulk close that began meanwhile may have closed it, or not seen it. */
        shadow_close(conn, (int)twin);
        return;
    }
    atomic_fetch_add(&count, 1);
    atomic_store(&conn->shadow_fd, (int)twin);
}

void shadow_make(struct conn *conn, int fd)
{
    uint32_t sweeps;

    if (conn->shadow_fd >= 0)
        return;
    sweeps = atomic_load(&bulk_closes_begun);
    if (bulk_closes_are_over(conn, sweeps))
        make(conn, fd, sweeps);
}

void shadow_adopt(struct conn *conn, int shadow_fd)
{
    if (!limits_may_keep(atomic_load_explicit(&count, memory_order_relaxed))) {
        shadow_close(conn, shadow_fd);
        return;
    }
    atomic_fetch_add(&count, 1);
    atomic_store(&conn->shadow_fd, shadow_fd);
    /* Who swept it before found no twin to take away. */
    if (!fdmap_holds(shadow_fd, shadow_word(conn)))
        shadow_lose(conn, shadow_fd);
}

/* Two may want it at once: the application's thread, and one that gives up all. */
static int take(struct conn *conn)
{
    int fd = atomic_load_explicit(&conn->shadow_fd, memory_order_relaxed);

    if (fd < 0)
        return -1;
    fd = atomic_exchange(&conn->shadow_fd, -1);
    if (fd >= 0)
        atomic_fetch_sub(&count, 1);
    return fd;
}

int shadow_claim(struct conn *conn)
{
    int fd = take(conn);

    return fd >= 0 && fdmap_holds(fd, shadow_word(conn)) ? fd : -1;
}

bool shadow_exists(const struct conn *conn)
{
    int fd = atomic_load(&conn->shadow_fd);

    return fd >= 0 && fdmap_holds(fd, shadow_word(conn));
}

void shadow_drop(struct conn *conn)
{
    int fd = take(conn);

    if (fd >= 0)
        shadow_close(conn, fd);
}

bool shadow_lose(struct conn *conn, int fd)
{
    if (!atomic_compare_exchange_strong(&conn->shadow_fd, &fd, -1))
        return false;
    atomic_fetch_sub(&count, 1);
    return true;
}

void shadow_refuse(int fd, enum reason reason)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (owner_is_this_process()) {
        conn_refuse(conn, reason);
        shadow_drop(conn);
    }
    conn_put(conn, CONN_CALL_OTHER);
}

static void drop(struct conn *conn, int unused)
{
    (void)unused;
    shadow_drop(conn);
}

void shadow_drop_all(void)
{
    conn_for_each_open(drop, 0);
}

unsigned int shadow_count(void)
{
    return atomic_load(&count);
}
