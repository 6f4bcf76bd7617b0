/*
 * The calls that wait, in pieces.
 */
#include "hooks/cut_wait.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <string.h>
#include <sys/time.h>
#include <time.h>

#include "pool/due.h"
#include "pool/pool.h"
#include "conn/waiter.h"
#include "base/owner.h"
#include "base/signals.h"
#include "base/unwind.h"
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

/* More than a century is cut like a century, as more nanoseconds may not fit. */
static nsec_t from_seconds(time_t seconds)
{
    return (seconds < UINT32_MAX ? seconds : UINT32_MAX) * SECOND;
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
    return from_seconds(timeout->tv_sec) + timeout->tv_nsec;
}

static nsec_t from_timeval(const struct timeval *timeout)
{
    if (!timeout)
        return FOREVER;
    if (!usermem_readable(timeout, sizeof(*timeout)) || timeout->tv_sec < 0 ||
        timeout->tv_usec < 0 || timeout->tv_usec >= SECOND / 1000)
        return 0;
    return from_seconds(timeout->tv_sec) + timeout->tv_usec * 1000;
}

/* Fills SPACE; NULL for FOREVER, as the calls want it. */
static const struct timespec *to_timespec(nsec_t ns, struct timespec *space)
{
    *space = (struct timespec){ns / SECOND, ns % SECOND};
    return ns == FOREVER ? NULL : space;
}

static int to_ms(nsec_t ns)
{
    return ns == FOREVER ? -1 : (int)((ns + MILLISECOND - 1) / MILLISECOND);
}

static nsec_t now(void)
{
    struct timespec time = {0};

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* The three sets of select(). A piece has sets of its own: its end empties them, and that of
 * the whole call may find that the program's sets cannot be written. */
struct sets {
    fd_set *at[3];
    fd_set copies[3]; /* of what the program asks for */
    fd_set ready[3];  /* what is ready, or what a piece asks for */
    size_t size;
};

struct wait;

/* What the calls have of their own. The signals of the program are blocked before each of them
 * and after it. */
struct kind {
    /* Makes one piece. */
    int (*piece)(struct wait *wait, nsec_t timeout);
    /* Lists all fds for the waiter; false when it cannot. */
    bool (*watch)(const struct wait *wait);
    /* Makes one piece with the copies of closed fds, and forgets a copy that ends it. */
    int (*piece_of_copies)(struct wait *wait, nsec_t timeout);
    /* Tells the program what is at its fds now. NULL: the piece has told it. */
    int (*look)(struct wait *wait);
    /* Makes the program's own call for the rest of the time, after the signals are as before.
     */
    int (*rest)(struct wait *wait, nsec_t timeout);
};

/* A wait of the program. */
struct wait {
    const struct kind *kind;
    union {
        struct pollfd *fds;
        struct epoll_event *events;
        struct sets *sets;
    };
    int epfd;
    nfds_t n;             /* of fds or events, or what select() gets */
    const sigset_t *mask; /* for the pieces: the program's, or `blocked` */
    sigset_t blocked;     /* what was blocked before the wait */
    nsec_t whole;
    nsec_t began;
    nsec_t passed;        /* in pieces that ended by their time-out, at least */
    struct waiter waiter; /* no seat in a process that never had threads */
    bool recalled; /* another thread enters a sandbox: we make no more calls of our own */
    struct waiter_closed closed[WAITER_CLOSED_MOST]; /* as the last piece knew them */
    unsigned int closed_count;
};

/* The clock may stand, or go slower than the kernel's: libfaketime lets programs have that. */
static nsec_t elapsed(const struct wait *wait)
{
    nsec_t by_clock = now() - wait->began;

    return by_clock > wait->passed ? by_clock : wait->passed;
}

static nsec_t remaining(const struct wait *wait)
{
    nsec_t left;

    if (wait->whole == FOREVER)
        return FOREVER;
    left = wait->whole - elapsed(wait);
    return left > 0 ? left : 0;
}

/* A set of signals as the kernel has it, which is smaller than libc's sigset_t. */
#define SET_OF(signal) (UINT64_C(1) << ((signal)-1))
#define ALL_SIGNALS    (~UINT64_C(0))
#define NEVER_BLOCKED  (SET_OF(SIGKILL) | SET_OF(SIGSTOP))

/* libc's own, by which it cancels a thread and changes the ids of all. A thread to which the
 * first was sent waits for it when it leaves a call that can be cancelled, for ever if it is
 * blocked. The handlers do nothing that a wait must be ended for. */
#define OF_LIBC (SET_OF(__SIGRTMIN) | SET_OF(__SIGRTMIN + 1))

static long set_blocked(const void *blocked, void *former)
{
    return raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, blocked, former, sizeof(uint64_t));
}

