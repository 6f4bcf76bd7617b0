/*
 * Walks over the fds in a message before it is sent, and after it was received.
 */
#include "hooks/passing.h"

#include <errno.h>
#include <limits.h>
#include <string.h>

#include "base/owner.h"
#include "base/rawsys.h"
#include "base/usermem.h"
#include "conn/fdmap.h"
#include "hooks/track.h"
#include "pool/swap.h"

/* Calls VISIT for each fd that MSG carries. Stops at a control message that reaches beyond its
 * buffer: the kernel refuses it (EINVAL, CMSG_OK() of Linux). */
static void for_each_fd(const struct msghdr *msg, void (*visit)(int fd, void *context),
                        void *context)
{
    struct cmsghdr *control;

    for (control = CMSG_FIRSTHDR(msg); control;
         control = CMSG_NXTHDR((struct msghdr *)msg, control)) {
        size_t at = (size_t)((const char *)control - (const char *)msg->msg_control);
        size_t n = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);

        if (control->cmsg_len < CMSG_LEN(0) || control->cmsg_len > msg->msg_controllen - at)
            return;
        if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS)
            continue;
        for (size_t i = 0; i < n; i++) {
            int fd;

            memcpy(&fd, CMSG_DATA(control) + i * sizeof(fd), sizeof(fd));
            visit(fd, context);
        }
    }
}

/* Another process may write to a connection at FD, so a reused one is swapped for a new one
 * before. A shadow fd is given up before the call, so that its connection is not reused
 * meanwhile, and closed after it. */
static void before_pass(int fd, void *context)
{
    struct passing *passing = context;
    uint32_t word = fdmap_get(fd);

    if (word == FDMAP_NONE)
        return;
    if (word & FDMAP_SHADOW && word != FDMAP_QUEUE && !(word & FDMAP_EPOLL) &&
        passing->count < PASSING_SHADOWS_MAX) {
        if (track_give_up_shadow(fd, word, REASON_PASSED))
            passing->fds[passing->count++] = fd;
        return;
    }
    swap_for_new(fd);
    track_shared(fd, REASON_PASSED);
}

/* Not done after the call, as the message may be gone then. So a call that fails costs the
 * connection its place in the pool. Another libc may lay struct msghdr out differently, but no
 * process that runs on one is ever the owner. */
void passing_begin(const void *msgs, size_t stride, size_t count, struct passing *passing)
{
    int saved = errno;

    passing->count = 0;
    if (fdmap_end() == 0 || !owner_is_this_process())
        return;
    for (size_t i = 0; i < count && i < IOV_MAX; i++) {
        const struct msghdr *msg = (const void *)((const char *)msgs + i * stride);

        if (!usermem_readable(msg, sizeof(*msg)))
            break;
        if (msg->msg_controllen > 0 &&
            usermem_all_readable(msg->msg_control, msg->msg_controllen))
            for_each_fd(msg, before_pass, passing);
    }
    errno = saved;
}

void passing_close(const struct passing *passing)
{
    for (unsigned int i = 0; i < passing->count; i++)
        raw_close(passing->fds[i]);
}

static void note_received(int fd, void *unused)
{
    (void)unused;
    track_new_fd(fd);
}

/* What came may lie over MSG, and so name any address. */
void passing_received(const struct msghdr *msg)
{
    if (owner_is_this_process() && usermem_all_readable(msg->msg_control, msg->msg_controllen))
        for_each_fd(msg, note_received, NULL);
}
