/*
 * What changes the whole process: its identity, its namespaces, calls made past libc's names.
 */
#include "hooks.h"

#include "../deepbind.h"
#include "../due.h"
#include "../waiting.h"

#include <stdarg.h>
#include <sys/syscall.h>

/* Idle connections were opened by somebody else, from now on. */
static int identity_changed(int result)
{
    int saved = errno;

    if (result != -1 && process_is_owner()) {
        atomic_fetch_add(&process_identities, 1);
        lending_flush(REASON_IDENTITY);
    }
    errno = saved;
    return result;
}

#define IDENTITY_HOOK(name, params, args)                                                      \
    HOOKED int name params                                                                     \
    {                                                                                          \
        return identity_changed(real_##name args);                                             \
    }

IDENTITY_HOOK(setuid, (uid_t uid), (uid))
IDENTITY_HOOK(setgid, (gid_t gid), (gid))
IDENTITY_HOOK(seteuid, (uid_t uid), (uid))
IDENTITY_HOOK(setegid, (gid_t gid), (gid))
IDENTITY_HOOK(setreuid, (uid_t real, uid_t effective), (real, effective))
IDENTITY_HOOK(setregid, (gid_t real, gid_t effective), (real, effective))
IDENTITY_HOOK(setresuid, (uid_t real, uid_t effective, uid_t saved), (real, effective, saved))
IDENTITY_HOOK(setresgid, (gid_t real, gid_t effective, gid_t saved), (real, effective, saved))
IDENTITY_HOOK(setfsuid, (uid_t uid), (uid))
IDENTITY_HOOK(setfsgid, (gid_t gid), (gid))
IDENTITY_HOOK(setgroups, (size_t n, const gid_t *groups), (n, groups))
IDENTITY_HOOK(initgroups, (const char *user, gid_t group), (user, group))
IDENTITY_HOOK(chroot, (const char *path), (path))

/* Pooled connections belong to the network and the table of descriptors the process had. */
static int namespace_changed(int result, bool concerns_us)
{
    if (result == 0 && concerns_us && process_is_owner())
        track_namespace_lost();
    return result;
}

static bool concerns_us(int flags)
{
    return flags & (CLONE_NEWNET | CLONE_FILES | CLONE_NEWUSER);
}

HOOKED int unshare(int flags)
{
    return namespace_changed(real_unshare(flags), concerns_us(flags));
}

HOOKED int setns(int fd, int type)
{
    return namespace_changed(real_setns(fd, type), true);
}

HOOKED void _exit(int status)
{
    due_before_end();
    real__exit(status);
    __builtin_unreachable();
}
HOOKED_ALIAS(_Exit, _exit);

HOOKED void quick_exit(int status)
{
    due_before_end();
    real_quick_exit(status);
    __builtin_unreachable();
}

/* The real function looks at its return address for the caller's RUNPATH, so this has to be a
 * jump: nothing may be left to do after it, and tests/audit looks whether the compiler agreed.
 */
HOOKED void *dlopen(const char *file, int flags)
{
    return real_dlopen(file, deepbind_flags(file, flags));
}

/* Also clears close-on-exec when both numbers are the same. */
HOOKED int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    if (!PLAIN(fd))
        track_shared(fd, REASON_PASSED);
    return real_posix_spawn_file_actions_adddup2(actions, fd, to);
}

/* What they wait for may be closed by another thread, and they would not know. */
static void waited_for_by_syscall(long number, const long *a)
{
    struct waiting waiting;
    fd_set *sets[] = {(fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3]};

    if (!atomic_load_explicit(&conn_ever_used, memory_order_relaxed))
        return;
    switch (number) {
#ifdef SYS_poll
    case SYS_poll:
#endif
    case SYS_ppoll:
        waiting_poll(&waiting, (const struct pollfd *)a[0], (nfds_t)a[1]);
        break;
    default:
        waiting_select(&waiting, (int)a[0], sets);
        break;
    }
    waiting_refuse(&waiting, REASON_RAW_SYSCALL);
    waiting_end(&waiting);
}

