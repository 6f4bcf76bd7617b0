/*
 * Fds that messages carry to other processes and from them (SCM_RIGHTS, unix(7)).
 *
 * None of these blocks; errno is kept.
 */
#ifndef MCPOOL_PASSING_H
#define MCPOOL_PASSING_H

#include <stddef.h>
#include <sys/socket.h>

#include "base/compiler.h"

/* MSG was received: what its SCM_RIGHTS carry are new fds. */
void track_received(const struct msghdr *msg);

/* Private fds that a program has found and passes on. More of them are closed before
 * the call, which then fails. */
#define TRACK_PASSED_MOST 16
struct track_passed {
    unsigned int count;
    int fds[TRACK_PASSED_MOST];
};

/* COUNT messages at MSGS, which need not be readable, are about to be sent: what their
 * SCM_RIGHTS carry will be in another process's hands. Each begins with a struct msghdr, STRIDE
 * bytes behind the one before. What track_close_passed() is to close goes to PASSED.
 */
void track_passing(const void *msgs, size_t stride, size_t count, struct track_passed *passed);
COLD void track_close_passed(const struct track_passed *passed);

static inline void track_passed(const struct track_passed *passed)
{
    if (__builtin_expect(passed->count > 0, 0))
        track_close_passed(passed);
}

#endif
