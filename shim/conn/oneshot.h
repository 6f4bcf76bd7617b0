/*
 * One-shot registrations in epoll sets (EPOLLONESHOT, epoll_ctl(2)) whose fd gets another file
 * when a goodbye is kept from the server. An armed one is made again there. One that has fired
 * and waits to be armed cannot be made, as a new one is armed: it is remembered instead, and
 * the program's next epoll_ctl() on that fd answers as if it were there.
 *
 * No lock, no wait; errno is kept.
 */
#ifndef MCPOOL_ONESHOT_H
#define MCPOOL_ONESHOT_H

#include <stdatomic.h>
#include <stdbool.h>
#include <sys/epoll.h>

#include "base/compiler.h"

/* What /proc/self/fdinfo says of the registration of FD in the set EPFD (proc(5)). UNKNOWN
 * where there is no such file, the set is large, or another file has a registration by that
 * number. A few system calls. */
enum oneshot { ONESHOT_ARMED, ONESHOT_FIRED, ONESHOT_UNKNOWN };
COLD enum oneshot oneshot_ask(int epfd, int fd);

/* The file at FD has to go on as if it had a disarmed registration in EPFD. The oldest of many
 * is forgotten. */
COLD void oneshot_note(int epfd, int fd);

extern atomic_bool disarmed_ever __attribute__((visibility("hidden")));

/* Whether any was ever noted. */
static inline bool oneshot_any(void)
{
    return atomic_load_explicit(&disarmed_ever, memory_order_relaxed);
}

/* Whether one was noted for EPFD and the file that is at FD now; it is forgotten. */
COLD bool oneshot_claim(int epfd, int fd);

/* The set EPFD is closed. */
COLD void oneshot_forget(int epfd);

/* epoll_ctl(EPFD, OP, FD, EVENT) by the REAL call, as if those that were noted were there. */
COLD int oneshot_ctl(int epfd, int op, int fd, struct epoll_event *event,
                     int (*real)(int epfd, int op, int fd, struct epoll_event *event));

#endif
