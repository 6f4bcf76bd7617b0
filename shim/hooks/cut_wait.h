/*
 * Cuts a wait of the program into pieces, to do work that becomes due during it (pool/due.h):
 * the call waits until then, does the work, and waits on, as often as there is work. The
 * program sees one call: the same result, errno, events and remaining time, the same
 * cancellation point. Only a signal handler that asks for its context sees, and cannot change,
 * that signals were blocked. A wait that ends by its own time-out before work is due is not
 * touched.
 *
 * A signal handler must end the wait wherever it runs (signal(7): these calls are never
 * restarted). So the signals of the program are blocked before the first piece, and each piece
 * is the form of the call that takes a signal mask, with that of the program: a handler runs in
 * a piece only, and the piece ends with EINTR. That costs two system calls, and one for each
 * further piece. Before one of epoll_pwait() another asks for pending signals: unlike the other
 * calls it also ends by a signal that the program ignores, if that came while signals were
 * blocked.
 *
 * So poll() waits in ppoll(), epoll_wait() in epoll_pwait() and select() in pselect(). Another
 * preloaded library behind us that has a hook for the first but not for the second misses the
 * wait. Those that we know hook both. A first piece that fails, other than by a signal, is
 * followed by the call that the program made: it says what is wrong, or works where a filter
 * forbids only the other form.
 *
 * Of several threads that wait, one is elected to do the work (conn/waiter.h). Others may close
 * what it waits for. In one long wait the kernel does not notice that: it waits for the old
 * file, and looks at the number of the fd again when something happens. So do we: further
 * pieces wait for a copy of a closed file, and when that ends a piece, the program is told what
 * is at the number of the fd.
 *
 * In a dry run no wait is cut. The work is done before the wait then, as before accept().
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