/* Cleanup handler: the thread was cancelled, or a signal handler has jumped out of a piece. In
 * a handler the kernel has set the signals that the program expects. A thread that was
 * cancelled before a piece has all of them blocked. */
static void left(void *argument)
{
    const struct wait *wait = argument;
    uint64_t blocked = 0;

    if (wait->waiter.seat)
        waiter_leave(&wait->waiter);
    raw_syscall(SYS_rt_sigprocmask, SIG_BLOCK, NULL, &blocked, sizeof(blocked));
    if ((blocked | NEVER_BLOCKED | OF_LIBC) == ALL_SIGNALS)
        set_blocked(&wait->blocked, NULL);
}

/* Whether the program ignores SIGNAL. */
static bool is_ignored(int signal)
{
    const uint64_t by_default =
        SET_OF(SIGCHLD) | SET_OF(SIGCONT) | SET_OF(SIGURG) | SET_OF(SIGWINCH);
    uintptr_t handler;

    if (!signals_handler(signal, &handler))
        return false;
    return handler == (uintptr_t)SIG_IGN ||
           (handler == (uintptr_t)SIG_DFL && SET_OF(signal) & by_default);
}

/* Discards pending signals that the program ignores, as the kernel does when they are not
 * blocked. One of them would end epoll_pwait() with EINTR; ppoll() and pselect() go on. */
static void discard_ignored(const struct wait *wait)
{
    struct timespec at_once = {0, 0};
    uint64_t pending = 0, ignored = 0, blocked;

    memcpy(&blocked, wait->mask, sizeof(blocked));
    raw_syscall(SYS_rt_sigpending, &pending, sizeof(pending));
    for (pending &= ~blocked; pending != 0; pending &= pending - 1) {
        int signal = __builtin_ctzll(pending) + 1;

        if (is_ignored(signal))
            ignored |= SET_OF(signal);
    }
    while (ignored != 0 &&
           raw_syscall(SYS_rt_sigtimedwait, &ignored, NULL, &at_once, sizeof(ignored)) > 0)
        ;
}

/* Elects the calling thread, whose first piece ends at UNTIL, and lists what it waits for.
 * Where that is not possible the work is done before the wait. */
static bool elect(struct wait *wait, msec_t until)
{
    if (!waiter_elect(&wait->waiter, until))
        return false;
    if (wait->kind->watch(wait))
        return true;
    waiter_leave(&wait->waiter);
    due_ahead_slow();
    return false;
}

/* The first piece of WAIT; 0 when it is not cut. */
static msec_t first_piece(const struct wait *wait)
{
    msec_t first;

    if (!owner_is_this_process())
        return 0;
    if (pool_is_dry_run()) {
        due_ahead_slow();
        return 0;
    }
    first = due_in(0);
    return first * MILLISECOND < wait->whole ? first : 0;
}

/* Does the work that is due after a piece. Returns the length of the next piece, and in LAST
 * whether no work is due before the end of the wait. */
static nsec_t next_piece(struct wait *wait, bool *last)
{
    nsec_t rest;
    msec_t next;

    pool_count_piece();
    next = due_in(elapsed(wait) / MILLISECOND + 1);
    rest = remaining(wait);

    if (wait->epfd >= 0)
        discard_ignored(wait);
    if (next * MILLISECOND >= rest)
        next = 0;
    if (wait->waiter.seat && !waiter_go_on(&wait->waiter, next == 0 ? 0 : clock_now() + next))
        next = 0;
    *last = next == 0;
    return *last ? rest : next * MILLISECOND;
}

/* The fd that a piece waits for as FD; -1: none, as it is closed and there is no copy. */
static int place_of(const struct wait *wait, int fd)
{
    for (unsigned int i = 0; i < wait->closed_count; i++) {
        if (wait->closed[i].fd == fd)
            return wait->closed[i].copy;
    }
    return fd;
}

/* COPY has ended a piece. It does so once, as the old file wakes up a wait in the kernel once.
 */
static void forget_copy(struct wait *wait, int copy)
{
    for (unsigned int i = 0; i < wait->closed_count; i++) {
        if (wait->closed[i].copy == copy)
            wait->closed[i].copy = -1;
    }
}

