/*
 * A library below libmcpool. Its functions make the real call and then, before they return, do
 * what the program wants done at that moment.
 */
#include <dlfcn.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

void (*below_after_call)(void);

#define CALLS(ret, name, params, args)                                                         \
    ret name params                                                                            \
    {                                                                                          \
        ret(*real) params = (ret(*) params)dlsym(RTLD_NEXT, #name);                            \
        ret result = real args;                                                                \
                                                                                               \
        if (below_after_call)                                                                  \
            below_after_call();                                                                \
        return result;                                                                         \
    }

CALLS(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n))
CALLS(ssize_t, writev, (int fd, const struct iovec *iov, int count), (fd, iov, count))
CALLS(ssize_t, pwritev2, (int fd, const struct iovec *iov, int count, off_t at, int flags),
      (fd, iov, count, at, flags))
CALLS(ssize_t, send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags))
CALLS(ssize_t, sendto,
      (int fd, const void *buf, size_t n, int flags, const struct sockaddr *to, socklen_t len),
      (fd, buf, n, flags, to, len))
CALLS(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags))
CALLS(int, sendmmsg, (int fd, struct mmsghdr *msgs, unsigned int count, int flags),
      (fd, msgs, count, flags))
CALLS(int, epoll_ctl, (int epfd, int op, int fd, struct epoll_event *event),
      (epfd, op, fd, event))
