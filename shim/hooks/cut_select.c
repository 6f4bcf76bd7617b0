/*
 * select() and pselect(), in pieces.
 */
#include "hooks/cut_select.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/time.h>

#include "hooks/pieces.h"
#include "hooks/timeouts.h"
#include "conn/waiter.h"
#include "base/usermem.h"

/* The three sets of select(). A piece has sets of its own: its end empties them, and that of
 * the whole call may find that the program's sets cannot be written. */
struct sets {
    fd_set *at[3];
    fd_set copies[3]; /* of what the program asks for */
    fd_set ready[3];  /* what is ready, or what a piece asks for */
    size_t size;
};

/* What a piece gets as its set I. */
static fd_set *ready_set(struct sets *sets, int i)
{
    return sets->at[i] ? &sets->ready[i] : NULL;
}

static int select_piece(struct wait *wait, nsec_t timeout)
{
    struct sets *sets = wait->sets;
    struct timespec space;

    memcpy(sets->ready, sets->copies, sizeof(sets->ready));
    return real_pselect((int)wait->n, ready_set(sets, 0), ready_set(sets, 1),
                        ready_set(sets, 2), timeout_as_timespec(timeout, &space), wait->mask);
}

/* Whether the program has FD in its set I. */
static bool is_in_set(const struct wait *wait, int i, int fd)
{
    return wait->sets->at[i] && FD_ISSET(fd, &wait->sets->copies[i]);
}

static bool select_watch(const struct wait *wait)
{
    for (int fd = 0; fd < (int)wait->n; fd++) {
        if ((is_in_set(wait, 0, fd) || is_in_set(wait, 1, fd) || is_in_set(wait, 2, fd)) &&
            !waiter_watch(&wait->waiter, fd))
            return false;
    }
    return true;
}

/* Fills SETS with what the program waits for, each fd at its place. */
static void fill_sets(const struct wait *wait, fd_set sets[3])
{
    memset(sets, 0, 3 * sizeof(*sets));
    for (int i = 0; i < 3; i++) {
        for (int fd = 0; fd < (int)wait->n; fd++) {
            int place = is_in_set(wait, i, fd) ? pieces_place_of(wait, fd) : -1;

            if (place >= 0 && place < FD_SETSIZE)
                FD_SET(place, &sets[i]);
        }
    }
}

static int select_copies(struct wait *wait, nsec_t timeout)
{
    struct timespec space;
    fd_set sets[3];
    int result;

    fill_sets(wait, sets);
    result = real_pselect(FD_SETSIZE, &sets[0], &sets[1], &sets[2],
                          timeout_as_timespec(timeout, &space), wait->mask);
    for (int fd = 0; fd < FD_SETSIZE && result > 0; fd++) {
        if (FD_ISSET(fd, &sets[0]) || FD_ISSET(fd, &sets[1]) || FD_ISSET(fd, &sets[2]))
            pieces_forget_copy(wait, fd);
    }
    return result;
}

/* Whether there is no file at FD. */
static bool is_closed(int fd)
{
    return raw_syscall(SYS_fcntl, fd, F_GETFD) < 0;
}

/* A closed fd is ready at the end of a select() that began before. */
static int select_look(struct wait *wait)
{
    fd_set *ready = wait->sets->ready;
    int result, closed = 0;

    memset(ready, 0, sizeof(wait->sets->ready));
    for (int i = 0; i < 3; i++) {
        for (int fd = 0; fd < (int)wait->n; fd++) {
            if (is_in_set(wait, i, fd) && !(pieces_was_closed(wait, fd) && is_closed(fd)))
                FD_SET(fd, &ready[i]);
        }
    }
    result = real_pselect((int)wait->n, &ready[0], &ready[1], &ready[2],
                          &(struct timespec){0, 0}, wait->mask);
    if (result < 0)
        return result;
    for (int i = 0; i < 3; i++) {
        for (int fd = 0; fd < (int)wait->n; fd++) {
            if (is_in_set(wait, i, fd) && pieces_was_closed(wait, fd) && is_closed(fd)) {
                FD_SET(fd, &ready[i]);
                closed++;
            }
        }
    }
    return result + closed;
}

