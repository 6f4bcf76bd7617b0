/*
 * One-shot epoll registrations (EPOLLONESHOT, epoll_ctl(2)) when the file at their fd changes:
 * an intercepted quit puts another file at the program's fd (pool/quit.h).
 *
 * An armed registration is made again for the new file. One that has fired is disarmed until
 * the program arms it, and cannot be made, as a new registration is armed. It is remembered
 * here instead, and the program's next epoll_ctl() on that fd behaves as if it existed.
 *
 * No function here takes a lock or blocks. errno is kept.
 */
#ifndef MCPOOL_ONESHOT_H
#define MCPOOL_ONESHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "base/compiler.h"

/* The state of the registration of FD with the set EPFD, from /proc/self/fdinfo (proc(5)).
 * UNKNOWN when that file cannot be read, when the set is large, or when another file is
 * registered under the same fd too. A few system calls. */
enum oneshot { ONESHOT_ARMED, ONESHOT_FIRED, ONESHOT_UNKNOWN };
COLD enum oneshot oneshot_ask(int epfd, int fd);

/* Remembers a disarmed registration of the file at FD with EPFD. When there are too many, the
 * oldest is forgotten. */
COLD void oneshot_note(int epfd, int fd);

extern atomic_bool oneshot_ever __attribute__((visibility("hidden")));

/* Whether a registration was ever remembered. Relaxed: a hint; an old value misses one. */
static inline bool oneshot_any(void)
{
    return atomic_load_explicit(&oneshot_ever, memory_order_relaxed);
}

/* Whether one is remembered for EPFD and the file that is at FD now. It is forgotten. */
COLD bool oneshot_claim(int epfd, int fd);

/* Forgets those of the set EPFD, which is closed. */
COLD void oneshot_forget(int epfd);

/* epoll_ctl(EPFD, OP, FD, EVENT), made by REAL, with the result it would have if the remembered
 * registrations existed. */
COLD int oneshot_ctl(int epfd, int op, int fd, struct epoll_event *event,
                     int (*real)(int epfd, int op, int fd, struct epoll_event *event));

#endif
