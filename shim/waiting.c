/*
 * The connections among what poll() and select() wait for.
 */
#include "waiting.h"

#include "fdmap.h"
#include "readable.h"

/* More than the kernel lets anybody poll for (fs.nr_open). */
#define NUMBERS_MOST ((nfds_t)1 << 20)

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

void waiting_poll(struct waiting *waiting, const struct pollfd *fds, nfds_t n)
{
    waiting->count = 0;
    if (n > NUMBERS_MOST || !is_readable(fds, n * sizeof(*fds)))
        return;
    for (nfds_t i = 0; i < n; i++)
        wait_for(waiting, fds[i].fd);
}

/* Sets are arrays of words, as long as the highest number needs (select(2)). */
void waiting_select(struct waiting *waiting, int n, fd_set *const sets[3])
{
    enum { BITS = 8 * sizeof(fd_mask) };
    size_t words = n > 0 ? ((size_t)n + BITS - 1) / BITS : 0;

    waiting->count = 0;
    for (int i = 0; i < 3; i++) {
        if (sets[i] && !is_readable(sets[i], words * sizeof(fd_mask)))
            return;
    }
    for (size_t i = 0; i < words && i < FDMAP_SIZE / BITS; i++) {
        unsigned long wanted = 0;

        for (int j = 0; j < 3; j++)
            wanted |= sets[j] ? (unsigned long)((const fd_mask *)sets[j])[i] : 0;
        for (; wanted != 0; wanted &= wanted - 1)
            wait_for(waiting, (int)(i * BITS) + __builtin_ctzl(wanted));
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
