/*
 * The hook of syscall(), with which a program makes system calls past the hooks of their names.
 * hooks/syscalls.def lists the calls that concern the library; all others are only passed on.
 */
#include "hooks/hooks.h"

#include "pool/due.h"
#include "base/usermem.h"
#include "conn/ring.h"
#include "base/unwind.h"
#include "conn/pollers.h"

#include <stdarg.h>
#include <sys/syscall.h>

#define ARGUMENTS 6

/* Makes the system call NR with the arguments at A. Passes six on whatever the call takes: the
 * kernel ignores the rest. */
static inline long pass_on(long nr, const long *a)
{
    return real_syscall(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

/* The effects of syscalls.def. Each makes the call, as pass_on() does. */

static long send_many(long nr, const long *a, size_t stride, unsigned int count)
{
    struct passing passing;
    long result;

    passing_begin((const void *)a[1], stride, count, &passing);
    result = pass_on(nr, a);
    passing_end(&passing);
    return result;
}

static long send_message(long nr, const long *a)
{
    return send_many(nr, a, 0, 1);
}

static long send_messages(long nr, const long *a)
{
    return send_many(nr, a, sizeof(struct mmsghdr), (unsigned int)a[2]);
}

static long receive_message(long nr, const long *a)
{
    long result = pass_on(nr, a);

    if (result >= 0)
        passing_received((const struct msghdr *)a[1]);
    return result;
}

static long submit_requests(long nr, const long *a)
{
    hook_submitted((struct iocb **)a[2], a[1], REASON_RAW_SYSCALL);
    return pass_on(nr, a);
}

static long ask_for_name(long nr, const long *a)
{
    track_name_asked((int)a[0]);
    return pass_on(nr, a);
}

static long make_fd(long nr, const long *a)
{
    long result = pass_on(nr, a);

    track_new_fd((int)result);
    return result;
}

#ifdef SYS_dup2
static int syscall_dup2(int fd, int to, int flags)
{
    (void)flags;
    return (int)real_syscall(SYS_dup2, fd, to);
}
#endif

static int syscall_dup3(int fd, int to, int flags)
{
    return (int)real_syscall(SYS_dup3, fd, to, flags);
}

static long replace_fd(long nr, const long *a)
{
    int fd = (int)a[0], to = (int)a[1];

    if (PLAIN(to))
        return pass_on(nr, a);
#ifdef SYS_dup2
    if (nr == SYS_dup2)
        return hook_replace(fd, to, 0, syscall_dup2);
#endif
    return hook_replace(fd, to, (int)a[2], syscall_dup3);
}

static int syscall_close(int fd)
{
    return (int)real_syscall(SYS_close, fd);
}

static long close_fd(long nr, const long *a)
{
    if (PLAIN((int)a[0]))
        return pass_on(nr, a);
    return hook_close((int)a[0], syscall_close);
}

static int syscall_close_range(unsigned int first, unsigned int last, int flags)
{
    return (int)real_syscall(SYS_close_range, first, last, flags);
}

static long close_fds(long nr, const long *a)
{
    (void)nr;
    return hook_close_range((unsigned int)a[0], (unsigned int)a[1], (int)a[2],
                            syscall_close_range);
}

/* Another thread may close a connection that this call waits for, and we do not know when the
 * wait ends: none of these connections is pooled. */
static void refuse_pollers(struct pollers *pollers)
{
    pollers_refuse(pollers, REASON_RAW_SYSCALL);
    pollers_end(pollers);
}

/* Relaxed: a hint. An old value misses a connection that another thread has just made. */
static inline bool may_poll_any(void)
{
    return atomic_load_explicit(&conn_ever_used, memory_order_relaxed);
}

static long poll_list(long nr, const long *a)
{
    struct pollers pollers;

    if (may_poll_any()) {
        pollers_poll(&pollers, (const struct pollfd *)a[0], (nfds_t)a[1]);
        refuse_pollers(&pollers);
    }
    return pass_on(nr, a);
}

static long poll_sets(long nr, const long *a)
{
    fd_set *sets[] = {(fd_set *)a[1], (fd_set *)a[2], (fd_set *)a[3]};
    struct pollers pollers;

    if (may_poll_any()) {
        pollers_select(&pollers, (int)a[0], sets);
        refuse_pollers(&pollers);
    }
    return pass_on(nr, a);
}

static int syscall_epoll_ctl(int epfd, int op, int fd, struct epoll_event *event)
{
    return (int)real_syscall(SYS_epoll_ctl, epfd, op, fd, event);
}

static long change_epoll(long nr, const long *a)
{
    (void)nr;
    return hook_epoll_ctl((int)a[0], (int)a[1], (int)a[2], (struct epoll_event *)a[3],
                          syscall_epoll_ctl);
}

static long make_ring(long nr, const long *a)
{
    long result = pass_on(nr, a);

    if (result >= 0 && owner_is_this_process())
        ring_opened((int)result, (const struct io_uring_params *)a[1]);
    return result;
}

static long register_with_ring(long nr, const long *a)
{
    long result = pass_on(nr, a);

    if (result >= 0)
        ring_registered((uint32_t)a[1]);
    return result;
}

static long enter_ring(long nr, const long *a)
{
    struct _pthread_cleanup_buffer cleanup;
    struct ring_enter enter;
    long result;

    ring_enter_begin(&enter, (int)a[0], (uint32_t)a[1], (uint32_t)a[3]);
    _pthread_cleanup_push(&cleanup, ring_enter_end, &enter);
    result = pass_on(nr, a);
    _pthread_cleanup_pop(&cleanup, 1);
    return result;
}

/* The flags, as of clone(2), of the child that the call makes. For clone3() they are the first
 * member of its struct. */
static uint64_t child_flags(long nr, const long *a)
{
    switch (nr) {
    case SYS_clone:
        return (unsigned long)a[0];
    case SYS_clone3:
        return usermem_readable((const void *)a[0], sizeof(uint64_t)) ? *(const uint64_t *)a[0]
                                                                      : 0;
#ifdef SYS_vfork
    case SYS_vfork:
        return CLONE_VM | CLONE_VFORK;
#endif
    default:
        return 0;
    }
}

static long make_child(long nr, const long *a)
{
    uint64_t flags = child_flags(nr, a);

    hook_child_begins(flags);
    return hook_child_made(flags, pass_on(nr, a));
}

static long end_process(long nr, const long *a)
{
    due_before_end();
    return pass_on(nr, a);
}

/* setfsuid() and setfsgid() return the old id, not 0. */
static long change_identity(long nr, const long *a)
{
    long result = pass_on(nr, a);

    hook_identity_changed(result == -1 ? -1 : 0);
    return result;
}

static long leave_namespace(long nr, const long *a)
{
    return hook_unshared((int)pass_on(nr, a), (int)a[0]);
}

static long protect_memory(long nr, const long *a)
{
    hook_protects((const void *)a[0], (size_t)a[1], (int)a[2]);
    return pass_on(nr, a);
}

static long enter_namespace(long nr, const long *a)
{
    return hook_namespace_changed((int)pass_on(nr, a));
}

/* The table. */

#define NO_FD  0
#define FD(at) (1 << (at))

/* A number for each, as a pointer would have to be relocated in every process. */
enum effect {
#define EFFECT(function) EFFECT_##function,
#include "hooks/effects.def"
#undef EFFECT
};

static const struct row {
    uint8_t fds;
    uint8_t effect;
} rows[] = {
#define SYSCALL(name, fds, effect) {fds, EFFECT_##effect},
#include "hooks/syscalls.def"
#undef SYSCALL
};

static long take_effect(enum effect effect, long nr, const long *a)
{
    switch (effect) {
#define EFFECT(function)                                                                       \
    case EFFECT_##function:                                                                    \
        return function(nr, a);
#include "hooks/effects.def"
#undef EFFECT
    }
    return pass_on(nr, a);
}

enum row_index {
#define SYSCALL(name, fds, effect) ROW_OF_##name,
#include "hooks/syscalls.def"
#undef SYSCALL
};

/* By nr: one more than the index of the call's row; 0 when the call is only passed on. */
static const uint8_t row_by_nr[] = {
#define SYSCALL(name, fds, effect) [SYS_##name] = ROW_OF_##name + 1,
#include "hooks/syscalls.def"
#undef SYSCALL
};

static inline const struct row *row_of(long nr)
{
    uint8_t row = (unsigned long)nr < sizeof(row_by_nr) ? row_by_nr[nr] : 0;

    return row == 0 ? NULL : &rows[row - 1];
}

HOOKED long syscall(long nr, ...)
{
    const struct row *row = row_of(nr);
    long a[ARGUMENTS];
    va_list list;

    va_start(list, nr);
    for (int i = 0; i < ARGUMENTS; i++)
        a[i] = va_arg(list, long);
    va_end(list);
    if (!row)
        return pass_on(nr, a);
    for (unsigned int fds = row->fds; fds != 0; fds &= fds - 1)
        hook_share((int)a[__builtin_ctz(fds)], REASON_RAW_SYSCALL);
    return take_effect((enum effect)row->effect, nr, a);
}
