/*
 * What the hooks share. A hook decides nothing: it asks the fd map whether the fd is tracked,
 * makes the real call, and tells the module concerned what happened.
 */
#ifndef MCPOOL_HOOKS_H
#define MCPOOL_HOOKS_H

#include <errno.h>
#include <sys/syscall.h>

#include "pool/checkin.h"
#include "conn/fdmap.h"
#include "pool/checkout.h"
#include "pool/discard.h"
#include "hooks/libc.h"
#include "hooks/passing.h"
#include "base/owner.h"
#include "hooks/track.h"

/* The definition of a hook, and its second name. */
#define HOOKED MCPOOL_EXPORT
#define HOOKED_ALIAS(name, hook)                                                               \
    extern __typeof__(hook) name __attribute__((alias(#hook), visibility("default")))

/* Whether an fd of which the map has said WORD, or the fd FD, is none of ours. */
#define UNTRACKED(word) __builtin_expect((word) == FDMAP_NONE, 1)
#define PLAIN(fd)       UNTRACKED(fdmap_word(fd))

/* Whether the call may be made that moves bytes on FD unseen, after which the connection is not
 * pooled; see track_unseen(). */
static inline bool hook_may_move_unseen(int fd)
{
    return PLAIN(fd) || track_unseen(fd, REASON_UNTRACKED_IO);
}

/* In this header REAL is the call to be made: libc's function, or the system call of that name
 * by syscall(). */

/* close(FD), with check-in. */
int hook_close(int fd, int (*real)(int fd));

/* FD was duplicated; the result is the new fd or -1. CONN is what track_share() gave. */
int hook_duplicated(int fd, struct conn *conn, int result);

/* dup3(FD, TO, FLAGS), with check-in of the connection that was at TO. */
int hook_replace(int fd, int to, int flags, int (*real)(int fd, int to, int flags));

/* close_range(FIRST, LAST, FLAGS). REAL is called twice, with an empty range first, to learn
 * whether the kernel refuses it: then it closes nothing, and nothing is forgotten. */
int hook_close_range(unsigned int first, unsigned int last, int flags,
                     int (*real)(unsigned int first, unsigned int last, int flags));

/* epoll_ctl(EPFD, OP, FD, EVENT). */
int hook_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event,
                   int (*real)(int epfd, int op, int fd, struct epoll_event *event));

/* The N requests in LIST are about to be submitted by io_submit(): the connections they name
 * are not pooled for REASON. */
COLD void hook_submitted(struct iocb **list, long n, enum reason reason);

/* RESULT is that of a call that changes the user, group, root or capabilities of the process.
 * If it succeeded, connections made before are neither reused nor kept any more. Returns
 * RESULT; errno is kept. */
int hook_identity_changed(int result);

/* A call that leaves or enters namespaces gave RESULT; it was unshare(FLAGS). Pooling is over
 * if the process has another network or another table of fds now. Both return RESULT. */
int hook_namespace_changed(int result);
int hook_unshared(int result, int flags);

/* What is at FD may be used from now on past our hooks, or by another process: it is not pooled
 * for REASON. */
void hook_share(int fd, enum reason reason);

/* Before and after a call that makes a child with the FLAGS of clone(2), without the handlers
 * of pthread_atfork(). The second returns RESULT, that of the call; errno is kept. */
void hook_child_begins(uint64_t flags);
long hook_child_made(uint64_t flags, long result);

/* Makes the system call NR, with the six arguments at A, which may take rights from the
 * process. Headers before Linux 5.13 lack the number of landlock_restrict_self(), which is the
 * same on every architecture. */
#ifndef SYS_landlock_restrict_self
#define SYS_landlock_restrict_self 446
#endif
long hook_confine(long nr, const long *a);

/* The program opens the library FILE by its name. It looks up the functions of liburing by
 * dlsym() then, past our hooks: pooling is over. errno is kept. */
COLD void hook_library_opened(const char *file);

/* Whether a call is to be made once more: its RESULT is -1 for want of fds, and idle
 * connections were given up. */
bool hook_should_retry(int result);

#endif
