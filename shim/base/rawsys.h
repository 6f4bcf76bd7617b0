/*
 * System calls made without libc: for the time before libc's functions are looked up, and for
 * calls that must not be cancellation points. The result is the kernel's, -errno on failure.
 * errno is not touched.
 */
#ifndef MCPOOL_RAWSYS_H
#define MCPOOL_RAWSYS_H

#include <sys/syscall.h>

#if defined(__x86_64__)
static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;

    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}
#elif defined(__aarch64__)
static inline long raw_syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = nr;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;

    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}
#else
#error "libmcpool knows x86-64 and aarch64"
#endif

#define RAW_PADDED_(nr, a, b, c, d, e, f, ...)                                                 \
    raw_syscall6((nr), (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* raw_syscall(SYS_name, arguments...): up to six. */
#define raw_syscall(...) RAW_PADDED_(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

/* Closes FD, which must be ours. A macro, not a function, so that tests can replace the
 * raw_syscall6() in it. */
#define raw_close(fd) ((void)raw_syscall(SYS_close, (fd)))

#endif
