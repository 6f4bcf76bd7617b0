/*
 * The system calls of a queue of fds.
 */
#include "conn/fdqueue.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "base/newer.h"
#include "base/rawsys.h"
#include "conn/fdmap.h"
#include "conn/limits.h"
#include "conn/shadow.h"
#include "conn/sockid.h"
#include "conn/sockopts.h"

/* The control part of a message: one fd. Room for a second fd would let one in. */
union control {
    struct cmsghdr header;
    char bytes[CMSG_SPACE(sizeof(int))];
};

#define CONTROL_SIZE CMSG_LEN(sizeof(int))

/* Gives FD, a new queue, a place among the shadow fds. */
static bool place(struct fdqueue *queue, int fd)
{
    long placed = shadow_duplicate(fd);

    if (placed < 0)
        return false;
    if (placed >= FDMAP_SIZE) {
        raw_close((int)placed);
        return false;
    }
    fdmap_exchange((int)placed, FDMAP_QUEUE);
    queue->fd = (int)placed;
    return true;
}

/* Connects the socket FD to itself. The kernel chooses its name, in the abstract namespace. */
static bool connect_to_itself(int fd)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(name);

    return raw_syscall(SYS_bind, fd, &name, sizeof(name.sun_family)) == 0 &&
           raw_syscall(SYS_getsockname, fd, &name, &length) == 0 &&
           raw_syscall(SYS_connect, fd, &name, length) == 0;
}

/* Removes what others sent between the bind() and the connect(). They may be other users. */
static void drain(const struct fdqueue *queue)
{
    char byte = 0;
    int fd;

    while (fdqueue_take(queue, &byte, sizeof(byte), &fd) >= 0) {
        if (fd >= 0)
            raw_close(fd);
    }
}

bool fdqueue_make(struct fdqueue *queue)
{
    long fd = raw_syscall(SYS_socket, AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    uint64_t cookie = 0;
    bool made;

    queue->fd = -1;
    if (fd < 0)
        return false;
    made = connect_to_itself((int)fd) && sockid_cookie((int)fd, &cookie);
    queue->cookie = cookie;
    made = made && place(queue, (int)fd);
    raw_syscall(SYS_close, fd);
    if (!made)
        return false;
    limits_count_queues(1);
    drain(queue);
    return true;
}

bool fdqueue_is_there(const struct fdqueue *queue)
{
    uint64_t cookie = 0;

    return queue->fd >= 0 && sockid_cookie(queue->fd, &cookie) && cookie == queue->cookie;
}

void fdqueue_close(struct fdqueue *queue)
{
    int fd = queue->fd;

    if (fd < 0)
        return;
    limits_count_queues(-1);
    if (fdmap_replace(fd, FDMAP_QUEUE, FDMAP_NONE) && fdqueue_is_there(queue))
        raw_close(fd);
    queue->fd = -1;
}

bool fdqueue_move(struct fdqueue *queue, bool keep)
{
    int former = queue->fd;
    bool moved = fdqueue_is_there(queue) && place(queue, former);

    if (!moved) {
        fdqueue_close(queue);
        return false;
    }
    if (fdmap_replace(former, FDMAP_QUEUE, FDMAP_NONE) && !keep)
        raw_close(former);
    return true;
}

long fdqueue_give(const struct fdqueue *queue, int fd, const void *message, size_t n)
{
    struct iovec bytes = {(void *)message, n};
    union control control = {.header = {.cmsg_len = CONTROL_SIZE,
                                        .cmsg_level = SOL_SOCKET,
                                        .cmsg_type = SCM_RIGHTS}};
    struct msghdr msg = {.msg_iov = &bytes,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CONTROL_SIZE};
    long sent;

    memcpy(CMSG_DATA(&control.header), &fd, sizeof(fd));
    sent = raw_syscall(SYS_sendmsg, queue->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
    return sent < 0 ? sent : 0;
}

/* The fd that came with MSG, whose control part is CONTROL; -1: none. A member can make the
 * kernel send one for the sender as well (SO_PASSPIDFD, Linux 6.5). */
static int fd_of(const struct msghdr *msg, const union control *control)
{
    int fd;

    if (msg->msg_controllen < CONTROL_SIZE || control->header.cmsg_level != SOL_SOCKET ||
        control->header.cmsg_len != CONTROL_SIZE)
        return -1;
    memcpy(&fd, CMSG_DATA(&control->header), sizeof(fd));
    if (control->header.cmsg_type == SCM_RIGHTS)
        return fd;
    if (control->header.cmsg_type == SCM_PIDFD)
        raw_close(fd);
    return -1;
}

long fdqueue_take(const struct fdqueue *queue, void *message, size_t n, int *fd)
{
    struct iovec bytes = {message, n};
    union control control = {.bytes = {0}};
    struct msghdr msg = {.msg_iov = &bytes,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = CONTROL_SIZE};
    long got;

    got =
        raw_syscall(SYS_recvmsg, queue->fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC | MSG_TRUNC);
    *fd = got >= 0 ? fd_of(&msg, &control) : -1;
    if (*fd >= 0)
        sockopts_linger_off(*fd);
    return *fd >= 0 && msg.msg_flags & MSG_CTRUNC ? (long)n + 1 : got;
}

long fdqueue_peek(const struct fdqueue *queue, void *message, size_t n)
{
    return raw_syscall(SYS_recvfrom, queue->fd, message, n, MSG_DONTWAIT | MSG_PEEK | MSG_TRUNC,
                       NULL, NULL);
}

unsigned int fdqueue_size(const struct fdqueue *queue)
{
    int size = 0;

    return raw_syscall(SYS_ioctl, queue->fd, TIOCOUTQ, &size) == 0 && size > 0
               ? (unsigned int)size
               : 0;
}

bool fdqueue_has_room(const struct fdqueue *queue)
{
    long fd = raw_syscall(SYS_fcntl, queue->fd, F_DUPFD_CLOEXEC, 0);

    if (fd < 0)
        return false;
    raw_close((int)fd);
    return true;
}
