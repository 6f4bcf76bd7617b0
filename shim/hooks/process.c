/*
 * What changes the whole process: its identity, its namespaces, its children, its end.
 */
#include "hooks/hooks.h"

#include "pool/due.h"
#include "pool/swap.h"

/* The user or group that opened the idle connections is no longer that of the process. */
int hook_identity_changed(int result)
{
    int saved = errno;

    if (result != -1 && owner_is_this_process()) {
        atomic_fetch_add(&cred_epoch, 1);
        discard_idle(REASON_IDENTITY);
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

/* Pooled connections belong to the network and the table of fds the process had. */
int hook_namespace_changed(int result)
{
    if (result == 0 && owner_is_this_process())
        track_namespace_lost();
    return result;
}

int hook_unshared(int result, int flags)
{
    bool concerns_us = flags & (CLONE_NEWNET | CLONE_FILES | CLONE_NEWUSER);

    return concerns_us ? hook_namespace_changed(result) : result;
}

HOOKED int unshare(int flags)
{
    return hook_unshared(real_unshare(flags), flags);
}

HOOKED int setns(int fd, int type)
{
    return hook_namespace_changed(real_setns(fd, type));
}

void hook_share(int fd, enum reason reason)
{
    if (PLAIN(fd))
        return;
    swap_for_new(fd);
    track_shared(fd, reason);
}

/* Whether PIDFD is this process is not known without a system call, so what this process has at
 * FD is taken to be duplicated. */
HOOKED int pidfd_getfd(int pidfd, int fd, unsigned int flags)
{
    int result;

    hook_share(fd, REASON_DUPLICATED);
    result = real_pidfd_getfd(pidfd, fd, flags);
    if (hook_should_retry(result))
        result = real_pidfd_getfd(pidfd, fd, flags);
    track_new_fd(result);
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

/* Also clears close-on-exec when both fds are the same. */
HOOKED int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    hook_share(fd, REASON_PASSED);
    return real_posix_spawn_file_actions_adddup2(actions, fd, to);
}

/* Whether a child made with FLAGS keeps copies of shadow fds. It does if it is not about to
 * exec and has a table of fds of its own, as it runs no handler of pthread_atfork(). */
static bool is_orphan(uint64_t flags)
{
    return !(flags & CLONE_VM && flags & (CLONE_VFORK | CLONE_FILES));
}

void hook_child_begins(uint64_t flags)
{
    if (flags & CLONE_THREAD)
        return;
    atomic_fetch_add(&fork_epoch, 1);
    if (flags & CLONE_VM)
        atomic_fetch_add(&memory_sharers, 1);
    if (is_orphan(flags))
        atomic_fetch_add(&orphan_epoch, 1);
}

/* The child is counted once more: another thread may have opened a socket after the first count
 * and before the child was made. Pooling ends when a child with memory of its own shares our
 * table of fds, as it opens and closes our fds unseen, and when a thread has a table of its
 * own, as our fds are not there. */
long hook_child_made(uint64_t flags, long result)
{
    bool same_memory = flags & CLONE_VM, same_table = flags & CLONE_FILES;

    if (result <= 0)
        return result;
    if (!(flags & CLONE_THREAD) && is_orphan(flags)) {
        atomic_fetch_add(&fork_epoch, 1);
        atomic_fetch_add(&orphan_epoch, 1);
    }
    if ((same_table ? !same_memory : flags & CLONE_THREAD) && owner_is_this_process())
        track_namespace_lost();
    return result;
}

HOOKED pid_t _Fork(void)
{
    hook_child_begins(0);
    return (pid_t)hook_child_made(0, real__Fork());
}

/* The child begins in BODY on a stack of its own and never comes back here. */
HOOKED int clone(int (*body)(void *), void *stack, int flags, void *argument, ...)
{
    struct libc_three rest = VARIADIC_THREE(argument);

    hook_child_begins((unsigned int)flags);
    return (int)hook_child_made((unsigned int)flags,
                                real_clone(body, stack, flags, argument, rest.argument[0],
                                           rest.argument[1], rest.argument[2]));
}
HOOKED_ALIAS(__clone, clone);
