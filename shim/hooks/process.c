/*
 * What changes the whole process: its identity, its namespaces, calls made past libc's names.
 */
#include "hooks/hooks.h"

#include "pool/due.h"
#include "pool/swap.h"
#include "base/usermem.h"
#include "conn/ring.h"
#include "base/unwind.h"
#include "conn/pollers.h"

#include <stdarg.h>
#include <sys/syscall.h>

/* Idle connections were opened by somebody else, from now on. */
int hook_identity_changed(int result)
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
        return hook_identity_changed(real_##name args);                                        \
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

/* Another process is about to get what FD names. */
static void share(int fd, enum reason reason)
{
    if (PLAIN(fd))
        return;
    protocol_renew(fd);
    track_shared(fd, reason);
}

/* Whether PIDFD is this process is not known without a system call, so what this process has at
 * FD is taken to be duplicated. */
HOOKED int pidfd_getfd(int pidfd, int fd, unsigned int flags)
{
    int result;

    share(fd, REASON_DUPLICATED);
    result = real_pidfd_getfd(pidfd, fd, flags);
    if (hook_should_retry(result))
        result = real_pidfd_getfd(pidfd, fd, flags);
    track_new_number(result);
    return result;
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
 * jump: nothing may be left to do after it, and tests/symbols looks whether the compiler
 * agreed.
 */
HOOKED void *dlopen(const char *file, int flags)
{
    return real_dlopen(file, hook_dlopen_flags(file, flags));
}

/* Also clears close-on-exec when both numbers are the same. */
HOOKED int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    share(fd, REASON_PASSED);
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

static int dup3_by_syscall(int fd, int to, int flags)
{
    return (int)real_syscall(SYS_dup3, fd, to, flags);
}

static int epoll_ctl_by_syscall(int epfd, int op, int fd, struct epoll_event *event)
{
    return (int)real_syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

/* One message, or many. */
static long send_by_syscall(long number, const long *a)
{
    bool many = number == SYS_sendmmsg;
    struct track_passed passed;
    long result;

    track_passing((const void *)a[1], many ? sizeof(struct mmsghdr) : 0,
                  many ? (unsigned int)a[2] : 1, &passed);
    result = real_syscall(number, a[0], a[1], a[2], a[3]);
    track_passed(&passed);
    return result;
}

#ifdef SYS_dup2
static int dup2_by_syscall(int fd, int to, int flags)
{
    (void)flags;
    return (int)real_syscall(SYS_dup2, fd, to);
}
#endif

/* A child by _Fork() or clone() with FLAGS runs no handler of pthread_atfork(). If it is not
 * about to exec, and has a table of fds of its own, it keeps copies of private fds. */
static bool is_orphan(uint64_t flags)
{
    return !(flags & CLONE_VM && flags & (CLONE_VFORK | CLONE_FILES));
}

static void child_begins(uint64_t flags)
{
    if (flags & CLONE_THREAD)
        return;
    atomic_fetch_add(&process_children, 1);
    if (flags & CLONE_VM)
        atomic_fetch_add(&process_sharers, 1);
    if (is_orphan(flags))
        atomic_fetch_add(&process_orphans, 1);
}

/* Counted once more: another thread may have opened a socket after the first count and before
 * the child was made. Pooling ends where a child with memory of its own shares our table of
 * fds, as it closes and opens our fds unseen, and where a thread has a table of its own, as the
 * fds are not there. Gives RESULT, and keeps errno. */
static long child_made(uint64_t flags, long result)
{
    bool same_memory = flags & CLONE_VM, same_table = flags & CLONE_FILES;

    if (result <= 0)
        return result;
    if (!(flags & CLONE_THREAD) && is_orphan(flags)) {
        atomic_fetch_add(&process_children, 1);
        atomic_fetch_add(&process_orphans, 1);
    }
    if ((same_table ? !same_memory : flags & CLONE_THREAD) && process_is_owner())
        track_namespace_lost();
    return result;
}

HOOKED pid_t _Fork(void)
{
    child_begins(0);
    return (pid_t)child_made(0, real__Fork());
}

/* The child begins in BODY on a stack of its own and never comes back here. */
HOOKED int clone(int (*body)(void *), void *stack, int flags, void *argument, ...)
{
    struct libc_three rest = VARIADIC_THREE(argument);

    child_begins((unsigned int)flags);
    return (int)child_made((unsigned int)flags,
                           real_clone(body, stack, flags, argument, rest.argument[0],
                                      rest.argument[1], rest.argument[2]));
}
HOOKED_ALIAS(__clone, clone);

/* The flags of the child that the system call NUMBER makes; false when it makes none.
 * Those of clone3() are the first member of its struct (clone(2)). */
static bool makes_child(long number, const long *a, uint64_t *flags)
{
    switch (number) {
#ifdef SYS_fork
    case SYS_fork:
        *flags = 0;
        return true;
    case SYS_vfork:
        *flags = CLONE_VM | CLONE_VFORK;
        return true;
#endif
    case SYS_clone:
        *flags = (unsigned long)a[0];
        return true;
    case SYS_clone3:
        *flags = is_readable((const void *)a[0], sizeof(*flags)) ? *(const uint64_t *)a[0] : 0;
        return true;
    default:
        return false;
    }
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
        share((int)a[0], REASON_RAW_SYSCALL);
        break;
#ifdef SYS_dup2
    case SYS_dup2:
#endif
    case SYS_dup3:
        share((int)a[0], REASON_RAW_SYSCALL);
        break;
    case SYS_getsockname:
        track_name_asked((int)a[0]);
        break;
    case SYS_pidfd_getfd:
        share((int)a[1], REASON_RAW_SYSCALL);
        break;
    case SYS_splice:
        share((int)a[0], REASON_RAW_SYSCALL);
        share((int)a[2], REASON_RAW_SYSCALL);
        break;
#ifdef SYS_poll
    case SYS_poll:
    case SYS_select:
#endif
    case SYS_ppoll:
    case SYS_pselect6:
        waited_for_by_syscall(number, a);
        break;
    case SYS_io_submit:
        hook_submitted((struct iocb **)a[2], a[1], REASON_RAW_SYSCALL);
        break;
    case SYS_exit_group:
        due_before_end();
        break;
    default:
        break;
    }
}

static long after_syscall(long number, const long *a, long result)
{
    switch (number) {
    case SYS_io_uring_setup:
        if (result >= 0 && process_is_owner())
            ring_opened((int)result, (const struct io_uring_params *)a[1]);
        return result;
    case SYS_io_uring_register:
        if (result >= 0)
            ring_registered((uint32_t)a[1]);
        return result;
    case SYS_socket:
    case SYS_accept:
    case SYS_accept4:
    case SYS_dup:
    case SYS_pidfd_getfd:
        track_new_number((int)result);
        return result;
    case SYS_recvmsg:
        if (result >= 0)
            track_received((const struct msghdr *)a[1]);
        return result;
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
        hook_identity_changed(result == -1 ? -1 : 0);
        return result;
    default:
        return result;
    }
}

static __attribute__((noinline)) long io_uring_enter_by_syscall(const long *a)
{
    struct _pthread_cleanup_buffer cleanup;
    struct ring_enter enter;
    long result;

    ring_enter_begin(&enter, (int)a[0], (uint32_t)a[1], (uint32_t)a[3]);
    _pthread_cleanup_push(&cleanup, ring_enter_end, &enter);
    result = real_syscall(SYS_io_uring_enter, a[0], a[1], a[2], a[3], a[4], a[5]);
    _pthread_cleanup_pop(&cleanup, 1);
    return result;
}

/* Six arguments are passed on whatever the call takes; the kernel ignores the rest. */
HOOKED long syscall(long number, ...)
{
    long a[6];
    va_list list;
    uint64_t flags;

    va_start(list, number);
    for (int i = 0; i < 6; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (number == SYS_close && !PLAIN((int)a[0]))
        return hook_close((int)a[0], close_by_syscall);
    if (number == SYS_close_range)
        return hook_close_range((unsigned int)a[0], (unsigned int)a[1], (int)a[2],
                                close_range_by_syscall);
    if (number == SYS_io_uring_enter)
        return io_uring_enter_by_syscall(a);
    if (hook_confines(number, a))
        return hook_confine(number, a);
    if (makes_child(number, a, &flags)) {
        child_begins(flags);
        return child_made(flags, real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]));
    }
    if (number == SYS_epoll_ctl)
        return hook_epoll_ctl((int)a[0], (int)a[1], (int)a[2], (struct epoll_event *)a[3],
                              epoll_ctl_by_syscall);
    before_syscall(number, a);
    if (number == SYS_sendmsg || number == SYS_sendmmsg)
        return send_by_syscall(number, a);
    if (number == SYS_dup3 && !PLAIN((int)a[1]))
        return hook_replace((int)a[0], (int)a[1], (int)a[2], dup3_by_syscall);
#ifdef SYS_dup2
    if (number == SYS_dup2 && !PLAIN((int)a[1]))
        return hook_replace((int)a[0], (int)a[1], 0, dup2_by_syscall);
#endif
    return after_syscall(number, a, real_syscall(number, a[0], a[1], a[2], a[3], a[4], a[5]));
}
