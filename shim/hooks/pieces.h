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
#ifndef MCPOOL_PIECES_H
#define MCPOOL_PIECES_H

#include <stdbool.h>

#include "conn/waiter.h"
#include "hooks/libc.h"
#include "hooks/timeouts.h"
#include "base/compiler.h"

struct sets; /* of select(): hooks/cut_select.c */
struct wait;

/* What the calls have of their own. The signals of the program are blocked before each of them
 * and after it. */
struct wait_kind {
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

/* A wait of the program. Who makes one sets the members down to whole; the others
 * are 0. The wait and what it points to live in the frame of the program's call. */
struct wait {
    const struct wait_kind *kind;
    union {
        struct pollfd *fds;
        struct epoll_event *events;
        struct sets *sets;
    };
    int epfd;             /* -1: this is no epoll_wait() */
    nfds_t n;             /* of fds or events, or what select() gets */
    const sigset_t *mask; /* for the pieces: the program's, or `blocked` */
    nsec_t whole;         /* 0: a wait that is not cut */
    sigset_t blocked;     /* what was blocked before the wait */
    nsec_t began;
    nsec_t passed;        /* in pieces that ended by their time-out, at least */
    struct waiter waiter; /* no seat in a process that never had threads */
    bool recalled; /* another thread enters a sandbox: we make no more calls of our own */
    struct waiter_closed closed[WAITER_CLOSED_MOST]; /* as the last piece knew them */
    unsigned int closed_count;
};

/* Of a call that is made in pieces. Not inlined, so that a hook whose wait is not cut needs no
 * frame. */
#define IN_PIECES COLD __attribute__((noinline))

/* Makes WAIT in pieces. False when it was not cut, or could not be: the program's own call
 * waits then, or says what is wrong. errno is kept unless RESULT is -1. No lock may be held. */
bool pieces_make(struct wait *wait, int *result);

/* What remains of the time that the program waits. */
nsec_t pieces_remaining(const struct wait *wait);

/* The rest is for the calls of struct wait_kind. Another thread may have closed an fd of the
 * wait: where there is a copy of its file, the piece waits for that. */

/* Whether another thread has closed FD. */
bool pieces_was_closed(const struct wait *wait, int fd);

/* The fd that a piece waits for as FD; -1: none, as it is closed and there is no copy. */
int pieces_place_of(const struct wait *wait, int fd);

/* COPY has ended a piece. It does so once, as the old file wakes up a wait in the kernel once.
 */
void pieces_forget_copy(struct wait *wait, int copy);

#endif