static bool is_known(const struct wait *wait, int fd)
{
    for (unsigned int i = 0; i < wait->closed_count; i++) {
        if (wait->closed[i].fd == fd)
            return true;
    }
    return false;
}

/* Adds what other threads have closed since the last look; whether there is any. */
static bool look_for_closed(struct wait *wait)
{
    struct waiter_closed closed[WAITER_CLOSED_MOST];
    unsigned int count = waiter_closed(&wait->waiter, closed), before = wait->closed_count;

    for (unsigned int i = 0; i < count && wait->closed_count < WAITER_CLOSED_MOST; i++) {
        if (!is_known(wait, closed[i].fd))
            wait->closed[wait->closed_count++] = closed[i];
    }
    return wait->closed_count > before;
}

/* Whether a piece has RESULT although nothing has happened, because something was closed. What
 * epoll_wait() has taken from a set is the result in any case. */
static bool is_doubtful(struct wait *wait, int result)
{
    return result != 0 && !(result < 0 && errno == EINTR) && (wait->kind->look || result < 0) &&
           look_for_closed(wait);
}

/* A piece of LENGTH has RESULT. Returns RESULT. */
static int note_passed(struct wait *wait, int result, nsec_t length)
{
    if (result == 0)
        wait->passed += length;
    return result;
}

/* One piece. At its end the kernel looks at the fds by their numbers. So it tells the program
 * of a closed fd, or of another file with that number, which it would do in one long wait only
 * once something happens. */
static int make_piece(struct wait *wait, nsec_t length)
{
    int result;

    if (wait->waiter.seat)
        look_for_closed(wait);
    if (wait->closed_count == 0) {
        result = note_passed(wait, wait->kind->piece(wait, length), length);
        if (!wait->waiter.seat || !is_doubtful(wait, result))
            return result;
        length = 0;
    }
    result = note_passed(wait, wait->kind->piece_of_copies(wait, length), length);
    return result > 0 && wait->kind->look ? wait->kind->look(wait) : result;
}

/* Whether a piece with RESULT ended because the process is about to enter a sandbox. */
static bool is_recalled(const struct wait *wait, int result)
{
    return wait->waiter.seat && (result == 0 || (result < 0 && errno == EINTR)) &&
           !owner_is_this_process();
}

/* False when the first piece fails for another reason than a signal. */
static bool make_pieces(struct wait *wait, nsec_t length, int *result)
{
    bool last = false;

    *result = make_piece(wait, length);
    if (*result == -1 && errno != EINTR)
        return false;
    wait->recalled = is_recalled(wait, *result);
    /* The old file of a closed fd may end even the last piece early. */
    while (*result == 0 && (!last || remaining(wait) > 0) && !wait->recalled) {
        length = next_piece(wait, &last);
        *result = make_piece(wait, last ? remaining(wait) : length);
        wait->recalled = is_recalled(wait, *result);
    }
    if (*result == 0 && !wait->recalled && wait->closed_count > 0 && wait->kind->look)
        *result = wait->kind->look(wait);
    return true;
}

/* A piece of a millisecond only asks whether anything is ready (due_in()). epoll_wait() cannot
 * wait for less, and its callers have many events. */
static nsec_t length_of_first(const struct wait *wait, msec_t first)
{
    return first == 1 && wait->epfd < 0 ? 0 : first * MILLISECOND;
}

/* The wait with the program's signals blocked, and its first piece FIRST milliseconds long. */
static bool cut_blocked(struct wait *wait, msec_t first, int *result)
{
    bool done;

    if (!owner_never_had_threads() && !elect(wait, clock_now() + first))
        return false;
    done = make_pieces(wait, length_of_first(wait, first), result);
    if (wait->waiter.seat)
        waiter_leave(&wait->waiter);
    return done;
}

/* Not inlined: its frame need not be there while its caller does what is due. */
static __attribute__((noinline)) bool cut_from(struct wait *wait, msec_t first, int *result)
{
    const uint64_t programs = ALL_SIGNALS & ~OF_LIBC;
    struct _pthread_cleanup_buffer cleanup;
    bool done = false;

    _pthread_cleanup_push(&cleanup, left, wait);
    if (set_blocked(&programs, &wait->blocked) == 0) {
        int error;

        if (!wait->mask)
            wait->mask = &wait->blocked;
        done = cut_blocked(wait, first, result);
        error = errno;
        set_blocked(&wait->blocked, NULL);
        errno = error;
    }
    _pthread_cleanup_pop(&cleanup, 0);
    return done;
}

