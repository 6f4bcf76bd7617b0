/*
 * Binding: finds the real functions behind the hooks, and stands in for them before that.
 */
#include "hooks/libc.h"

#include <dlfcn.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>

#include "hooks/foreign.h"
#include "base/rawsys.h"

static long result_of(long raw)
{
    if (raw < 0 && raw > -4096) {
        errno = (int)-raw;
        return -1;
    }
    return raw;
}

/* dup2() is not a system call on newer architectures; dup3() refuses equal numbers. */
static int libc_dup2_before(int fd, int to)
{
    if (fd == to)
        return result_of(raw_syscall(SYS_fcntl, fd, F_GETFD)) < 0 ? -1 : to;
    return (int)result_of(raw_syscall(SYS_dup3, fd, to, 0));
}

/* The system calls take -1 for a wish to change nothing. */
static int libc_effective_before(long number, unsigned int id)
{
    return (int)result_of(id == (unsigned int)-1 ? -EINVAL : raw_syscall(number, -1, id, -1));
}

/* Before Linux 5.9 there is no close_range(). */
static void libc_closefrom_before(int first)
{
    struct rlimit limit = {0, 0};

    first = first < 0 ? 0 : first;
    if (raw_syscall(SYS_close_range, first, ~0U, 0) == 0 ||
        raw_syscall(SYS_prlimit64, 0, RLIMIT_NOFILE, NULL, &limit) != 0)
        return;
    for (rlim_t fd = (rlim_t)first; fd < limit.rlim_cur; fd++)
        raw_syscall(SYS_close, fd);
}

#define RAW(...) result_of(raw_syscall(__VA_ARGS__))
#define RAW_SIX(number)                                                                        \
    ({                                                                                         \
        long six_[6];                                                                          \
        va_list list_;                                                                         \
        va_start(list_, number);                                                               \
        for (int i = 0; i < 6; i++)                                                            \
            six_[i] = va_arg(list_, long);                                                     \
        va_end(list_);                                                                         \
        result_of(raw_syscall6(number, six_[0], six_[1], six_[2], six_[3], six_[4], six_[5])); \
    })
/* The system call with LAST and the four variadic arguments behind it. */
#define RAW_FOUR(number, last)                                                                 \
    ({                                                                                         \
        long four_[4];                                                                         \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        for (int i = 0; i < 4; i++)                                                            \
            four_[i] = va_arg(list_, long);                                                    \
        va_end(list_);                                                                         \
        RAW(number, last, four_[0], four_[1], four_[2], four_[3]);                             \
    })

/* Before glibc 2.34 some are in a library (librt) that may have been loaded for a plugin alone.
 */
static void *libc_late(const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    return found ? found : foreign_find(name, NULL);
}

#define LATE(type, name, args) ((type)(uintptr_t)libc_late(#name)) args

static pid_t libc_fork_before(void)
{
    pid_t (*real)(void) = (pid_t(*)(void))(uintptr_t)dlsym(RTLD_NEXT, "_Fork");

    return real ? real() : (pid_t)RAW(SYS_clone, SIGCHLD);
}

static int libc_clone_before(int (*body)(void *), void *stack, int flags, void *argument,
                             struct libc_three rest)
{
    return LATE(
        int (*)(int (*)(void *), void *, int, void *, ...), clone,
        (body, stack, flags, argument, rest.argument[0], rest.argument[1], rest.argument[2]));
}

#define HOOK(ret, name, params, before)                                                        \
    static ret before_##name params                                                            \
    {                                                                                          \
        return (ret)(before);                                                                  \
    }                                                                                          \
    ret(*real_##name) params = before_##name;
#define ALIAS(name, hook)
#define HOOK_FOREIGN(ret, name, version, body, params)
#define HOOK_CHILD(name) void *real_##name;
#include "hooks/hooks.def"
#undef HOOK
#undef HOOK_CHILD

void libc_bind_children(void)
{
#define HOOK(ret, name, params, before)
#define HOOK_CHILD(name) real_##name = dlsym(RTLD_NEXT, #name);
#include "hooks/hooks.def"
#undef HOOK
#undef HOOK_CHILD
}

static void bind_one(void *real, const char *name)
{
    void *found = dlsym(RTLD_NEXT, name);

    if (found)
        *(void **)real = found;
}

void libc_bind(void)
{
#define HOOK(ret, name, params, before) bind_one(&real_##name, #name);
#define HOOK_CHILD(name)
#include "hooks/hooks.def"
#undef HOOK
#undef HOOK_CHILD
    libc_bind_children();
}
