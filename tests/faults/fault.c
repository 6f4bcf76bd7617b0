/*
 * Which system call fails, and how. FAULT_CALL is its place among the calls of its process,
 * counted from 1; the count of a child goes on from that of its parent. FAULT_KIND says which
 * of the errors that this system call can have. FAULT_COUNT is a file that gets the number of
 * calls made, and how many errors the failed one can have, each the most of all processes.
 */
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
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
    {SYS_bind, {EADDRINUSE, ENOMEM, EACCES, EPERM}},
    {SYS_getsockname, {ENOBUFS, EBADF, EPERM, 0}},
    {SYS_sendmsg, {EAGAIN, ETOOMANYREFS, EPIPE, ENOBUFS}},
    {SYS_recvmsg, {EAGAIN, ENOMEM, EINTR, EPERM}},
    {SYS_ioctl, {ENOTTY, EBADF, EPERM, 0}},
    {SYS_getgroups, {EINVAL, EPERM, 0, 0}},
    {SYS_getresuid, {EPERM, ENOSYS, 0, 0}},
    {SYS_getresgid, {EPERM, ENOSYS, 0, 0}},
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

/* What all processes have seen. */
static struct most {
    atomic_long calls;
    atomic_long kinds;
} in_this_process = {0, -1}, *most = &in_this_process;

static void raise_to(atomic_long *to, long value)
{
    long former = atomic_load(to);

    while (former < value && !atomic_compare_exchange_weak(to, &former, value))
        continue;
}

__attribute__((constructor)) static void read_wishes(void)
{
    const char *call = getenv("FAULT_CALL"), *kind = getenv("FAULT_KIND");
    void *page =
        mmap(NULL, sizeof(*most), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (page != MAP_FAILED) {
        *(struct most *)page = in_this_process;
        most = page;
    }
    wanted_call = call ? atol(call) : 0;
    wanted_kind = kind ? atol(kind) : 0;
}

__attribute__((destructor)) static void tell(void)
{
    const char *path = getenv("FAULT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;

    if (!file)
        return;
    fprintf(file, "%ld %ld\n", atomic_load(&most->calls), atomic_load(&most->kinds));
    fclose(file);
}

static int error_wanted(long nr)
{
    long there = 0;

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (faults[i].nr != nr)
            continue;
        while (there < KINDS && faults[i].errors[there] != 0)
            there++;
        raise_to(&most->kinds, there);
        return wanted_kind < there ? faults[i].errors[wanted_kind] : 0;
    }
    raise_to(&most->kinds, 0);
    return 0;
}

long fault_for(long nr)
{
    long call = atomic_fetch_add(&calls, 1) + 1;

    raise_to(&most->calls, call);
    return call == wanted_call ? -error_wanted(nr) : 0;
}
