/*
 * poll(), epoll_wait() and their forms, in pieces.
 */
#include "hooks/cut_poll.h"

#include <string.h>

#include "hooks/pieces.h"
#include "hooks/timeouts.h"
#include "conn/waiter.h"

static int poll_piece(struct wait *wait, nsec_t timeout)
{
    struct timespec space;

    return real_ppoll(wait->fds, wait->n, timeout_as_timespec(timeout, &space), wait->mask);
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
        fds[i] =
            (struct pollfd){pieces_place_of(wait, wait->fds[i].fd), wait->fds[i].events, 0};
    result = real_ppoll(fds, wait->n, timeout_as_timespec(timeout, &space), wait->mask);
    for (nfds_t i = 0; i < wait->n && result > 0; i++) {
        if (fds[i].revents != 0)
            pieces_forget_copy(wait, fds[i].fd);
    }
    return result;
}

static int poll_look(struct wait *wait)
{
    return poll_piece(wait, 0);
}

static int poll_rest(struct wait *wait, nsec_t timeout)
{
    return real_poll(wait->fds, wait->n, timeout_as_ms(timeout));
}

static const struct wait_kind poll_kind = {poll_piece, poll_watch, poll_copies, poll_look,
                                           poll_rest};
static const struct wait_kind ppoll_kind = {poll_piece, poll_watch, poll_copies, poll_look,
                                            poll_piece};

/* The copy of a closed set takes the place of the set. */
static int epoll_piece(struct wait *wait, nsec_t timeout)
{
    return real_epoll_pwait(pieces_place_of(wait, wait->epfd), wait->events, (int)wait->n,
                            timeout_as_ms(timeout), wait->mask);
}

static int epoll2_piece(struct wait *wait, nsec_t timeout)
{
    struct timespec space;

    return real_epoll_pwait2(pieces_place_of(wait, wait->epfd), wait->events, (int)wait->n,
                             timeout_as_timespec(timeout, &space), wait->mask);
}

static bool epoll_watch(const struct wait *wait)
{
    return waiter_watch(&wait->waiter, wait->epfd);
}

static int epoll_rest(struct wait *wait, nsec_t timeout)
{
    return real_epoll_wait(wait->epfd, wait->events, (int)wait->n, timeout_as_ms(timeout));
}

static const struct wait_kind epoll_kind = {epoll_piece, epoll_watch, epoll_piece, NULL,
                                            epoll_rest};
static const struct wait_kind epoll_pwait_kind = {epoll_piece, epoll_watch, epoll_piece, NULL,
                                                  epoll_piece};
static const struct wait_kind epoll_pwait2_kind = {epoll2_piece, epoll_watch, epoll2_piece,
                                                   NULL, epoll2_piece};

#define WAIT_POLL(the_kind, the_fds, count, the_mask, time)                                    \
    {                                                                                          \
        .kind = &(the_kind), .fds = (the_fds), .epfd = -1, .n = (count), .mask = (the_mask),   \
        .whole = (time)                                                                        \
    }

int cut_poll(struct pollfd *fds, nfds_t n, int timeout)
{
    struct wait wait = WAIT_POLL(poll_kind, fds, n, NULL, timeout_from_ms(timeout));
    int result;

    return pieces_make(&wait, &result) ? result : real_poll(fds, n, timeout);
}

/* The real function ends the program when ROOM is too small. */
int cut_poll_chk(struct pollfd *fds, nfds_t n, int timeout, size_t room)
{
    struct wait wait = WAIT_POLL(poll_kind, fds, n, NULL, timeout_from_ms(timeout));
    int result;

    return n <= room / sizeof(*fds) && pieces_make(&wait, &result)
               ? result
               : real___poll_chk(fds, n, timeout, room);
}

int cut_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
              const sigset_t *mask)
{
    struct wait wait = WAIT_POLL(ppoll_kind, fds, n, mask, timeout_from_timespec(timeout));
    int result;

    return pieces_make(&wait, &result) ? result : real_ppoll(fds, n, timeout, mask);
}

int cut_ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
                  const sigset_t *mask, size_t room)
{
    struct wait wait = WAIT_POLL(ppoll_kind, fds, n, mask, timeout_from_timespec(timeout));
    int result;

    return n <= room / sizeof(*fds) && pieces_make(&wait, &result)
               ? result
               : real___ppoll_chk(fds, n, timeout, mask, room);
}

/* COUNT may be negative, which the kernel refuses; so it does a negative fd. */
#define WAIT_EPOLL(the_kind, set, list, count, the_mask, time)                                 \
    {                                                                                          \
        .kind = &(the_kind), .events = (list), .epfd = (set), .n = (nfds_t)(count),            \
        .mask = (the_mask), .whole = (time)                                                    \
    }

int cut_epoll_wait(int epfd, struct epoll_event *events, int n, int timeout)
{
    struct wait wait = WAIT_EPOLL(epoll_kind, epfd, events, n, NULL, timeout_from_ms(timeout));
    int result;

    return pieces_make(&wait, &result) ? result : real_epoll_wait(epfd, events, n, timeout);
}

int cut_epoll_pwait(int epfd, struct epoll_event *events, int n, int timeout,
                    const sigset_t *mask)
{
    struct wait wait =
        WAIT_EPOLL(epoll_pwait_kind, epfd, events, n, mask, timeout_from_ms(timeout));
    int result;

    return pieces_make(&wait, &result) ? result
                                       : real_epoll_pwait(epfd, events, n, timeout, mask);
}

int cut_epoll_pwait2(int epfd, struct epoll_event *events, int n,
                     const struct timespec *timeout, const sigset_t *mask)
{
    struct wait wait =
        WAIT_EPOLL(epoll_pwait2_kind, epfd, events, n, mask, timeout_from_timespec(timeout));
    int result;

    return pieces_make(&wait, &result) ? result
                                       : real_epoll_pwait2(epfd, events, n, timeout, mask);
}
