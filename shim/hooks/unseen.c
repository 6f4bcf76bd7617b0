/*
 * Hooks of calls whose bytes the tracker cannot see: the kernel copies them from another file
 * (sendfile(), splice()), libc formats them (dprintf()), or flags say how they move
 * (preadv2()). A connection on which one of these is called is not pooled.
 */
#include "hooks/hooks.h"

HOOKED ssize_t preadv2(int fd, const struct iovec *iov, int count, off_t at, int flags)
{
    return hook_may_move_unseen(fd) ? real_preadv2(fd, iov, count, at, flags) : -1;
}

HOOKED ssize_t preadv64v2(int fd, const struct iovec *iov, int count, off64_t at, int flags)
{
    return hook_may_move_unseen(fd) ? real_preadv64v2(fd, iov, count, at, flags) : -1;
}

HOOKED ssize_t pwritev2(int fd, const struct iovec *iov, int count, off_t at, int flags)
{
    return hook_may_move_unseen(fd) ? real_pwritev2(fd, iov, count, at, flags) : -1;
}

HOOKED ssize_t pwritev64v2(int fd, const struct iovec *iov, int count, off64_t at, int flags)
{
    return hook_may_move_unseen(fd) ? real_pwritev64v2(fd, iov, count, at, flags) : -1;
}

HOOKED ssize_t sendfile(int fd, int in, off_t *at, size_t n)
{
    return hook_may_move_unseen(fd) ? real_sendfile(fd, in, at, n) : -1;
}

HOOKED ssize_t sendfile64(int fd, int in, off64_t *at, size_t n)
{
    return hook_may_move_unseen(fd) ? real_sendfile64(fd, in, at, n) : -1;
}

HOOKED ssize_t splice(int in, off64_t *in_at, int out, off64_t *out_at, size_t n,
                      unsigned int flags)
{
    return hook_may_move_unseen(in) && hook_may_move_unseen(out)
               ? real_splice(in, in_at, out, out_at, n, flags)
               : -1;
}

HOOKED int vdprintf(int fd, const char *format, va_list list)
{
    return hook_may_move_unseen(fd) ? real_vdprintf(fd, format, list) : -1;
}

HOOKED int __vdprintf_chk(int fd, int flag, const char *format, va_list list)
{
    return hook_may_move_unseen(fd) ? real___vdprintf_chk(fd, flag, format, list) : -1;
}

HOOKED int dprintf(int fd, const char *format, ...)
{
    return hook_may_move_unseen(fd) ? PRINTED(vdprintf, format, fd, format) : -1;
}

HOOKED int __dprintf_chk(int fd, int flag, const char *format, ...)
{
    return hook_may_move_unseen(fd) ? PRINTED(__vdprintf_chk, format, fd, flag, format) : -1;
}
