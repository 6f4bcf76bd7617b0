/*
 * poll(), epoll_wait() and their forms, cut into pieces (hooks/pieces.h).
 */
#ifndef MCPOOL_CUT_POLL_H
#define MCPOOL_CUT_POLL_H

#include "hooks/libc.h"
#include "hooks/pieces.h"

/* Each does what the function of that name does, errors included. No lock may be held. */
IN_PIECES int cut_poll(struct pollfd *fds, nfds_t n, int timeout);
IN_PIECES int cut_poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room);
IN_PIECES int cut_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                        const sigset_t *mask);
IN_PIECES int cut_ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                            const sigset_t *mask, size_t room);
IN_PIECES int cut_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout);
IN_PIECES int cut_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                              const sigset_t *mask);
IN_PIECES int cut_epoll_pwait2(int epfd, struct epoll_event *events, int n,
                               const struct timespec *timeout, const sigset_t *mask);

#endif