/* Makes WAIT in pieces. False when it was not cut, or could not be: the program's own call
 * waits then, or says what is wrong. errno is kept unless RESULT is -1. */
static bool cut(struct wait *wait, int *result)
{
    int saved = errno;
    msec_t first = first_piece(wait);
    bool done;

    if (first == 0 || (!owner_never_had_threads() && !waiter_is_wanted(clock_now() + first)))
        return false;
    /* A cancellation that is pending must not find the signals blocked. */
    unwind_testcancel();
    wait->began = now();
    done = cut_from(wait, first, result);
    if (!done || *result != -1)
        errno = saved;
    if (wait->recalled)
        *result = wait->kind->rest(wait, remaining(wait));
    return done;
}

static int poll_piece(struct wait *wait, nsec_t timeout)
{
    struct timespec space;

    return real_ppoll(wait->fds, wait->n, to_timespec(timeout, &space), wait->mask);
}

static bool poll_watch(const struct wait *wait)
{
    if (wait->n > WAITER_FDS_MOST)
        return false;
    for (nfds_t i = 0; i < wait->n; i++) {
        if (!waiter_watch(&wait->waiter, wait->fds[i].fd))
            return false;
    }
    return true;
}

static int poll_copies(struct wait *wait, nsec_t timeout)
{
    struct pollfd fds[WAITER_FDS_MOST];
    struct timespec space;
    int result;

    for (nfds_t i = 0; i < wait->n; i++)
        fds[i] = (struct pollfd){place_of(wait, wait->fds[i].fd), wait->fds[i].events, 0};
    result = real_ppoll(fds, wait->n, to_timespec(timeout, &space), wait->mask);
    for (nfds_t i = 0; i < wait->n && result > 0; i++) {
        if (fds[i].revents != 0)
            forget_copy(wait, fds[i].fd);
    }
    return result;
}

static int poll_look(struct wait *wait)
{
    return poll_piece(wait, 0);
}

static int poll_rest(struct wait *wait, nsec_t timeout)
{
    return real_poll(wait->fds, wait->n, to_ms(timeout));
}

static const struct kind poll_kind = {poll_piece, poll_watch, poll_copies, poll_look,
                                      poll_rest};
static const struct kind ppoll_kind = {poll_piece, poll_watch, poll_copies, poll_look,
                                       poll_piece};

/* The copy of a closed set takes the place of the set. */
static int epoll_piece(struct wait *wait, nsec_t timeout)
{
    return real_epoll_pwait(place_of(wait, wait->epfd), wait->events, (int)wait->n,
                            to_ms(timeout), wait->mask);
}

static int epoll2_piece(struct wait *wait, nsec_t timeout)
{
    struct timespec space;

    return real_epoll_pwait2(place_of(wait, wait->epfd), wait->events, (int)wait->n,
                             to_timespec(timeout, &space), wait->mask);
}

static bool epoll_watch(const struct wait *wait)
{
    return waiter_watch(&wait->waiter, wait->epfd);
}

static int epoll_rest(struct wait *wait, nsec_t timeout)
{
    return real_epoll_wait(wait->epfd, wait->events, (int)wait->n, to_ms(timeout));
}

static const struct kind epoll_kind = {epoll_piece, epoll_watch, epoll_piece, NULL, epoll_rest};
static const struct kind epoll_pwait_kind = {epoll_piece, epoll_watch, epoll_piece, NULL,
                                             epoll_piece};
