/*
 * Which system call fails, and how. FAULT_CALL is its place among the calls, counted from 1.
 * FAULT_KIND says which of the errors that this system call can have. FAULT_COUNT is a file
 * that gets the number of calls made, and how many errors the failed one can have.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/syscall.h>

#include "raw.h"

#define KINDS 4

static const struct {
    long nr;
    int errors[KINDS];
} faults[] = {
    {SYS_fcntl, {EMFILE, EBADF, EINVAL, EPERM}},
    {SYS_dup3, {EBADF, EBUSY, EMFILE, EPERM}},
    {SYS_getsockopt, {ENOPROTOOPT, EBADF, ENOTSOCK, EPERM}},
    {SYS_setsockopt, {ENOPROTOOPT, ENOMEM, EINVAL, EPERM}},
    {SYS_getpeername, {ENOTCONN, ENOBUFS, EBADF, EPERM}},
    {SYS_epoll_ctl, {ENOENT, ENOMEM, ENOSPC, EBADF}},
    {SYS_socket, {EMFILE, ENFILE, ENOBUFS, EPERM}},
    {SYS_socketpair, {EMFILE, ENFILE, ENOMEM, EPERM}},
    {SYS_connect, {ECONNREFUSED, EADDRNOTAVAIL, ENETUNREACH, EPERM}},
    {SYS_sendto, {EAGAIN, EPIPE, ECONNRESET, ENOBUFS}},
    {SYS_recvfrom, {EAGAIN, ECONNRESET, ENOMEM, EINTR}},
    {SYS_close, {EINTR, EIO, 0, 0}},
    {SYS_rt_sigprocmask, {EPERM, ENOSYS, 0, 0}},
    {SYS_shutdown, {ENOTCONN, EPERM, 0, 0}},
    {SYS_mmap, {ENOMEM, EPERM, 0, 0}},
    {SYS_madvise, {EINVAL, EPERM, 0, 0}},
    {SYS_prlimit64, {EPERM, ENOSYS, 0, 0}},
    {SYS_openat, {ENOENT, EMFILE, EACCES, EEXIST}},
    {SYS_read, {EIO, EINTR, EPERM, 0}},
    {SYS_newfstatat, {EACCES, EPERM, ENOSYS, 0}},
    {SYS_pwrite64, {ENOSPC, EFBIG, EIO, EPERM}},
    {SYS_getdents64, {ENOENT, EPERM, 0, 0}},
    {SYS_kill, {EPERM, ESRCH, 0, 0}},
    {SYS_unlinkat, {EACCES, ENOENT, EROFS, EPERM}},
    {SYS_mkdirat, {EEXIST, EACCES, EPERM, 0}},
    {SYS_clock_gettime, {EPERM, 0, 0, 0}},
};

static long wanted_call, wanted_kind;
static atomic_long calls;
static long kinds_there = -1;

__attribute__((constructor)) static void read_wishes(void)
{
    const char *call = getenv("FAULT_CALL"), *kind = getenv("FAULT_KIND");

    wanted_call = call ? atol(call) : 0;
    wanted_kind = kind ? atol(kind) : 0;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FAULT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;

    if (!file)
        return;
    fprintf(file, "%ld %ld\n", atomic_load(&calls), kinds_there);
    fclose(file);
}

long fault_for(long nr)
{
    if (atomic_fetch_add(&calls, 1) + 1 != wanted_call)
        return 0;
    kinds_there = 0;
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (faults[i].nr != nr)
            continue;
        while (kinds_there < KINDS && faults[i].errors[kinds_there] != 0)
            kinds_there++;
        return wanted_kind < kinds_there ? -faults[i].errors[wanted_kind] : 0;
    }
    return 0;
}
