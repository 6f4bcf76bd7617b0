/*
 * The real functions behind the hooks: real_close() is what close() would be without us, and so
 * on for every row of hooks/hooks.def. Callable at any moment: before libc_bind() has run they
 * make the bare system call. They may block, and be cancellation points, exactly as the
 * functions of that name; call none of them with the pool's lock held.
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
#include <stdio.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

#define MCPOOL_HIDDEN __attribute__((visibility("hidden")))
#define MCPOOL_EXPORT __attribute__((visibility("default")))

/* The one variadic argument behind LAST, as wide as it came: fcntl() and ioctl() take an int, a
 * pointer or nothing. */
#define VARIADIC(last)                                                                         \
    ({                                                                                         \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        void *argument_ = va_arg(list_, void *);                                               \
        va_end(list_);                                                                         \
        argument_;                                                                             \
    })

/* What NAME gives for the arguments behind it and the variadic ones behind LAST. */
#define PRINTED(name, last, ...)                                                               \
    ({                                                                                         \
        va_list list_;                                                                         \
        va_start(list_, last);                                                                 \
        int printed_ = real_##name(__VA_ARGS__, list_);                                        \
        va_end(list_);                                                                         \
        printed_;                                                                              \
    })

/* The three variadic arguments behind LAST, which need not be there: those of clone(). */
struct libc_three {
    void *argument[3];
};

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

/* Nothing but the names: the declarations of a few are missing in libc's headers. */
#define HOOK(ret, name, params, before)                                                        \
    ret name params;                                                                           \
    extern MCPOOL_HIDDEN ret(*real_##name) params;
#define ALIAS(name, hook)
#define HOOK_CHILD(name)                               extern MCPOOL_HIDDEN void *real_##name;
#define HOOK_FOREIGN(ret, name, version, body, params) MCPOOL_HIDDEN ret body params;
#include "hooks/hooks.def"
#undef HOOK
#undef ALIAS
#undef HOOK_CHILD
#undef HOOK_FOREIGN

/* Looks every real function up, once, at start-up. Names this libc lacks keep the bare system
 * call. May allocate: not to be called later. */
void libc_bind(void);

/* Looks up the functions of hooks/children.S; they call it when they run before start-up. */
void libc_bind_children(void);

#endif