static const struct kind epoll_pwait2_kind = {epoll2_piece, epoll_watch, epoll2_piece, NULL,
                                              epoll2_piece};

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
                        ready_set(sets, 2), to_timespec(timeout, &space), wait->mask);
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
            int place = is_in_set(wait, i, fd) ? place_of(wait, fd) : -1;

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
                          to_timespec(timeout, &space), wait->mask);
    for (int fd = 0; fd < FD_SETSIZE && result > 0; fd++) {
        if (FD_ISSET(fd, &sets[0]) || FD_ISSET(fd, &sets[1]) || FD_ISSET(fd, &sets[2]))
            forget_copy(wait, fd);
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
            if (is_in_set(wait, i, fd) && !(is_known(wait, fd) && is_closed(fd)))
                FD_SET(fd, &ready[i]);
        }
    }
    result = real_pselect((int)wait->n, &ready[0], &ready[1], &ready[2],
                          &(struct timespec){0, 0}, wait->mask);
    if (result < 0)
        return result;
    for (int i = 0; i < 3; i++) {
        for (int fd = 0; fd < (int)wait->n; fd++) {
            if (is_in_set(wait, i, fd) && is_known(wait, fd) && is_closed(fd)) {
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

static const struct kind select_kind = {select_piece, select_watch, select_copies, select_look,
                                        select_rest};
static const struct kind pselect_kind = {select_piece, select_watch, select_copies, select_look,
                                         select_piece};

#define WAIT_POLL(the_kind, the_fds, count, the_mask, time)                                    \
    {                                                                                          \
        .kind = &(the_kind), .fds = (the_fds), .epfd = -1, .n = (count), .mask = (the_mask),   \
        .whole = (time)                                                                        \
    }

int cut_wait_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    struct wait wait = WAIT_POLL(poll_kind, fds, n, NULL, from_ms(timeout));
    int result;

    return cut(&wait, &result) ? result : real_poll(fds, n, timeout);
}

/* The real function ends the program when ROOM is too small. */
int cut_wait___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
    struct wait wait = WAIT_POLL(poll_kind, fds, n, NULL, from_ms(timeout));
    int result;

    return n <= room / sizeof(*fds) && cut(&wait, &result)
               ? result
               : real___poll_chk(fds, n, timeout, room);
}

int cut_wait_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                   const sigset_t *mask)
{
    struct wait wait = WAIT_POLL(ppoll_kind, fds, n, mask, from_timespec(timeout));
    int result;

    return cut(&wait, &result) ? result : real_ppoll(fds, n, timeout, mask);
}

int cut_wait___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                         const sigset_t *mask, size_t room)
{
    struct wait wait = WAIT_POLL(ppoll_kind, fds, n, mask, from_timespec(timeout));
    int result;

    return n <= room / sizeof(*fds) && cut(&wait, &result)
               ? result
               : real___ppoll_chk(fds, n, timeout, mask, room);
}

/* COUNT may be negative, which the kernel refuses; so it does a negative fd. */
#define WAIT_EPOLL(the_kind, set, list, count, the_mask, time)                                 \
    {                                                                                          \
        .kind = &(the_kind), .events = (list), .epfd = (set), .n = (nfds_t)(count),            \
        .mask = (the_mask), .whole = (time)                                                    \
    }

int cut_wait_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout)
{
    struct wait wait = WAIT_EPOLL(epoll_kind, epfd, events, n, NULL, from_ms(timeout));
    int result;

    return cut(&wait, &result) ? result : real_epoll_wait(epfd, events, n, timeout);
}

int cut_wait_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                         const sigset_t *mask)
{
    struct wait wait = WAIT_EPOLL(epoll_pwait_kind, epfd, events, n, mask, from_ms(timeout));
    int result;

    return cut(&wait, &result) ? result : real_epoll_pwait(epfd, events, n, timeout, mask);
}

int cut_wait_epoll_pwait2(int epfd, struct epoll_event *events, int n,
                          const struct timespec *timeout, const sigset_t *mask)
{
    struct wait wait =
        WAIT_EPOLL(epoll_pwait2_kind, epfd, events, n, mask, from_timespec(timeout));
    int result;

    return cut(&wait, &result) ? result : real_epoll_pwait2(epfd, events, n, timeout, mask);
}

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
    nsec_t rest = remaining(wait);

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

int cut_wait_select(int n, fd_set *readable, fd_set *writable, fd_set *except,
                    struct timeval *timeout)
{
    struct sets sets = {.at = {readable, writable, except}};
    struct wait wait = WAIT_SELECT(select_kind, &sets, n, NULL, from_timeval(timeout));
    int result, saved;

    if (!save_sets(&sets, n) || !cut(&wait, &result))
        return real_select(n, readable, writable, except, timeout);
    result = end_select(&sets, result);
    saved = errno;
    if (timeout)
        write_remaining(&wait, timeout);
    errno = saved;
    return result;
}

int cut_wait_pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                     const struct timespec *timeout, const sigset_t *mask)
{
    struct sets sets = {.at = {readable, writable, except}};
    struct wait wait = WAIT_SELECT(pselect_kind, &sets, n, mask, from_timespec(timeout));
    int result;

    return save_sets(&sets, n) && cut(&wait, &result)
               ? end_select(&sets, result)
               : real_pselect(n, readable, writable, except, timeout, mask);
}
