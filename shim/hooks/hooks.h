/*
 * What the exported bodies share. A hook decides nothing: it asks the map whether the number is
 * any of ours, makes the real call, and tells the subject what happened.
 */
#ifndef MCPOOL_HOOKS_H
#define MCPOOL_HOOKS_H

#include <errno.h>

#include "../checkin.h"
#include "../fdmap.h"
#include "../lending.h"
#include "../libc.h"
#include "../process.h"
#include "../track.h"

/* The definition of a hook, and its second name. */
#define HOOKED MCPOOL_EXPORT
#define HOOKED_ALIAS(name, hook)                                                               \
    extern __typeof__(hook) name __attribute__((alias(#hook), visibility("default")))

#define PLAIN(fd) __builtin_expect(fdmap_is_plain(fd), 1)

/* close(FD) by whatever REAL call, with check-in. */
int hook_close(int fd, int (*real)(int fd));

/* FD was duplicated; the result is the new number or -1. */
int hook_duplicated(int fd, int result);

/* close_range(FIRST, LAST, FLAGS) by whatever REAL call; the kernel refuses some arguments and
 * then closes nothing. */
int hook_close_range(unsigned int first, unsigned int last, int flags,
                     int (*real)(unsigned int first, unsigned int last, int flags));

/* epoll_ctl() by the libc function or by syscall() gave RESULT. */
int hook_epoll_ctl_done(int result, int epfd, int op, int fd, const struct epoll_event *event);

/* The N requests in LIST, of io_submit(), are about to be submitted: what they name is not
 * pooled for REASON. */
COLD void hook_submitted(struct iocb **list, long n, enum reason reason);

/* A ring of io_uring was made if RESULT is not negative. Gives RESULT. */
COLD long hook_ring_made(long result);

/* The FLAGS with which dlopen(FILE) is to be called. errno is kept. */
COLD int hook_dlopen_flags(const char *file, int flags) __attribute__((noinline));

/* RESULT is -1 for want of descriptors, and there were idle connections to give up: once more.
 */
bool hook_should_retry(int result);

#endif
