/*
 * The connections among what poll() and select() wait for.
 */
#include "conn/pollers.h"

#include "conn/fdmap.h"
#include "base/usermem.h"

/* More than the kernel lets anybody poll for (fs.nr_open). */
#define NUMBERS_MOST ((nfds_t)1 << 20)

#define MASK_BITS (8 * sizeof(fd_mask))
#define MAP_WORDS (FDMAP_SIZE / MASK_BITS)

static void wait_for(struct waiting *waiting, int fd)
{
    struct conn *conn = fdmap_is_plain(fd) ? NULL : conn_enter(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (waiting->count < WAITING_MAX) {
        waiting->conns[waiting->count++] = conn;
        return;
    }
    conn_refuse(conn, REASON_IN_FLIGHT);
    conn_leave(conn, CONN_CALL_OTHER);
}

/* Whether AT can be read; asked when it lies in another page than what was asked for last. */
static bool is_in_reach(const void *at, uintptr_t *page)
{
    enum { PAGE = 4096 };

    if ((uintptr_t)at / PAGE == *page)
        return true;
    *page = (uintptr_t)at / PAGE;
    return is_int_readable(at);
}

void waiting_poll(struct waiting *waiting, const struct pollfd *fds, nfds_t n)
{
    uintptr_t page = UINTPTR_MAX;

    waiting->count = 0;
    for (nfds_t i = 0; i < n && n <= NUMBERS_MOST; i++) {
        if (!is_in_reach(&fds[i].fd, &page))
            return;
        wait_for(waiting, fds[i].fd);
    }
}

/* Sets are arrays of words, as long as the highest number needs (select(2)). */
static void wait_for_set(struct waiting *waiting, const fd_mask *set, size_t words)
{
    uintptr_t page = UINTPTR_MAX;

    for (size_t i = 0; i < words; i++) {
        if (!is_in_reach(&set[i], &page))
            return;
        for (unsigned long wanted = (unsigned long)set[i]; wanted != 0; wanted &= wanted - 1)
            wait_for(waiting, (int)(i * MASK_BITS) + __builtin_ctzl(wanted));
    }
}

void waiting_select(struct waiting *waiting, int n, fd_set *const sets[3])
{
    size_t words = n > 0 ? ((size_t)n + MASK_BITS - 1) / MASK_BITS : 0;

    waiting->count = 0;
    for (int i = 0; i < 3; i++) {
        if (sets[i])
            wait_for_set(waiting, (const fd_mask *)sets[i],
                         words < MAP_WORDS ? words : MAP_WORDS);
    }
}

void waiting_refuse(const struct waiting *waiting, enum reason reason)
{
    for (unsigned int i = 0; i < waiting->count; i++)
        conn_refuse(waiting->conns[i], reason);
}

void waiting_end(void *argument)
{
    struct waiting *waiting = argument;

    for (unsigned int i = 0; i < waiting->count; i++)
        conn_leave(waiting->conns[i], CONN_CALL_OTHER);
}
