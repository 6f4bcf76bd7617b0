/*
 * Hooks that wait for a connection: epoll, poll() and select(). ioctl() is here as well, as it
 * can ask for a signal.
 */
#include "hooks/hooks.h"

#include <asm/sockios.h>

#include "conn/epoll_reg.h"
#include "conn/oneshot.h"
#include "pool/due.h"
#include "pool/family.h"
#include "hooks/cut_select.h"
#include "hooks/cut_poll.h"
#include "hooks/flags.h"
#include "pool/swap.h"
#include "base/usermem.h"
#include "base/unwind.h"
#include "conn/pollers.h"

#define MINUTE 60 /* seconds */

static int epoll_opened(int fd)
{
    if (fd >= 0)
        track_epoll(fd);
    return fd;
}

HOOKED int epoll_create(int size)
{
    int fd = real_epoll_create(size);

    if (hook_should_retry(fd))
        fd = real_epoll_create(size);
    return epoll_opened(fd);
}

HOOKED int epoll_create1(int flags)
{
    int fd = real_epoll_create1(flags);

    if (hook_should_retry(fd))
        fd = real_epoll_create1(flags);
    return epoll_opened(fd);
}

/* Before the call returns, another thread may get the event and free the memory of EVENT, so
 * EVENT is read before. That thread may also close the connection. It must not be pooled while
 * its new registration is not known to us: the call in flight prevents that. */
int hook_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event,
                   int (*real)(int epfd, int op, int fd, struct epoll_event *event))
{
    struct epoll_event wanted = {0};
    bool known = op == EPOLL_CTL_DEL;
    struct conn *conn;
    int result;

    if (PLAIN(fd))
        return oneshot_any() ? oneshot_ctl(epfd, op, fd, event, real)
                             : real(epfd, op, fd, event);
    conn = conn_get(fd, CONN_CALL_OTHER);
    if (!known && usermem_readable(event, sizeof(*event))) {
        wanted = *event;
        known = true;
    }
    result = real(epfd, op, fd, event);
    if (result == 0 && !known)
        track_refuse(fd, REASON_EPOLL_UNKNOWN);
    else if (result == 0)
        epoll_reg_note(epfd, op, fd, &wanted);
    /* Meanwhile a quit in another thread has removed this registration (conn/oneshot.h). */
    if (result == 0 && op == EPOLL_CTL_MOD && oneshot_any() && oneshot_claim(epfd, fd))
        raw_syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &wanted);
    if (conn)
        conn_put(conn, CONN_CALL_OTHER);
    return result;
}

HOOKED int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return hook_epoll_ctl(epfd, op, fd, event, real_epoll_ctl);
}

/* What FLAGS are after a successful FIONBIO with ARGUMENT, as far as that can be told without a
 * system call: most programs have it on their stack. Looked at before the call. */
static int flags_after(int flags, const int *argument)
{
    if (flags == CONN_UNKNOWN || (uintptr_t)argument % sizeof(int) != 0 ||
        !usermem_word_certain((uintptr_t)argument))
        return CONN_UNKNOWN;
    return *argument ? flags | O_NONBLOCK : flags & ~O_NONBLOCK;
}

static int changing_ioctl(int fd, unsigned long request, void *argument)
{
    struct flags_change change;
    int result, after;

    flags_change_begin(&change, fd);
    after =
        request == FIONBIO && change.conn ? flags_after(change.flags, argument) : CONN_UNKNOWN;
    result = real_ioctl(fd, request, argument);
    if (result == 0 && request == FIONBIO)
        change.flags = after;
    else if (result == 0)
        change.fd_flags = request == FIOCLEX ? FD_CLOEXEC : 0;
    flags_change_end(&change);
    return result;
}

/* Requests for signals cannot be undone at check-in. Others change flags of the connection. */
static __attribute__((noinline)) int tracked_ioctl(int fd, unsigned long request,
                                                   void *argument)
{
    if (hook_is_hidden(fd))
        return -1;
    if (request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP) {
        swap_for_new_if_possible(fd);
        track_refuse(fd, REASON_ODD_FLAGS);
    } else if (request == FIONBIO || request == FIOCLEX || request == FIONCLEX) {
        return changing_ioctl(fd, request, argument);
    }
    return real_ioctl(fd, request, argument);
}

HOOKED int ioctl(int fd, unsigned long request, ...)
{
    void *argument = VARIADIC(request);

    if (PLAIN(fd))
        return real_ioctl(fd, request, argument);
    return tracked_ioctl(fd, request, argument);
}

HOOKED int epoll_wait(int epfd, struct epoll_event *events, int n, int timeout)
{
    due_before_wait(timeout);
    if (due_is_anything())
        return due_after_wait(cut_epoll_wait(epfd, events, n, timeout));
    return real_epoll_wait(epfd, events, n, timeout);
}

HOOKED int epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                       const sigset_t *mask)
{
    due_before_wait(timeout);
    if (due_is_anything())
        return due_after_wait(cut_epoll_pwait(epfd, events, n, timeout, mask));
    return real_epoll_pwait(epfd, events, n, timeout, mask);
}

HOOKED int epoll_pwait2(int epfd, struct epoll_event *events, int n,
                        const struct timespec *timeout, const sigset_t *mask)
{
    if (due_is_anything())
        return due_after_wait(cut_epoll_pwait2(epfd, events, n, timeout, mask));
    return real_epoll_pwait2(epfd, events, n, timeout, mask);
}

/* Whether the process may have a connection to wait for, or work to do meanwhile for its
 * family. Relaxed: a hint. An old value misses a connection that another thread has just made.
 */
