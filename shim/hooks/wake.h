/*
 * The second half of start-up. Most programs never speak memcached, so the constructor does
 * only what cannot be done later, and the rest is done when the program opens its first TCP
 * socket, first forks, or calls dlopen() with RTLD_DEEPBIND: reading the settings, memory for
 * records and endpoints, a look at limits and clocks.
 *
 * Until then the process is asleep. It is the owner, and hooks note what matters later, such as
 * epoll sets, rings and children. As there is no connection, there is nothing else to do.
 */
#ifndef MCPOOL_WAKE_H
#define MCPOOL_WAKE_H

#include <stdbool.h>

#include "base/compiler.h"

/* In the constructor: copies the settings from ENVIRONMENT. If a log is wanted, it tells of the
 * start. Nothing is pooled unless UNWINDS, which libc_start() has returned. */
void wake_start(char *const *environment, bool unwinds);

/* Called if mode_is_off() in the process that is the owner. Wakes if it is asleep; whether
 * sockets are tracked. May be called in a signal handler and by several threads at once: one
 * that cannot have the lock gets false. Keeps errno. If the pool cannot work, or is disabled,
 * the process is no owner any more, so every hook is a plain call. */
COLD bool wake(void);

/* What MCPOOL_DEEPBIND names, with commas between. Wakes, and is empty if that cannot be. */
COLD const char *wake_deepbind(void);

/* In the child of a fork. */
void wake_after_fork_in_child(void);

#endif
