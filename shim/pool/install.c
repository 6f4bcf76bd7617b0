/*
 * Taking off and putting on what the application can see of a socket.
 */
#include "pool/install.h"

#include <fcntl.h>

#include "conn/epoll_reg.h"
#include "conn/fdmap.h"
#include "conn/sockid.h"
#include "base/rawsys.h"
#include "conn/shadow.h"

static bool move_over(int from, int to, int fd_flags)
{
    int flags = fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0;

    return raw_syscall(SYS_dup3, from, to, flags) == to;
}

/* Over FD came not CONN but what had got its private number meanwhile: FRESH is put back, or
 * its like. */
static void put_back(int fd, const struct conn *fresh, int fd_flags)
{
    int type =
        SOCK_STREAM | SOCK_CLOEXEC | (conn_flags(fresh) & O_NONBLOCK ? SOCK_NONBLOCK : 0);
    long like;

    if (fresh->shadow_fd >= 0 && move_over(fresh->shadow_fd, fd, fd_flags) &&
        sockid_is_at(fresh, fd))
        return;
    like = raw_syscall(SYS_socket, fresh->domain, type, 0);
    if (like < 0 || !sockopts_give((int)like, &fresh->options) ||
        !move_over((int)like, fd, fd_flags))
        raw_close(fd);
    if (like >= 0)
        raw_close((int)like);
}

/* Other threads may sweep our private numbers at any moment, and give them out again: what has
 * arrived is CONN if its number was not swept before. */
static enum reason replace(const struct conn *conn, int fd, const struct conn *fresh,
                           int fd_flags)
{
    if (!move_over(conn->fd, fd, fd_flags))
        return REASON_OTHER_SOCKET;
    if (fdmap_holds(conn->fd, conn_id(conn) | FDMAP_SHADOW))
        return REASON_NONE;
    put_back(fd, fresh, fd_flags);
    return REASON_OTHER_SOCKET;
}

/* The registrations of the fresh socket last as long as a duplicate of it does, so they need
 * not be made again if this fails. */
static enum reason replace_registered(struct conn *conn, int fd, const struct conn *fresh,
                                      int fd_flags)
{
    long spare = shadow_duplicate(fd);
    enum reason reason;

    if (spare < 0)
        return REASON_FD_PRESSURE;
    reason = replace(conn, fd, fresh, fd_flags);
    if (reason == REASON_NONE && !epoll_reg_replay(fd, &fresh->epoll_regs))
        reason = REASON_EPOLL_UNKNOWN;
    if (reason != REASON_NONE)
        move_over((int)spare, fd, fd_flags);
    raw_syscall(SYS_close, spare);
    return reason;
}

enum reason install_options(const struct conn *conn, int fd, const struct conn *fresh,
                            int flags)
{
    if (((flags ^ conn_flags(conn)) & O_NONBLOCK) &&
        raw_syscall(SYS_fcntl, conn->fd, F_SETFL, flags) != 0)
        return REASON_ODD_FLAGS;
    if (!sockopts_apply(conn->fd, &conn->options, fd, &fresh->options))
        return REASON_OPTION_FAILED;
    return REASON_NONE;
}

enum reason install_over_fd(struct conn *conn, int fd, struct conn *fresh)
{
    int fd_flags = conn_fd_flags(fresh);
    enum reason reason;

    if (fd_flags == CONN_UNKNOWN)
        fd_flags = (int)raw_syscall(SYS_fcntl, fd, F_GETFD);
    if (fd_flags < 0)
        return REASON_OTHER_SOCKET;
    conn_set_flags(fresh, conn_flags(fresh), fd_flags);
    reason = install_options(conn, fd, fresh, conn_flags(fresh));
    if (reason != REASON_NONE)
        return reason;
    return fresh->epoll_regs.count > 0 ? replace_registered(conn, fd, fresh, fd_flags)
                                       : replace(conn, fd, fresh, fd_flags);
}
