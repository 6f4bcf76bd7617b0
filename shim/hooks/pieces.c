/*
 * A wait in pieces.
 */
#include "hooks/pieces.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <time.h>

#include "pool/due.h"
#include "pool/pool.h"
#include "base/owner.h"
#include "base/signals.h"
#include "base/unwind.h"

static nsec_t now(void)
{
    struct timespec time = {0};

    clock_gettime(CLOCK_MONOTONIC, &time);
    return time.tv_sec * SECOND + time.tv_nsec;
}

/* The clock may stand, or go slower than the kernel's: libfaketime lets programs have that. */
static nsec_t elapsed(const struct wait *wait)
{
    nsec_t by_clock = now() - wait->began;

    return by_clock > wait->passed ? by_clock : wait->passed;
}

nsec_t pieces_remaining(const struct wait *wait)
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
    rest = pieces_remaining(wait);

    if (wait->epfd >= 0)
        discard_ignored(wait);
    if (next * MILLISECOND >= rest)
        next = 0;
    if (wait->waiter.seat && !waiter_go_on(&wait->waiter, next == 0 ? 0 : clock_now() + next))
        next = 0;
    *last = next == 0;
    return *last ? rest : next * MILLISECOND;
}

int pieces_place_of(const struct wait *wait, int fd)
{
    for (unsigned int i = 0; i < wait->closed_count; i++) {
        if (wait->closed[i].fd == fd)
            return wait->closed[i].copy;
    }
    return fd;
}

void pieces_forget_copy(struct wait *wait, int copy)
{
    for (unsigned int i = 0; i < wait->closed_count; i++) {
        if (wait->closed[i].copy == copy)
            wait->closed[i].copy = -1;
    }
}

bool pieces_was_closed(const struct wait *wait, int fd)
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
        if (!pieces_was_closed(wait, closed[i].fd))
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
    while (*result == 0 && (!last || pieces_remaining(wait) > 0) && !wait->recalled) {
        length = next_piece(wait, &last);
        *result = make_piece(wait, last ? pieces_remaining(wait) : length);
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

bool pieces_make(struct wait *wait, int *result)
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
        *result = wait->kind->rest(wait, pieces_remaining(wait));
    return done;
}