static inline bool may_wait_for_any(void)
{
    return atomic_load_explicit(&conn_ever_used, memory_order_relaxed);
}

/* The part of a hook that is for a wait on connections: none of them gets another user during
 * the wait (conn/pollers.h). A function of its own, so that other waits need no frame. */
#define GUARDED static __attribute__((noinline))

struct guard {
    struct pollers pollers;
    struct _pthread_cleanup_buffer cleanup;
};

/* Begin a wait. guard_end() ends it; so does the cleanup handler when the thread is cancelled
 * or a signal handler jumps out of the wait. */
static inline void guard_poll(struct guard *guard, const struct pollfd *fds, nfds_t n)
{
    pollers_poll(&guard->pollers, fds, n);
    _pthread_cleanup_push(&guard->cleanup, pollers_end, &guard->pollers);
}

static inline void guard_select(struct guard *guard, int n, fd_set *readable, fd_set *writable,
                                fd_set *except)
{
    fd_set *sets[] = {readable, writable, except};

    pollers_select(&guard->pollers, n, sets);
    _pthread_cleanup_push(&guard->cleanup, pollers_end, &guard->pollers);
}

/* Whether the wait that GUARD guards may be cut. One that will fail need not be. */
static inline bool may_cut(const struct guard *guard)
{
    return due_is_anything() && guard->pollers.all_read;
}

static inline void guard_end(struct guard *guard)
{
    _pthread_cleanup_pop(&guard->cleanup, 1);
}

GUARDED int guarded_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    struct guard guard;
    int result;

    due_before_wait(timeout);
    guard_poll(&guard, fds, n);
    result = may_cut(&guard) ? due_after_wait(cut_poll(fds, n, timeout))
                             : real_poll(fds, n, timeout);
    guard_end(&guard);
    return result;
}

HOOKED int poll(struct pollfd *fds, nfds_t n, int timeout)
{
    if (!may_wait_for_any() || timeout == 0)
        return real_poll(fds, n, timeout);
    return guarded_poll(fds, n, timeout);
}
HOOKED_ALIAS(__poll, poll);

GUARDED int guarded___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
    struct guard guard;
    int result;

    guard_poll(&guard, fds, n);
    result = may_cut(&guard) ? due_after_wait(cut_poll_chk(fds, n, timeout, room))
                             : real___poll_chk(fds, n, timeout, room);
    guard_end(&guard);
    return result;
}

HOOKED int __poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
    if (!may_wait_for_any() || timeout == 0)
        return real___poll_chk(fds, n, timeout, room);
    return guarded___poll_chk(fds, n, timeout, room);
}

GUARDED int guarded_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                          const sigset_t *mask)
{
    struct guard guard;
    int result;

    guard_poll(&guard, fds, n);
    result = may_cut(&guard) ? due_after_wait(cut_ppoll(fds, n, timeout, mask))
                             : real_ppoll(fds, n, timeout, mask);
    guard_end(&guard);
    return result;
}

HOOKED int ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                 const sigset_t *mask)
{
    if (!may_wait_for_any())
        return real_ppoll(fds, n, timeout, mask);
    return guarded_ppoll(fds, n, timeout, mask);
}

GUARDED int guarded___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                                const sigset_t *mask, size_t room)
{
    struct guard guard;
    int result;

    guard_poll(&guard, fds, n);
    result = may_cut(&guard) ? due_after_wait(cut_ppoll_chk(fds, n, timeout, mask, room))
                             : real___ppoll_chk(fds, n, timeout, mask, room);
    guard_end(&guard);
    return result;
}

HOOKED int __ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                       const sigset_t *mask, size_t room)
{
    if (!may_wait_for_any())
        return real___ppoll_chk(fds, n, timeout, mask, room);
    return guarded___ppoll_chk(fds, n, timeout, mask, room);
}

/* Masters of workers wait in select(). */
COLD static void before_select(const struct timeval *timeout)
{
    if (timeout && usermem_readable(timeout, sizeof(*timeout)) && timeout->tv_sec < MINUTE)
        due_before_wait((int)timeout->tv_sec * 1000 + (int)(timeout->tv_usec / 1000));
}

GUARDED int guarded_select(int n, fd_set *readable, fd_set *writable, fd_set *except,
                           struct timeval *timeout)
{
    struct guard guard;
    int result;

    if (family_get())
        before_select(timeout);
    guard_select(&guard, n, readable, writable, except);
    result = may_cut(&guard)
                 ? due_after_wait(cut_select(n, readable, writable, except, timeout))
                 : real_select(n, readable, writable, except, timeout);
    guard_end(&guard);
    return result;
}

HOOKED int select(int n, fd_set *readable, fd_set *writable, fd_set *except,
                  struct timeval *timeout)
{
    if (!may_wait_for_any())
        return real_select(n, readable, writable, except, timeout);
    return guarded_select(n, readable, writable, except, timeout);
}
HOOKED_ALIAS(__select, select);

GUARDED int guarded_pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                            const struct timespec *timeout, const sigset_t *mask)
{
    struct guard guard;
    int result;

    guard_select(&guard, n, readable, writable, except);
    result = may_cut(&guard)
                 ? due_after_wait(cut_pselect(n, readable, writable, except, timeout, mask))
                 : real_pselect(n, readable, writable, except, timeout, mask);
    guard_end(&guard);
    return result;
}

HOOKED int pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                   const struct timespec *timeout, const sigset_t *mask)
{
    if (!may_wait_for_any())
        return real_pselect(n, readable, writable, except, timeout, mask);
    return guarded_pselect(n, readable, writable, except, timeout, mask);
}
