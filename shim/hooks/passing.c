/*
 * Looking at the fds in a message.
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

/* Calls VISIT for each fd that MSG carries. A control message that does not lie within its
 * buffer is the last: the kernel refuses the call for it (EINVAL, CMSG_OK() of Linux). */
static void each_passed(const struct msghdr *msg, void (*visit)(int fd, void *context),
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

/* Another process may write to what is passed, so a lent connection is renewed before. A
 * private fd is given up before, so that its connection is not lent meanwhile, and closed
 * after. */
static void pass(int fd, void *context)
{
    struct track_passed *passed = context;
    uint32_t slot = fdmap_get(fd);

    if (slot == FDMAP_NONE)
        return;
    if (slot & FDMAP_SHADOW && !(slot & FDMAP_EPOLL) && passed->count < TRACK_PASSED_MOST) {
        if (track_give_up_private(fd, slot, REASON_PASSED))
            passed->fds[passed->count++] = fd;
        return;
    }
    swap_for_new(fd);
    track_shared(fd, REASON_PASSED);
}

/* After the call the message may be gone. Should the call fail, a connection is not pooled that
 * could have been. The struct of another libc, where no process is ever the owner, has another
 * layout. */
void track_passing(const void *msgs, size_t stride, size_t count, struct track_passed *passed)
{
    int saved = errno;

    passed->count = 0;
    if (fdmap_end() == 0 || !owner_is_this_process())
        return;
    for (size_t i = 0; i < count && i < IOV_MAX; i++) {
        const struct msghdr *msg = (const void *)((const char *)msgs + i * stride);

        if (!usermem_readable(msg, sizeof(*msg)))
            break;
        if (msg->msg_controllen > 0 &&
            usermem_all_readable(msg->msg_control, msg->msg_controllen))
            each_passed(msg, pass, passed);
    }
    errno = saved;
}

void track_close_passed(const struct track_passed *passed)
{
    for (unsigned int i = 0; i < passed->count; i++)
        raw_close(passed->fds[i]);
}

static void receive(int fd, void *unused)
{
    (void)unused;
    track_new_fd(fd);
}

void track_received(const struct msghdr *msg)
{
    if (owner_is_this_process())
        each_passed(msg, receive, NULL);
}
