/*
 * Makes and closes shadow fds, and keeps bulk closes apart from them.
 *
 * Atomic operations here are seq_cst unless they say otherwise: the crossings in
 * shim/concurrency.md, 3, need all of their steps to be.
 */
#include "conn/shadow.h"

#include <fcntl.h>

#include "base/owner.h"
#include "conn/fdmap.h"
#include "conn/fdtable.h"
#include "conn/limits.h"
#include "conn/sockid.h"
#include "base/rawsys.h"

/* Shadow fds in records. Read relaxed: a limit, not a balance. */
static _Atomic unsigned int count;

/* close_range() and closefrom() calls begun and returned. While they differ, a shadow fd that
 * we make may be closed at once and its number reused. */
static _Atomic uint32_t bulk_closes_begun, bulk_closes_ended;

/* Bulk closes that can no longer hurt: every check-in or check-out that was running during them
 * has finished, so no thread still uses an fd that they closed. */
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

uint32_t bulk_close_count(void)
{
    return atomic_load(&bulk_closes_begun);
}

void bulk_close_after_fork_in_child(void)
{
    atomic_store(&bulk_closes_ended, atomic_load(&bulk_closes_begun));
    atomic_store(&bulk_closes_over, atomic_load(&bulk_closes_begun));
}

/* Whether the first BEGUN bulk closes can no longer hurt. A check-in or check-out reads and
 * writes its shadow fd; if that is closed in bulk meanwhile, no new fd may get its number. The
 * end of the bulk closes is looked at before the states; see shim/concurrency.md, 3. Inlined,
 * as each hit is here. */
ALWAYS_INLINE bool bulk_closes_are_over(const struct conn *conn, uint32_t begun)
{
    if (begun == atomic_load(&bulk_closes_over))
        return true;
    if (begun != atomic_load(&bulk_closes_ended) || conn_others_in_transit(conn))
        return false;
    atomic_store(&bulk_closes_over, begun);
    return true;
}

long shadow_duplicate(int fd)
{
    return fdtable_duplicate(fd, atomic_load_explicit(&count, memory_order_relaxed) +
                                     limits_idle() + limits_queues());
}

/* Duplicates FD to a shadow fd with WORD in the fd map; -1 when that fails. The exchange, and
 * then the caller's look at the count, pair with bulk_close_begins() and the walk over the fd
 * map after it. */
static int duplicate_with_word(int fd, uint32_t word)
{
    int shadow_fd = (int)shadow_duplicate(fd);

    if (shadow_fd < 0)
        return -1;
    if (shadow_fd >= FDMAP_SIZE) {
        raw_close(shadow_fd);
        return -1;
    }
    fdmap_exchange(shadow_fd, word);
    return shadow_fd;
}

/* Looks at the count after the exchange: a bulk close that has begun meanwhile may have closed
 * the fd, or missed the word. */
static void make(struct conn *conn, int fd, uint32_t begun)
{
    int shadow_fd = duplicate_with_word(fd, shadow_word(conn));

    if (shadow_fd < 0)
        return;
    if (atomic_load(&bulk_closes_begun) != begun) {
        shadow_close(conn, shadow_fd);
        return;
    }
    atomic_fetch_add(&count, 1);
    atomic_store(&conn->shadow_fd, shadow_fd);
}

int shadow_copy(int fd)
{
    uint32_t begun = atomic_load(&bulk_closes_begun);
    int copy = bulk_closes_are_over(NULL, begun) ? duplicate_with_word(fd, FDMAP_COPY) : -1;

    if (copy < 0 || atomic_load(&bulk_closes_begun) == begun)
        return copy;
    shadow_close_copy(copy);
    return -1;
}

void shadow_close_copy(int copy)
{
    if (copy >= 0 && fdmap_replace(copy, FDMAP_COPY, FDMAP_NONE))
        raw_close(copy);
}

void shadow_make(struct conn *conn, int fd)
{
    uint32_t begun;

    if (conn->shadow_fd >= 0)
        return;
    begun = atomic_load(&bulk_closes_begun);
    if (bulk_closes_are_over(conn, begun))
        make(conn, fd, begun);
}

INLINED void shadow_adopt(struct conn *conn, int shadow_fd)
{
    if (!limits_may_keep(atomic_load_explicit(&count, memory_order_relaxed))) {
        shadow_close(conn, shadow_fd);
        return;
    }
    atomic_fetch_add(&count, 1);
    atomic_store(&conn->shadow_fd, shadow_fd);
    /* A bulk close that emptied the word before found no shadow fd in the record to remove. The
     * store and this look pair with its walk, which empties the word and then looks at the
     * record. */
    if (!fdmap_holds(shadow_fd, shadow_word(conn)))
        shadow_lose(conn, shadow_fd);
}

/* Takes the shadow fd out of the record; -1 when there is none. The program's thread and one
 * that closes all shadow fds may both try: the exchange decides. */
ALWAYS_INLINE int take_from_record(struct conn *conn)
{
    int fd = atomic_exchange(&conn->shadow_fd, -1);

    if (__builtin_expect(fd >= 0, 1))
        atomic_fetch_sub(&count, 1);
    return fd;
}

/* The same where there often is none. The first look is relaxed, as it only saves the exchange.
 */
static int detach(struct conn *conn)
{
    return atomic_load_explicit(&conn->shadow_fd, memory_order_relaxed) < 0
               ? -1
               : take_from_record(conn);
}

INLINED int shadow_claim(struct conn *conn)
{
    int fd = take_from_record(conn);

    return __builtin_expect(fd >= 0, 1) && fdmap_holds(fd, shadow_word(conn)) ? fd : -1;
}

INLINED bool shadow_exists(const struct conn *conn)
{
    int fd = atomic_load(&conn->shadow_fd);

    return fd >= 0 && fdmap_holds(fd, shadow_word(conn));
}

void shadow_drop(struct conn *conn)
{
    int fd = detach(conn);

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
