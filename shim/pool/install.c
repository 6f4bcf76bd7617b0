/*
 * Options, flags and registrations, and the dup3() over the fresh socket.
 */
#include "pool/install.h"

#include <fcntl.h>

#include "conn/epoll_reg.h"
#include "conn/fdmap.h"
#include "conn/sockid.h"
#include "base/rawsys.h"
#include "conn/shadow.h"

/* TO names what FROM names; false if FROM is not open. */
ALWAYS_INLINE bool move_over(int from, int to, int fd_flags)
{
    int flags = fd_flags & FD_CLOEXEC ? O_CLOEXEC : 0;

    return raw_syscall(SYS_dup3, from, to, flags) == to;
}

/* The dup3() has put a foreign file over FD: the shadow fd had been closed in bulk and reused.
 * Puts FRESH back, from its own shadow fd, or a new socket like it. If both fail, FD is
 * closed. */
COLD static void restore_fresh(int fd, const struct conn *fresh, int fd_flags)
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

/* Puts CONN over FD. A bulk close in another thread may close the shadow fd at any moment, so
 * the map is looked at after the dup3(): if it still names the shadow fd, what arrived is CONN.
 * See concurrency.md, 3. */
ALWAYS_INLINE enum reason replace(const struct conn *conn, int fd, const struct conn *fresh,
                                  int fd_flags)
{
    if (!move_over(conn->fd, fd, fd_flags))
        return REASON_OTHER_SOCKET;
    if (fdmap_holds(conn->fd, conn_id(conn) | FDMAP_SHADOW))
        return REASON_NONE;
    restore_fresh(fd, fresh, fd_flags);
    return REASON_OTHER_SOCKET;
}

/* As replace(), for a fresh socket with epoll registrations. A duplicate keeps the fresh socket
 * open meanwhile, and its registrations with it. So if this fails, the duplicate is moved back
 * and nothing has to be registered again. */
COLD static enum reason replace_registered(struct conn *conn, int fd, struct conn *fresh,
                                           int fd_flags)
{
    long duplicate = shadow_duplicate(fd);
    enum reason reason;

    /* It would keep the registrations too, and a socket with registrations is no spare. */
    shadow_drop(fresh);
    if (duplicate < 0)
        return REASON_FD_PRESSURE;
    reason = replace(conn, fd, fresh, fd_flags);
    if (reason == REASON_NONE && !epoll_reg_replay(fd, &fresh->epoll_regs))
        reason = REASON_EPOLL_UNKNOWN;
    if (reason != REASON_NONE)
        move_over((int)duplicate, fd, fd_flags);
    raw_syscall(SYS_close, duplicate);
    return reason;
}

COLD enum reason install_options(const struct conn *conn, int fd, const struct conn *fresh,
                                 int flags)
{
    if (((flags ^ conn_flags(conn)) & O_NONBLOCK) &&
        raw_syscall(SYS_fcntl, conn->fd, F_SETFL, flags) != 0)
        return REASON_ODD_FLAGS;
    if (!sockopts_apply(conn->fd, &conn->options, fd, &fresh->options))
        return REASON_OPTION_FAILED;
    return REASON_NONE;
}

INLINED enum reason install_over_fd(struct conn *conn, int fd, struct conn *fresh)
{
    int fd_flags = conn_fd_flags(fresh);
    enum reason reason;

    if (__builtin_expect(fd_flags < 0, 0)) {
        fd_flags = (int)raw_syscall(SYS_fcntl, fd, F_GETFD);
        if (fd_flags < 0)
            return REASON_OTHER_SOCKET;
        conn_set_flags(fresh, conn_flags(fresh), fd_flags);
    }
    if (!sockopts_are_alike(&conn->options, &fresh->options) ||
        (conn_flags(conn) ^ conn_flags(fresh)) & O_NONBLOCK) {
        reason = install_options(conn, fd, fresh, conn_flags(fresh));
        if (reason != REASON_NONE)
            return reason;
    }
    return fresh->epoll_regs.count > 0 ? replace_registered(conn, fd, fresh, fd_flags)
                                       : replace(conn, fd, fresh, fd_flags);
}