static int close_by_syscall(int fd)
{
    return (int)real_syscall(SYS_close, fd);
}

static int close_range_by_syscall(unsigned int first, unsigned int last, int flags)
{
    return (int)real_syscall(SYS_close_range, first, last, flags);
}

static void child_by_syscall(void)
{
    atomic_fetch_add(&process_children, 1);
    atomic_fetch_add(&process_sharers, 1);
}

/* What a system call made by number does to the number in its first argument, or to all. */
static void before_syscall(long number, const long *a)
{
    switch (number) {
    case SYS_read:
    case SYS_write:
    case SYS_readv:
    case SYS_writev:
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_sendmmsg:
    case SYS_recvfrom:
    case SYS_recvmsg:
    case SYS_recvmmsg:
    case SYS_preadv2:
    case SYS_pwritev2:
    case SYS_connect:
    case SYS_bind:
    case SYS_shutdown:
    case SYS_setsockopt:
    case SYS_ioctl:
    case SYS_fcntl:
    case SYS_dup:
    case SYS_sendfile:
        if (!PLAIN((int)a[0]))
            track_shared((int)a[0], REASON_RAW_SYSCALL);
        break;
#ifdef SYS_dup2
    case SYS_dup2:
#endif
    case SYS_dup3:
        if (!PLAIN((int)a[0]))
            track_shared((int)a[0], REASON_RAW_SYSCALL);
        if (!PLAIN((int)a[1]) && a[0] != a[1])
            track_forget((int)a[1]);
        break;
    case SYS_splice:
        if (!PLAIN((int)a[0]))
            track_refuse((int)a[0], REASON_RAW_SYSCALL);
        if (!PLAIN((int)a[2]))
            track_refuse((int)a[2], REASON_RAW_SYSCALL);
        break;
    case SYS_clone:
        if (a[0] & CLONE_THREAD)
            break;
        child_by_syscall();
        break;
#ifdef SYS_fork
    case SYS_fork:
    case SYS_vfork:
#endif
    case SYS_clone3:
        child_by_syscall();
        break;
#ifdef SYS_poll
    case SYS_poll:
    case SYS_select:
#endif
    case SYS_ppoll:
    case SYS_pselect6:
        waited_for_by_syscall(number, a);
        break;
    case SYS_exit_group:
        due_before_end();
        break;
    case SYS_io_uring_setup:
        if (process_is_owner()) {
            process_refuse(REASON_IO_URING);
            lending_flush(REASON_IO_URING);
        }
        break;
    default:
        break;
    }
}

static long after_syscall(long number, const long *a, long result)
{
    switch (number) {
    case SYS_epoll_ctl:
        return hook_epoll_ctl_done((int)result, (int)a[0], (int)a[1], (int)a[2],
                                   (const struct epoll_event *)a[3]);
    case SYS_unshare:
        return namespace_changed((int)result, concerns_us((int)a[0]));
    case SYS_setns:
        return namespace_changed((int)result, true);
    case SYS_setuid:
    case SYS_setgid:
    case SYS_setreuid:
    case SYS_setregid:
    case SYS_setresuid:
    case SYS_setresgid:
    case SYS_setfsuid:
    case SYS_setfsgid:
    case SYS_setgroups:
    case SYS_chroot:
        identity_changed(result == -1 ? -1 : 0);
        return result;
    default:
        return result;
    }
}

/* Six arguments are passed on whatever the call takes; the kernel ignores the rest. */
HOOKED long syscall(long number, ...)
{
    long a[6];
    va_list list;

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_close && !PLAIN((int)a[0]))
        return hook_close((int)a[0], close_by_syscall);
    if (number == SYS_close_range)
        return hook_close_range((unsigned int)a[0], (unsigned int)a[1], (int)a[2],
                                close_range_by_syscall);
    before_syscall(number, a);
    return after_syscall(number, a, real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}
