/*
 * The real functions behind the hooks: real_close() is the close() that the program would call
 * without the library, and so on for every row of hooks/hooks.def. They can be called at any
 * time: before libc_start() has run they make the bare system call, and the first call after it
 * looks the function up. They may block and be cancellation points, just as the functions of
 * those names. Called without the pool's lock.
 */
#ifndef MCPOOL_LIBC_H
#define MCPOOL_LIBC_H

#include <aio.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/aio_abi.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#include "base/compiler.h"

#define MCPOOL_HIDDEN __attribute__((visibility("hidden")))
#define MCPOOL_EXPORT __attribute__((visibility("default")))

/* The one variadic argument after LAST, in its full width: fcntl() and ioctl() take an int, a
 * pointer or nothing. */
#define VARIADIC(last)                                                                         \
    ({                                                                                         \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        void *argument_ = va_arg(list_, void *);                                               \
        va_end(list_);                                                                         \
        argument_;                                                                             \
    })

/* Calls real_NAME(), a function that takes a va_list, with the variadic arguments after LAST.
 */
#define PRINTED(name, last, ...)                                                               \
    ({                                                                                         \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        int printed_ = real_##name(__VA_ARGS__, list_);                                        \
        va_end(list_);                                                                         \
        printed_;                                                                              \
    })

/* The three variadic arguments of clone(), of which any may be missing. */
struct libc_three {
    void *argument[3];
};

/* Those after LAST. */
#define VARIADIC_THREE(last)                                                                   \
    ({                                                                                         \
        struct libc_three three_;                                                              \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        for (int i = 0; i < 3; i++)                                                            \
            three_.argument[i] = va_arg(list_, void *);                                        \
        va_end(list_);                                                                         \
        three_;                                                                                \
    })

/* Declares the hooks and the pointers to the real functions. libc's headers lack a few. */
#define HOOK(ret, name, params, before)                                                        \
    ret name params;                                                                           \
    extern MCPOOL_HIDDEN ret(*real_##name) params;
#define ALIAS(name, hook)
#define HOOK_CHILD(name)
#define HOOK_FOREIGN(ret, name, version, body, params) MCPOOL_HIDDEN ret body params;
#include "hooks/hooks.def"
#undef HOOK
#undef ALIAS
#undef HOOK_CHILD
#undef HOOK_FOREIGN

/* At start-up. A name that this libc lacks keeps the bare system call. False when the functions
 * of base/unwind.h are missing: nothing may be pooled. */
bool libc_start(void);

/* For hooks/first.S: what is to be called for NAME, whose pointer is REAL. The pointer is set
 * if start-up has run; until then it is BEFORE. Takes no lock and keeps errno. */
COLD void *libc_first(void **real, void *before, const char *name) MCPOOL_HIDDEN;

/* Before a fork: looks up _exit(), which its child calls and the parent never does. Each child
 * would look it up again. */
void libc_bind_exit(void);

/* The real functions of hooks/children.S, whose hooks have them looked up at their first call.
 */
extern MCPOOL_HIDDEN void *real_popen, *real_system;
void libc_bind_children(void);

#endif
