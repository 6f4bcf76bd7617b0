/*
 * Fds that messages carry to other processes and from them (SCM_RIGHTS, unix(7)).
 *
 * Called without the pool's lock. None of these blocks; errno is kept.
 */
#ifndef MCPOOL_PASSING_H
#define MCPOOL_PASSING_H

#include <stddef.h>
#include <sys/socket.h>

#include "base/compiler.h"

/* MSG was received: the fds in its SCM_RIGHTS are new. */
void passing_received(const struct msghdr *msg);

/* Shadow fds in a message: the program found them, for instance in /proc/self/fd. They are
 * closed after the call. Those beyond this count are closed before it, so that it fails. */
#define PASSING_SHADOWS_MAX 16
struct passing {
    unsigned int count;
    int fds[PASSING_SHADOWS_MAX];
};

/* COUNT messages at MSGS are about to be sent; they may be unreadable. Another process will
 * have what their SCM_RIGHTS carry: connections there are not pooled. Each message begins with
 * a struct msghdr, STRIDE bytes behind the one before. The caller gives PASSING to
 * passing_end() after the call. */
void passing_begin(const void *msgs, size_t stride, size_t count, struct passing *passing);
COLD void passing_close(const struct passing *passing);

static inline void passing_end(const struct passing *passing)
{
    if (__builtin_expect(passing->count > 0, 0))
        passing_close(passing);
}

#endif
