/*
 * Waits that are cut: a call that would wait beyond the moment at which something is due
 * (pool/due.h) waits until then, the work is done, and it waits for the rest. The program sees
 * one call: the same result, errno, events and time that remains, the same cancellation point.
 *
 * A wait is cut once, so that it costs one wake-up more. Each piece is the function that the
 * program has called, as another library may have put its own behind us.
 *
 * In a process with threads nothing is cut: the kernel holds what a wait was called for until
 * it ends, also when another thread closes the fd, and the second piece would meet a closed fd,
 * or take the events of another epoll set. There the work is done before the wait, as for
 * accept().
 *
 * A handler that runs between the pieces must end the wait as one that runs in it does: signals
 * are blocked there, and one that came meanwhile makes the wait end with EINTR, as soon as its
 * handler has run (signal(7): these calls are never restarted).
 */
#ifndef MCPOOL_PIECES_H
#define MCPOOL_PIECES_H

#include "base/compiler.h"
#include "hooks/libc.h"

/* Each as the function of that name. */
COLD int pieces_poll(struct pollfd *fds, nfds_t n, int timeout);
COLD int pieces___poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
COLD int pieces_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                      const sigset_t *mask);
COLD int pieces___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                            const sigset_t *mask, size_t room);
COLD int pieces_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout);
COLD int pieces_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                            const sigset_t *mask);
COLD int pieces_epoll_pwait2(int epfd, struct epoll_event *events, int n,
                             const struct timespec *timeout, const sigset_t *mask);
COLD int pieces_select(int n, fd_set *readable, fd_set *writable, fd_set *odd,
                       struct timeval *timeout);
COLD int pieces_pselect(int n, fd_set *readable, fd_set *writable, fd_set *odd,
                        const struct timespec *timeout, const sigset_t *mask);

#endif