static int select_rest(struct wait *wait, nsec_t timeout)
{
    struct sets *sets = wait->sets;
    struct timeval space = {timeout / SECOND, timeout % SECOND / 1000};

    memcpy(sets->ready, sets->copies, sizeof(sets->ready));
    return real_select((int)wait->n, ready_set(sets, 0), ready_set(sets, 1), ready_set(sets, 2),
                       timeout == FOREVER ? NULL : &space);
}

static const struct wait_kind select_kind = {select_piece, select_watch, select_copies,
                                             select_look, select_rest};
static const struct wait_kind pselect_kind = {select_piece, select_watch, select_copies,
                                              select_look, select_piece};

#define WAIT_SELECT(the_kind, the_sets, count, the_mask, time)                                 \
    {                                                                                          \
        .kind = &(the_kind), .sets = (the_sets), .epfd = -1, .n = (nfds_t)(count),             \
        .mask = (the_mask), .whole = (time)                                                    \
    }

/* False when the sets are too large. The kernel uses whole words of a set, as many as N needs.
 */
static bool save_sets(struct sets *sets, int n)
{
    if (n < 0 || n > FD_SETSIZE)
        return false;
    sets->size =
        ((size_t)n + 8 * sizeof(fd_mask) - 1) / (8 * sizeof(fd_mask)) * sizeof(fd_mask);
    for (int i = 0; i < 3; i++) {
        if (sets->at[i])
            memcpy(&sets->copies[i], sets->at[i], sets->size);
    }
    return true;
}

/* Whether the word at AT, which is to be overwritten, can be. Outside the stack the kernel is
 * asked to write the signal mask there; if a seccomp filter blocks the call, it can. */
static bool is_writable(void *at)
{
    return usermem_on_stack((uintptr_t)at, sizeof(uint64_t),
                            (uintptr_t)__builtin_frame_address(0)) ||
           raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, at, sizeof(uint64_t)) != -EFAULT;
}

/* Tells the program what is ready. A set lies in two pages at most. */
static bool write_sets(const struct sets *sets)
{
    for (int i = 0; i < 3; i++) {
        char *at = (char *)sets->at[i];

        if (!at || sets->size == 0)
            continue;
        if (!is_writable(at) || !is_writable(at + sets->size - sizeof(fd_mask)))
            return false;
        memcpy(at, &sets->ready[i], sets->size);
    }
    return true;
}

/* The end of a select() with RESULT: what it returns. */
static int end_select(const struct sets *sets, int result)
{
    if (result < 0 || write_sets(sets))
        return result;
    errno = EFAULT;
    return -1;
}

/* Writes to TIMEOUT what remains of it, as the kernel does, if it can be written (select(2)).
 */
static void write_remaining(const struct wait *wait, struct timeval *timeout)
{
    uint64_t *words = (uint64_t *)(void *)timeout;
    struct timeval asked = *timeout, left = {0, 0}, taken;
    nsec_t rest = pieces_remaining(wait);

    taken = (struct timeval){(wait->whole - rest) / SECOND,
                             ((wait->whole - rest) % SECOND + 999) / 1000};
    if (rest > 0)
        timersub(&asked, &taken, &left);
    for (size_t i = 0; i < sizeof(*timeout) / sizeof(*words); i++) {
        if (!is_writable(&words[i]))
            return;
    }
    *timeout = left;
}

int cut_select(int n, fd_set *readable, fd_set *writable, fd_set *except,
               struct timeval *timeout)
{
    struct sets sets = {.at = {readable, writable, except}};
    struct wait wait = WAIT_SELECT(select_kind, &sets, n, NULL, timeout_from_timeval(timeout));
    int result, saved;

    if (!save_sets(&sets, n) || !pieces_make(&wait, &result))
        return real_select(n, readable, writable, except, timeout);
    result = end_select(&sets, result);
    saved = errno;
    if (timeout)
        write_remaining(&wait, timeout);
    errno = saved;
    return result;
}

int cut_pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                const struct timespec *timeout, const sigset_t *mask)
{
    struct sets sets = {.at = {readable, writable, except}};
    struct wait wait =
        WAIT_SELECT(pselect_kind, &sets, n, mask, timeout_from_timespec(timeout));
    int result;

    return save_sets(&sets, n) && pieces_make(&wait, &result)
               ? end_select(&sets, result)
               : real_pselect(n, readable, writable, except, timeout, mask);
}
