/*
 * Who waits for a connection: epoll sets, signals asked for by ioctl(), threads in poll() and
 * select().
 */
#include "hooks/hooks.h"

#include <asm/sockios.h>

#include "conn/epoll_reg.h"
#include "conn/oneshot.h"
#include "pool/due.h"
#include "hooks/pieces.h"
#include "pool/swap.h"
#include "base/usermem.h"
#include "base/unwind.h"
#include "conn/pollers.h"

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

/* Another thread may get the event, and give the memory of EVENT back, before the call returns.
 * It may also close the connection, which must not be kept before the registration is known.
 */
int hook_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event,
                   int (*real)(int epfd, int op, int fd, struct epoll_event *event))
{
    struct epoll_event wanted = {0};
    bool known = op == EPOLL_CTL_DEL;
    struct conn *conn;
    int result;

    if (PLAIN(fd))
        return disarmed_any() ? disarmed_ctl(epfd, op, fd, event, real)
                              : real(epfd, op, fd, event);
    conn = conn_enter(fd, CONN_CALL_OTHER);
    if (!known && is_readable(event, sizeof(*event))) {
        wanted = *event;
        known = true;
    }
    result = real(epfd, op, fd, event);
    if (result == 0 && !known)
        track_refuse(fd, REASON_EPOLL_UNKNOWN);
    else if (result == 0)
        epoll_reg_note(epfd, op, fd, &wanted);
    /* A goodbye of another thread has taken this registration off since. */
    if (result == 0 && op == EPOLL_CTL_MOD && disarmed_any() && disarmed_take(epfd, fd))
        raw_syscall(SYS_epoll_ctl, epfd, EPOLL_CTL_ADD, fd, &wanted);
    if (conn)
        conn_leave(conn, CONN_CALL_OTHER);
    return result;
}

HOOKED int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return hook_epoll_ctl(epfd, op, fd, event, real_epoll_ctl);
}

/* What cannot be undone, and what sets flags. */
static __attribute__((noinline)) int tracked_ioctl(int fd, unsigned long request,
                                                   void *argument)
{
    struct conn *conn = NULL;
    int result;

    if (request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP) {
        protocol_renew_if_possible(fd);
        track_refuse(fd, REASON_ODD_FLAGS);
    } else if (request == FIONBIO || request == FIOCLEX || request == FIONCLEX) {
        conn = track_set_flags(fd);
    }
    result = real_ioctl(fd, request, argument);
    if (conn)
        conn_leave(conn, CONN_CALL_OTHER);
    return result;
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
    if (due_is_anything())
        return pieces_epoll_wait(epfd, events, n, timeout);
    return real_epoll_wait(epfd, events, n, timeout);
}

HOOKED int epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                       const sigset_t *mask)
{
    if (due_is_anything())
        return pieces_epoll_pwait(epfd, events, n, timeout, mask);
    return real_epoll_pwait(epfd, events, n, timeout, mask);
}

HOOKED int epoll_pwait2(int epfd, struct epoll_event *events, int n,
                        const struct timespec *timeout, const sigset_t *mask)
{
    if (due_is_anything())
        return pieces_epoll_pwait2(epfd, events, n, timeout, mask);
    return real_epoll_pwait2(epfd, events, n, timeout, mask);
}

/* A call NAME that waits if it MAY_WAIT, for what BEGIN finds; see conn/pollers.h. */
#define WAITS(name, params, args, may_wait, begin)                                             \
    static __attribute__((noinline)) int guarded_##name params                                 \
    {                                                                                          \
        struct _pthread_cleanup_buffer cleanup;                                                \
        struct waiting waiting;                                                                \
        int result;                                                                            \
                                                                                               \
        begin;                                                                                 \
        _pthread_cleanup_push(&cleanup, waiting_end, &waiting);                                \
        result = due_is_anything() ? pieces_##name args : real_##name args;                    \
        _pthread_cleanup_pop(&cleanup, 1);                                                     \
        return result;                                                                         \
    }                                                                                          \
    HOOKED int name params                                                                     \
    {                                                                                          \
        if (!atomic_load_explicit(&conn_ever_used, memory_order_relaxed) || !(may_wait))       \
            return real_##name args;                                                           \
        return guarded_##name args;                                                            \
    }

WAITS(poll, (struct pollfd * fds, nfds_t n, int timeout), (fds, n, timeout), timeout != 0,
      waiting_poll(&waiting, fds, n))
HOOKED_ALIAS(__poll, poll);

WAITS(__poll_chk, (struct pollfd * fds, nfds_t n, int timeout, size_t room),
      (fds, n, timeout, room), timeout != 0, waiting_poll(&waiting, fds, n))

WAITS(ppoll,
      (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask),
      (fds, n, timeout, mask), true, waiting_poll(&waiting, fds, n))

WAITS(__ppoll_chk,
      (struct pollfd * fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask,
       size_t room),
      (fds, n, timeout, mask, room), true, waiting_poll(&waiting, fds, n))

#define SETS ((fd_set *[]){readable, writable, odd})

WAITS(select, (int n, fd_set *readable, fd_set *writable, fd_set *odd, struct timeval *timeout),
      (n, readable, writable, odd, timeout), true, waiting_select(&waiting, n, SETS))
HOOKED_ALIAS(__select, select);

WAITS(pselect,
      (int n, fd_set *readable, fd_set *writable, fd_set *odd, const struct timespec *timeout,
       const sigset_t *mask),
      (n, readable, writable, odd, timeout, mask), true, waiting_select(&waiting, n, SETS))
