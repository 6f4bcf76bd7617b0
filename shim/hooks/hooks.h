/*
 * What the hooks share, and what one hook file offers to another. A hook decides nothing: it
 * asks the fd map whether the fd is tracked, makes the real call, and tells the module
 * concerned what happened.
 */
#ifndef MCPOOL_HOOKS_H
#define MCPOOL_HOOKS_H

#include <errno.h>

#include "base/newer.h"
#include "pool/checkin.h"
#include "conn/fdmap.h"
#include "pool/checkout.h"
#include "pool/discard.h"
#include "hooks/libc.h"
#include "hooks/passing.h"
#include "base/owner.h"
#include "hooks/track.h"

/* The definition of a hook, and of a second name for it. */
#define HOOKED MCPOOL_EXPORT
#define HOOKED_ALIAS(name, hook)                                                               \
    extern __typeof__(hook) name __attribute__((alias(#hook), visibility("default")))

/* Whether an fd is not tracked: by its WORD in the fd map, or by the fd. */
#define UNTRACKED(word) __builtin_expect((word) == FDMAP_NONE, 1)
#define PLAIN(fd)       UNTRACKED(fdmap_word(fd))

/* Before a call that moves bytes on FD unseen: the connection there is not pooled. False, with
 * errno set, when the call must fail. See track_unseen(). */
static inline bool hook_may_move_unseen(int fd)
{
    return PLAIN(fd) || track_unseen(fd, REASON_UNTRACKED_IO);
}

/* Whether FD is one that the program never got (track_is_hidden()): then the call that it makes
 * fails with EBADF, which is set. Else such a program as a shell, which saves each open fd,
 * would have a duplicate, and could hand it on. */
bool hook_is_hidden(int fd);

/* REAL is the call that a function below makes: libc's function, or syscall() with the nr of
 * that system call. Functions with REAL may block, and be cancelled, as it does. */

/* close(FD), with the check-in of the connection at FD. */
int hook_close(int fd, int (*real)(int fd));

/* FD was duplicated: RESULT is the new fd, -1 if the call has failed. CONN is what
 * track_share() returned. Returns RESULT. */
int hook_duplicated(int fd, struct conn *conn, int result);

/* dup3(FD, TO, FLAGS), with the check-in of the connection at TO. */
int hook_replace(int fd, int to, int flags, int (*real)(int fd, int to, int flags));

/* close_range(FIRST, LAST, FLAGS). REAL is called twice, first with a range that has no fd: if
 * the kernel refuses that, it closes nothing, and nothing is forgotten. */
int hook_close_range(unsigned int first, unsigned int last, int flags,
                     int (*real)(unsigned int first, unsigned int last, int flags));

/* epoll_ctl(EPFD, OP, FD, EVENT). */
int hook_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event,
                   int (*real)(int epfd, int op, int fd, struct epoll_event *event));

/* io_submit() is about to submit the N requests in LIST: the connections that they name are not
 * pooled for REASON. */
COLD void hook_submitted(struct iocb **list, long n, enum reason reason);

/* A call that changes the user, group, root or capabilities of the process has returned RESULT.
 * If it succeeded, connections made before are neither reused nor pooled. Returns RESULT; errno
 * is kept. */
int hook_identity_changed(int result);

/* setns(), or unshare(FLAGS), has returned RESULT. Pooling is over if the process may have
 * another network namespace or another table of fds now. Both return RESULT. */
int hook_namespace_changed(int result);
int hook_unshared(int result, int flags);

/* What FD names may be used past our hooks from now on, or by another process: a connection
 * there is not pooled for REASON. */
void hook_share(int fd, enum reason reason);

/* Before and after a call that makes a child without running the handlers of pthread_atfork().
 * FLAGS are those of clone(2), RESULT is what the call returned. hook_child_made() returns
 * RESULT; errno is kept. */
void hook_child_begins(uint64_t flags);
long hook_child_made(uint64_t flags, long result);

/* The same for vfork(), called by hooks/children.S. RESULT is that of the system call;
 * hook_vfork_made() runs in the parent only, and returns what vfork() returns. */
void hook_vfork_begins(void);
pid_t hook_vfork_made(long result);

/* Makes the system call NR, which may take rights from the process, with the six arguments at
 * A. */
long hook_confine(long nr, const long *a);

/* The program is about to give SIZE bytes at FROM this PROTECTION, see mprotect(2). */
void hook_protects(const void *from, size_t size, int protection);

/* The program opens the library FILE with dlopen(). If that is liburing, pooling is over: the
 * program will call the functions that dlsym() finds, past our hooks. errno is kept. */
COLD void hook_library_opened(const char *file);

/* Whether to make a call once more: its RESULT is -1 for want of fds (EMFILE, ENFILE), and idle
 * connections were closed to make room. */
bool hook_should_retry(int result);

#endif
