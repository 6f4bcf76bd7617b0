/*
 * The system calls that ask for the identity and the counters of a socket.
 */
#include "conn/sockid.h"

#include <asm/socket.h>
#include <errno.h>
#include <linux/tcp.h>
#include <netinet/in.h>

#include "base/rawsys.h"

bool sockid_cookie(int fd, uint64_t *cookie)
{
    socklen_t len = sizeof(*cookie);

    return raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_COOKIE, cookie, &len) == 0 &&
           len == sizeof(*cookie);
}

bool sockid_is_at(const struct conn *conn, int fd)
{
    uint64_t cookie = 0;

    return sockid_cookie(fd, &cookie) && cookie == conn->cookie;
}

bool sockid_is_elsewhere(const struct conn *conn, int fd)
{
    uint64_t cookie = 0;
    struct sockaddr peer;
    socklen_t len = sizeof(peer);
    long answer;

    if (sockid_cookie(fd, &cookie))
        return cookie != conn->cookie;
    answer = raw_syscall(SYS_getpeername, fd, &peer, &len);
    return answer == -ENOTSOCK || answer == -EBADF;
}

INLINED size_t sockid_tcp_info(int fd, struct tcp_info *info)
{
    socklen_t len = SOCKID_TCP_INFO;

    return raw_syscall(SYS_getsockopt, fd, IPPROTO_TCP, TCP_INFO, info, &len) == 0 ? len : 0;
}
