/*
 * Who waits for a connection: epoll sets, and signals asked for by ioctl().
 */
#include "hooks.h"

#include <asm/sockios.h>

static int epoll_opened(int fd)
{
    if (fd >= 0)
        track_epoll(fd);
    return fd;
}

HOOKED int epoll_create(int size)
{
    return epoll_opened(real_epoll_create(size));
}

HOOKED int epoll_create1(int flags)
{
    return epoll_opened(real_epoll_create1(flags));
}

int hook_epoll_ctl_done(int result, int epfd, int op, int fd, const struct epoll_event *event)
{
    if (result == 0 && !PLAIN(fd))
        track_watch(epfd, op, fd, event);
    return result;
}

HOOKED int epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return hook_epoll_ctl_done(real_epoll_ctl(epfd, op, fd, event), epfd, op, fd, event);
}

HOOKED int ioctl(int fd, unsigned long request, ...)
{
    void *argument = VARIADIC(request);

    if (!PLAIN(fd) && (request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP))
        track_refuse(fd, REASON_ODD_FLAGS);
    return real_ioctl(fd, request, argument);
}
