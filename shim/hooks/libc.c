/*
 * Finds the real functions behind the hooks when they are first called, and takes their place
 * before start-up.
 */
#include "hooks/libc.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <sys/resource.h>

#include "base/lookup.h"
#include "base/newer.h"
#include "base/rawsys.h"
#include "base/unwind.h"

static long result_of(long raw)
{
    if (raw < 0 && raw > -4096) {
        errno = (int)-raw;
        return -1;
    }
    return raw;
}

/* Newer architectures have no system call dup2(). dup3() refuses two fds that are the same. */
static int libc_dup2_before(int fd, int to)
{
    if (fd == to)
        return result_of(raw_syscall(SYS_fcntl, fd, F_GETFD)) < 0 ? -1 : to;
    return (int)result_of(raw_syscall(SYS_dup3, fd, to, 0));
}

/* seteuid() and setegid(). Their system call takes -1 as "leave it as it is"; they refuse it.
 */
static int libc_effective_before(long nr, unsigned int id)
{
    return (int)result_of(id == (unsigned int)-1 ? -EINVAL : raw_syscall(nr, -1, id, -1));
}

/* Linux has close_range() since 5.9. */
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

/* The system call NR with the six variadic arguments after it. */
#define RAW_SIX(nr)                                                                            \
    ({                                                                                         \
        long six_[6];                                                                          \
        va_list list_;                                                                         \
        va_start(list_, nr);                                                                   \
        for (int i = 0; i < 6; i++)                                                            \
            six_[i] = va_arg(list_, long);                                                     \
        va_end(list_);                                                                         \
        result_of(raw_syscall6(nr, six_[0], six_[1], six_[2], six_[3], six_[4], six_[5]));     \
    })

/* The system call NR with LAST and the four variadic arguments after it. */
#define RAW_FOUR(nr, last)                                                                     \
    ({                                                                                         \
        long four_[4];                                                                         \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        for (int i = 0; i < 4; i++)                                                            \
            four_[i] = va_arg(list_, long);                                                    \
        va_end(list_);                                                                         \
        RAW(nr, last, four_[0], four_[1], four_[2], four_[3]);                                 \
    })

/* The function NAME. Before glibc 2.34 some are in librt, which may be loaded at any time for a
 * plugin; and if this library was loaded by dlopen(), libc is not behind it. */
static void *libc_late(const char *name)
{
    void *found = lookup_next(name);

    return found ? found : lookup_versioned(name, NULL);
}

#define LATE(type, name, args) ((type)(uintptr_t)libc_late(#name)) args

static pid_t libc_fork_before(void)
{
    pid_t (*real)(void) = (pid_t(*)(void))(uintptr_t)libc_late("_Fork");

    return real ? real() : (pid_t)RAW(SYS_clone, SIGCHLD);
}

static int libc_clone_before(int (*body)(void *), void *stack, int flags, void *argument,
                             struct libc_three rest)
{
    return LATE(
        int (*)(int (*)(void *), void *, int, void *, ...), clone,
        (body, stack, flags, argument, rest.argument[0], rest.argument[1], rest.argument[2]));
}

/* Each pointer begins at its function in hooks/first.S. */
#define HOOK(ret, name, params, before)                                                        \
    MCPOOL_HIDDEN ret before_##name params;                                                    \
    MCPOOL_HIDDEN ret first_##name params;                                                     \
    ret before_##name params                                                                   \
    {                                                                                          \
        return (ret)(before);                                                                  \
    }                                                                                          \
    ret(*real_##name) params = first_##name;
#define ALIAS(name, hook)
#define HOOK_FOREIGN(ret, name, version, body, params)
#define HOOK_CHILD(name)
#include "hooks/hooks.def"
#undef HOOK

void *real_popen, *real_system;

void libc_bind_children(void)
{
    real_popen = libc_late("popen");
    real_system = libc_late("system");
}

/* Whether the real functions can be looked up at any time. */
static AT_START bool is_started;

/* Not seen by ThreadSanitizer: two threads may store the same pointer at the same time, and a
 * third one may read it meanwhile. */
__attribute__((no_sanitize("thread"))) void *libc_first(void **real, void *before,
                                                        const char *name)
{
    void *found = NULL;

    if (!is_started)
        return before;
    found = lookup_next(name);
    if (!found)
        found = before;
    /* relaxed: what the pointer leads to is there since start-up */
    __atomic_store_n(real, found, __ATOMIC_RELAXED);
    return found;
}

void libc_bind_exit(void)
{
    if (real__exit == first__exit)
        libc_first((void **)&real__exit, before__exit, "_exit");
}

static bool bind_one(void *real, void *found)
{
    if (found)
        *(void **)real = found;
    return found != NULL;
}

/* Binds all at once, as objects that come and go may be behind us. */
static void bind_all(void)
{
#define HOOK(ret, name, params, before)                                                        \
    real_##name = before_##name;                                                               \
    bind_one(&real_##name, libc_late(#name));
#include "hooks/hooks.def"
#undef HOOK
#undef HOOK_CHILD
    libc_bind_children();
}

static bool bind_unwinding(void)
{
    bool push = bind_one(&unwind.push, lookup_versioned("_pthread_cleanup_push", NULL));
    bool pop = bind_one(&unwind.pop, lookup_versioned("_pthread_cleanup_pop", NULL));
    bool test = bind_one(&unwind.testcancel, lookup_versioned("pthread_testcancel", NULL));

    return push && pop && test;
}

bool libc_start(void)
{
    if (!lookup_note_objects())
        bind_all();
    is_started = true;
    return bind_unwinding();
}
