/*
 * Hooks that change the whole process: its user and groups, its namespaces, its children, its
 * end.
 */
#include "hooks/hooks.h"

#include "base/ids.h"
#include "pool/due.h"
#include "pool/family.h"
#include "pool/sharing.h"
#include "pool/swap.h"

/* A child that no handler of fork() has prepared is not the owner. */
static void leave_family(void)
{
    if (owner_is_this_process())
        family_leave(SHARE_IDENTITY);
    else
        family_close_copies();
}

/* The idle connections were opened by a user or group that the process no longer is. */
int hook_identity_changed(int result)
{
    int saved = errno;

    if (result == -1)
        return result;
    if (owner_is_this_process()) {
        atomic_fetch_add(&cred_epoch, 1);
        discard_idle(REASON_IDENTITY);
    }
    leave_family();
    errno = saved;
    return result;
}

#define IDENTITY_HOOK(name, params, args)                                                      \
    HOOKED int name params                                                                     \
    {                                                                                          \
        return hook_identity_changed(real_##name args);                                        \
    }

/* Each worker of gunicorn 20 sets the user that it is already, and stays in its family. Where
 * there is none, the kernel is not asked: a seccomp filter may forbid it. */
#define IDS_HOOK(name, params, args)                                                           \
    HOOKED int name params                                                                     \
    {                                                                                          \
        struct ids before = {{0}, {0}};                                                        \
        bool known = family_get() && owner_is_this_process() && ids_ask(&before);              \
        int result = real_##name args;                                                         \
                                                                                               \
        return known && ids_are(&before) ? result : hook_identity_changed(result);             \
    }

IDS_HOOK(setuid, (uid_t uid), (uid))
IDS_HOOK(setgid, (gid_t gid), (gid))
IDS_HOOK(seteuid, (uid_t uid), (uid))
IDS_HOOK(setegid, (gid_t gid), (gid))
IDS_HOOK(setreuid, (uid_t real, uid_t effective), (real, effective))
IDS_HOOK(setregid, (gid_t real, gid_t effective), (real, effective))
IDS_HOOK(setresuid, (uid_t real, uid_t effective, uid_t saved), (real, effective, saved))
IDS_HOOK(setresgid, (gid_t real, gid_t effective, gid_t saved), (real, effective, saved))

IDENTITY_HOOK(setfsuid, (uid_t uid), (uid))
IDENTITY_HOOK(setfsgid, (gid_t gid), (gid))
IDENTITY_HOOK(setgroups, (size_t n, const gid_t *groups), (n, groups))
IDENTITY_HOOK(initgroups, (const char *user, gid_t group), (user, group))
IDENTITY_HOOK(chroot, (const char *path), (path))

/* Pooled connections are in the network namespace and the table of fds that the process had. */
int hook_namespace_changed(int result)
{
    if (result == 0 && owner_is_this_process())
        track_namespace_lost();
    else if (result == 0)
        family_close_copies();
    return result;
}

/* Connections go on in another namespace of any other kind. But a family has one identity, and
 * counts on it that pids and clocks are those of all its members. */
int hook_unshared(int result, int flags)
{
    const int others = CLONE_NEWNS | CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS |
                       CLONE_NEWCGROUP | CLONE_NEWTIME;

    if (flags & (CLONE_NEWNET | CLONE_FILES | CLONE_NEWUSER))
        return hook_namespace_changed(result);
    if (result == 0 && flags & others)
        leave_family();
    return result;
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

/* PIDFD may be this process; to ask costs a system call. So the connection that this process
 * has at FD counts as duplicated. */
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

/* Python removes its handlers early in its end, which can take long. A master that signals its
 * workers once more (gunicorn does so in a reload) kills them then, before any destructor. */
static bool can_kill(int number)
{
    return number == SIGTERM || number == SIGINT || number == SIGQUIT || number == SIGHUP ||
           number == SIGUSR1 || number == SIGUSR2;
}

HOOKED int sigaction(int number, const struct sigaction *action, struct sigaction *old)
{
    /* In this order: libc does not read the action of a wrong number. */
    if (can_kill(number) && action && action->sa_handler == SIG_DFL)
        sharing_before_a_kill();
    return real_sigaction(number, action, old);
}

HOOKED sighandler_t signal(int number, sighandler_t handler)
{
    if (can_kill(number) && handler == SIG_DFL)
        sharing_before_a_kill();
    return real_signal(number, handler);
}

/* The child gets the fd even if FD and TO are the same, as close-on-exec is cleared then. */
HOOKED int posix_spawn_file_actions_adddup2(posix_spawn_file_actions_t *actions, int fd, int to)
{
    hook_share(fd, REASON_PASSED);
    return real_posix_spawn_file_actions_adddup2(actions, fd, to);
}

/* Whether a child made with FLAGS keeps copies of the shadow fds. It runs no handler of
 * pthread_atfork() that closes them. Not so if it shares our memory and either is about to exec
 * (CLONE_VFORK) or shares our table of fds as well. */
static bool is_orphan(uint64_t flags)
{
    return !(flags & CLONE_VM && flags & (CLONE_VFORK | CLONE_FILES));
}

static bool shares_memory(uint64_t flags)
{
    return flags & CLONE_VM && !(flags & CLONE_THREAD);
}

void hook_child_begins(uint64_t flags)
{
    if (flags & CLONE_THREAD)
        return;
    atomic_fetch_add(&fork_epoch, 1);
    if (shares_memory(flags))
        owner_sharer_begins();
    if (is_orphan(flags))
        atomic_fetch_add(&orphan_epoch, 1);
}

/* Whether a child made with FLAGS has copies of the family's queues that it must not keep: it
 * may be in other namespaces. A child that shares our memory is about to exec. */
static bool has_copies(uint64_t flags)
{
    return !(flags & (CLONE_VM | CLONE_FILES));
}

/* With CLONE_VFORK the call returns when the child has left our memory.
 *
 * Counts an orphan once more: another thread may have opened a socket between the first count
 * and the call. Pooling ends in two cases. A child with memory of its own that shares our table
 * of fds opens and closes fds unseen. A thread with a table of its own does not have our fds.
 */
long hook_child_made(uint64_t flags, long result)
{
    bool same_memory = flags & CLONE_VM, same_table = flags & CLONE_FILES;

    if (shares_memory(flags) && result != 0)
        owner_sharer_made(result > 0 && !(flags & CLONE_VFORK));
    if (result == 0 && has_copies(flags))
        family_forget_copies();
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

void hook_vfork_begins(void)
{
    hook_child_begins(CLONE_VM | CLONE_VFORK);
}

pid_t hook_vfork_made(long result)
{
    hook_child_made(CLONE_VM | CLONE_VFORK, result);
    if (result > 0)
        return (pid_t)result;
    errno = (int)-result;
    return -1;
}

HOOKED pid_t _Fork(void)
{
    hook_child_begins(0);
    return (pid_t)hook_child_made(0, real__Fork());
}

/* What the child of clone() is to call. It is on the stack of the parent, of which the child
 * has a copy. */
struct child {
    int (*body)(void *);
    void *argument;
};

static int begin_child(void *argument)
{
    const struct child *child = argument;

    family_forget_copies();
    return child->body(child->argument);
}

/* Can be a C function: the child begins in BODY on a stack of its own and never returns here.
 */
HOOKED int clone(int (*body)(void *), void *stack, int flags, void *argument, ...)
{
    struct libc_three rest = VARIADIC_THREE(argument);
    struct child child = {body, argument};

    if (body && has_copies((unsigned int)flags)) {
        body = begin_child;
        argument = &child;
    }
    hook_child_begins((unsigned int)flags);
    return (int)hook_child_made((unsigned int)flags,
                                real_clone(body, stack, flags, argument, rest.argument[0],
                                           rest.argument[1], rest.argument[2]));
}
HOOKED_ALIAS(__clone, clone);
