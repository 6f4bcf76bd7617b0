/*
 * The calls that wait, each in two pieces.
 */
#include "hooks/cut_wait.h"

#include <errno.h>
#include <string.h>

#include "pool/due.h"
#include "base/owner.h"
#include "base/ownfile.h"
#include "base/usermem.h"

/* A time to wait, in nanoseconds. */
typedef int64_t nsec_t;

#define MILLISECOND ((nsec_t)1000000)
#define SECOND      (1000 * MILLISECOND)
#define FOREVER     INT64_MAX

static nsec_t from_ms(int timeout)
{
    return timeout < 0 ? FOREVER : timeout * MILLISECOND;
}

/* 0 for a TIMEOUT that the kernel refuses: such a wait is not cut, so that the kernel sees it.
 */
static nsec_t from_timespec(const struct timespec *timeout)
{
    if (!timeout)
        return FOREVER;
    if (!usermem_readable(timeout, sizeof(*timeout)) || timeout->tv_sec < 0 ||
        timeout->tv_nsec < 0 || timeout->tv_nsec >= SECOND)
        return 0;
    if (timeout->tv_sec > INT32_MAX)
        return FOREVER - 1;
    return timeout->tv_sec * SECOND + timeout->tv_nsec;
}

static nsec_t from_timeval(const struct timeval *timeout)
{
    if (!timeout)
        return FOREVER;
    if (!usermem_readable(timeout, sizeof(*timeout)) || timeout->tv_sec < 0 ||
        timeout->tv_usec < 0 || timeout->tv_usec >= SECOND / 1000)
        return 0;
    if (timeout->tv_sec > INT32_MAX)
        return FOREVER - 1;
    return timeout->tv_sec * SECOND + timeout->tv_usec * 1000;
}

static struct timespec to_timespec(nsec_t ns)
{
    return (struct timespec){ns / SECOND, ns % SECOND};
}

static struct timeval to_timeval(nsec_t ns)
{
    return (struct timeval){ns / SECOND, ns % SECOND / 1000};
}

static int to_ms(nsec_t ns)
{
    return ns == FOREVER ? -1 : (int)((ns + MILLISECOND - 1) / MILLISECOND);
}

/* The first piece of a wait of TIMEOUT; 0 when it is not cut. With several threads it is not:
 * see cut_wait.h. */
static nsec_t first_piece(nsec_t timeout)
{
    nsec_t first;

    if (!owner_is_this_process())
        return 0;
    if (!owner_has_one_thread()) {
        due_ahead_slow();
        return 0;
    }
    first = due_in() * MILLISECOND;
    return first < timeout ? first : 0;
}

/* Whether the program has installed a handler for SIGNAL. */
static bool has_handler(int signal)
{
    struct {
        uintptr_t handler;
        unsigned long flags;
        uintptr_t restorer;
        uint64_t mask;
    } action = {0};

    return raw_syscall(SYS_rt_sigaction, signal, NULL, &action, sizeof(action.mask)) == 0 &&
           action.handler != (uintptr_t)SIG_DFL && action.handler != (uintptr_t)SIG_IGN;
}

/* Whether a handler of the program will run once ownfile_end() unblocks the signals. Not those
 * of libc's own two signals (32 and 33, for cancellation and for setuid() in all threads): the
 * program does not see that they interrupt a call. */
static bool was_interrupted(const struct ownfile *own)
{
    uint64_t pending = 0;

    raw_syscall(SYS_rt_sigpending, &pending, sizeof(pending));
    pending &= ~own->mask;
    for (; pending != 0; pending &= pending - 1) {
        int signal = __builtin_ctzll(pending) + 1;

        if ((signal < 32 || signal > 33) && has_handler(signal))
            return true;
    }
    return false;
}

/* Does the work that is due between the pieces. False, with errno set to EINTR, when the wait
 * ends here. */
static bool do_due_work(void)
{
    struct ownfile own;
    bool interrupted;
    int saved = errno;

    /* Another thread may have entered a sandbox meanwhile, which may forbid every system call
     * below. */
    if (!owner_is_this_process() || !ownfile_begin(&own))
        return true;
    due_slow();
    interrupted = was_interrupted(&own);
    ownfile_end(&own, 0, 0);
    errno = interrupted ? EINTR : saved;
    return !interrupted;
}

/* What remains of a wait of WHOLE after the piece FIRST. */
static nsec_t second_piece(nsec_t whole, nsec_t first)
{
    return whole == FOREVER ? FOREVER : whole - first;
}

int cut_wait_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    nsec_t whole = from_ms(timeout), first = first_piece(whole);
    int result;

    if (first == 0)
        return real_poll(fds, n, timeout);
    result = real_poll(fds, n, to_ms(first));
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    return real_poll(fds, n, to_ms(second_piece(whole, first)));
}

int cut_wait___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
    nsec_t whole = from_ms(timeout), first = first_piece(whole);
    int result;

    if (first == 0)
        return real___poll_chk(fds, n, timeout, room);
    result = real___poll_chk(fds, n, to_ms(first), room);
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    return real___poll_chk(fds, n, to_ms(second_piece(whole, first)), room);
}

int cut_wait_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                   const sigset_t *mask)
{
    nsec_t whole = from_timespec(timeout), first = first_piece(whole);
    struct timespec piece = to_timespec(first);
    int result;

    if (first == 0)
        return real_ppoll(fds, n, timeout, mask);
    result = real_ppoll(fds, n, &piece, mask);
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    piece = to_timespec(whole - first);
    return real_ppoll(fds, n, timeout ? &piece : NULL, mask);
}

