/*
 * Cuts a wait of the program in two, to do work that becomes due during it (pool/due.h): the
 * call waits until then, does the work, and waits for the rest. The program sees one call: the
 * same result, errno, events and remaining time, the same cancellation point.
 *
 * A wait is cut at most once, so it costs one more wake-up. Each piece calls the function that
 * the program called, as another preloaded library may have a hook of its own behind ours.
 *
 * In a process with several threads no wait is cut. If another thread closes an fd, a wait in
 * the kernel goes on for the old file. A second piece would find a closed fd, or the events of
 * another epoll set. In such a process the work is done before the wait, as for accept().
 *
 * A signal handler that runs between the pieces must end the wait, as one that runs in a piece
 * does. So signals are blocked between them. If one has come, the wait ends with EINTR once its
 * handler has run (signal(7): these calls are never restarted).
 */
#ifndef MCPOOL_CUT_WAIT_H
#define MCPOOL_CUT_WAIT_H

#include "base/compiler.h"
#include "hooks/libc.h"

/* Each does what the function of that name does, errors included. Not inlined, so that a hook
 * whose wait is not cut needs no frame. */
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
