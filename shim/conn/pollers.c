/*
 * Finds the connections that poll() and select() wait for.
 */
#include "conn/pollers.h"

#include "conn/fdmap.h"
#include "base/usermem.h"

/* poll() of more fails: RLIMIT_NOFILE is at most fs.nr_open, and this is its default. */
#define POLLFDS_MOST ((nfds_t)1 << 20)

#define MASK_BITS (8 * sizeof(fd_mask))
#define MAP_WORDS (FDMAP_SIZE / MASK_BITS)

static void add(struct pollers *pollers, int fd)
{
    struct conn *conn = fdmap_is_plain(fd) ? NULL : conn_get(fd, CONN_CALL_OTHER);

    if (!conn)
        return;
    if (pollers->count < POLLERS_MAX) {
        pollers->conns[pollers->count++] = conn;
        return;
    }
    conn_refuse(conn, REASON_IN_FLIGHT);
    conn_put(conn, CONN_CALL_OTHER);
}

/* Whether the int at AT can be read. PAGE is the page asked about last: one question is enough
 * for a page. */
static bool is_readable(const void *at, uintptr_t *page)
{
    enum { PAGE = 4096 };

    if ((uintptr_t)at / PAGE == *page)
        return true;
    *page = (uintptr_t)at / PAGE;
    return usermem_int_readable(at);
}

void pollers_poll(struct pollers *pollers, const struct pollfd *fds, nfds_t n)
{
    uintptr_t page = UINTPTR_MAX;

    pollers->count = 0;
    pollers->all_read = n <= POLLFDS_MOST;
    for (nfds_t i = 0; i < n && pollers->all_read; i++) {
        pollers->all_read = is_readable(&fds[i].fd, &page);
        if (pollers->all_read)
            add(pollers, fds[i].fd);
    }
}

/* A set is an array of words, as long as the highest fd needs (select(2)). */
static void add_set(struct pollers *pollers, const fd_mask *set, size_t words)
{
    uintptr_t page = UINTPTR_MAX;

    for (size_t i = 0; i < words; i++) {
        if (!is_readable(&set[i], &page)) {
            pollers->all_read = false;
            return;
        }
        for (unsigned long bits = (unsigned long)set[i]; bits != 0; bits &= bits - 1)
            add(pollers, (int)(i * MASK_BITS) + __builtin_ctzl(bits));
    }
}

void pollers_select(struct pollers *pollers, int n, fd_set *const sets[3])
{
    size_t words = n > 0 ? ((size_t)n + MASK_BITS - 1) / MASK_BITS : 0;

    pollers->count = 0;
    pollers->all_read = words <= MAP_WORDS;
    for (int i = 0; i < 3; i++) {
        if (sets[i])
            add_set(pollers, (const fd_mask *)sets[i], words < MAP_WORDS ? words : MAP_WORDS);
    }
}

void pollers_refuse(const struct pollers *pollers, enum reason reason)
{
    for (unsigned int i = 0; i < pollers->count; i++)
        conn_refuse(pollers->conns[i], reason);
}

void pollers_end(void *argument)
{
    struct pollers *pollers = argument;

    for (unsigned int i = 0; i < pollers->count; i++)
        conn_put(pollers->conns[i], CONN_CALL_OTHER);
}