int cut_wait___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                         const sigset_t *mask, size_t room)
{
    nsec_t whole = from_timespec(timeout), first = first_piece(whole);
    struct timespec piece = to_timespec(first);
    int result;

    if (first == 0)
        return real___ppoll_chk(fds, n, timeout, mask, room);
    result = real___ppoll_chk(fds, n, &piece, mask, room);
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    piece = to_timespec(whole - first);
    return real___ppoll_chk(fds, n, timeout ? &piece : NULL, mask, room);
}

int cut_wait_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout)
{
    nsec_t whole = from_ms(timeout), first = first_piece(whole);
    int result;

    if (first == 0)
        return real_epoll_wait(epfd, events, n, timeout);
    result = real_epoll_wait(epfd, events, n, to_ms(first));
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    return real_epoll_wait(epfd, events, n, to_ms(second_piece(whole, first)));
}

int cut_wait_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                         const sigset_t *mask)
{
    nsec_t whole = from_ms(timeout), first = first_piece(whole);
    int result;

    if (first == 0)
        return real_epoll_pwait(epfd, events, n, timeout, mask);
    result = real_epoll_pwait(epfd, events, n, to_ms(first), mask);
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    return real_epoll_pwait(epfd, events, n, to_ms(second_piece(whole, first)), mask);
}

int cut_wait_epoll_pwait2(int epfd, struct epoll_event *events, int n,
                          const struct timespec *timeout, const sigset_t *mask)
{
    nsec_t whole = from_timespec(timeout), first = first_piece(whole);
    struct timespec piece = to_timespec(first);
    int result;

    if (first == 0)
        return real_epoll_pwait2(epfd, events, n, timeout, mask);
    result = real_epoll_pwait2(epfd, events, n, &piece, mask);
    if (result != 0)
        return result;
    if (!do_due_work())
        return -1;
    piece = to_timespec(whole - first);
    return real_epoll_pwait2(epfd, events, n, timeout ? &piece : NULL, mask);
}

/* The three sets of select(), and copies of them, as the end of a piece empties the sets. */
struct sets {
    fd_set *at[3];
    fd_set copies[3];
    size_t size;
};

/* False when the sets are too large or cannot be read. The kernel uses whole words of a set, as
 * many as N needs. */
static bool save_sets(struct sets *sets, int n)
{
    if (n < 0 || n > FD_SETSIZE)
        return false;
    sets->size =
        ((size_t)n + 8 * sizeof(fd_mask) - 1) / (8 * sizeof(fd_mask)) * sizeof(fd_mask);
    for (int i = 0; i < 3 && sets->size > 0; i++) {
        if (!sets->at[i])
            continue;
        if (!usermem_readable(sets->at[i], sets->size))
            return false;
        memcpy(&sets->copies[i], sets->at[i], sets->size);
    }
    return true;
}

static void restore_sets(const struct sets *sets)
{
    for (int i = 0; i < 3; i++) {
        if (sets->at[i])
            memcpy(sets->at[i], &sets->copies[i], sets->size);
    }
}

static bool restore_and_work(const struct sets *sets)
{
    restore_sets(sets);
    return do_due_work();
}

/* Whether the word at AT can be written. If that is not known for certain, asks the kernel to
 * write the signal mask there. */
static bool is_writable(uint64_t *at)
{
    return usermem_certain((uintptr_t)at, (uintptr_t)__builtin_frame_address(0)) ||
           raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, at, sizeof(*at)) == 0;
}

/* Writes the remaining time NS to TIMEOUT, as the kernel does, if that can be written
 * (select(2)). */
static void write_remaining(struct timeval *timeout, nsec_t ns)
{
    uint64_t *words = (uint64_t *)(void *)timeout;

    for (size_t i = 0; i < sizeof(*timeout) / sizeof(*words); i++) {
        if (!is_writable(&words[i]))
            return;
    }
    *timeout = to_timeval(ns);
}

int cut_wait_select(int n, fd_set *readable, fd_set *writable, fd_set *except,
                    struct timeval *timeout)
{
    struct sets sets = {.at = {readable, writable, except}};
    nsec_t whole = from_timeval(timeout), first = first_piece(whole);
    struct timeval piece = to_timeval(first);
    nsec_t later = whole - first;
    int result, saved;

    if (first == 0 || !save_sets(&sets, n))
        return real_select(n, readable, writable, except, timeout);
    result = real_select(n, readable, writable, except, &piece);
    if (result == 0 && !restore_and_work(&sets)) {
        result = -1;
    } else if (result == 0) {
        piece = to_timeval(later);
        later = 0;
        result = real_select(n, readable, writable, except, timeout ? &piece : NULL);
    }
    saved = errno;
    if (timeout)
        write_remaining(timeout, later + from_timeval(&piece));
    errno = saved;
    return result;
}

int cut_wait_pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                     const struct timespec *timeout, const sigset_t *mask)
{
    struct sets sets = {.at = {readable, writable, except}};
    nsec_t whole = from_timespec(timeout), first = first_piece(whole);
    struct timespec piece = to_timespec(first);
    int result;

    if (first == 0 || !save_sets(&sets, n))
        return real_pselect(n, readable, writable, except, timeout, mask);
    result = real_pselect(n, readable, writable, except, &piece, mask);
    if (result != 0)
        return result;
    if (!restore_and_work(&sets))
        return -1;
    piece = to_timespec(whole - first);
    return real_pselect(n, readable, writable, except, timeout ? &piece : NULL, mask);
}
