/*
 * Waits that are cut: a call that would wait beyond the moment at which something is due
 * (pool/due.h) waits until then, the work is done, and it waits for the rest. The program sees
 * one call: the same result, errno, events and time that remains, the same cancellation point.
 *
 * A wait is cut once, so that it costs one wake-up more. Each piece calls the function that the
 * program called, as another preloaded library may have a hook of its own behind ours.
 *
 * In a process with threads no wait is cut. When another thread closes an fd, the kernel still
 * waits for the old file; a second piece would meet a closed fd, or take the events of another
 * epoll set. There the work is done before the wait, as for accept().
 *
 * A signal handler that runs between the pieces must end the wait, as one that runs during it
 * does. So signals are blocked there, and a signal that came meanwhile makes the wait end with
 * EINTR, as soon as its handler has run (signal(7): these calls are never restarted).
 */
#ifndef MCPOOL_CUT_WAIT_H
#define MCPOOL_CUT_WAIT_H

#include "base/compiler.h"
#include "hooks/libc.h"

/* Each as the function of that name. Not inlined: a hook whose wait is not cut needs no frame.
 */
#define IN_PIECES COLD __attribute__((noinline))
IN_PIECES int cut_wait_poll(struct pollfd *fds, nfds_t n, int timeout);
IN_PIECES int cut_wait___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
IN_PIECES int cut_wait_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                             const sigset_t *mask);
IN_PIECES int cut_wait___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                                   const sigset_t *mask, size_t room);
IN_PIECES int cut_wait_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout);
IN_PIECES int cut_wait_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                                   const sigset_t *mask);
IN_PIECES int cut_wait_epoll_pwait2(int epfd, struct epoll_event *events, int n,
                                    const struct timespec *timeout, const sigset_t *mask);
IN_PIECES int cut_wait_select(int n, fd_set *readable, fd_set *writable, fd_set *except,
                              struct timeval *timeout);
IN_PIECES int cut_wait_pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                               const struct timespec *timeout, const sigset_t *mask);

#endif
