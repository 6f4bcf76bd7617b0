/*
 * The process's limit of fds (RLIMIT_NOFILE), and how many pooled connections it allows.
 *
 * No function here takes a lock or blocks. errno is kept. All values are atomics by themselves:
 * a thread that reads an old one decides as it would have a moment ago.
 */
#ifndef MCPOOL_LIMITS_H
#define MCPOOL_LIMITS_H

#include <stdbool.h>

#include "base/clock.h"
#include "config/config.h"

/* A higher limit of fds makes no difference; see conn/fdtable.h. */
#define LIMITS_FDS_MOST 8192

/* Reads the limit for the first time. CONFIG stays the caller's and must not change. */
void limits_start(const struct config *config);

/* Reads the limit again, by a system call: at most once a second of NOW, unless FORCE. */
void limits_note(msec_t now, bool force);

/* The limit of fds as last read, at most LIMITS_FDS_MOST. */
int limits_fds(void);

/* How many connections the process may keep in the pool: the setting, or a quarter of the limit
 * of fds. */
unsigned int limits_idle_most(void);

/* How many connections are idle or draining. */
unsigned int limits_idle(void);

/* Adds MORE, which may be negative, to that count. With the pool's lock held. */
void limits_count_idle(int more);

/* Whether one more shadow fd is allowed, beside those of pooled connections and OTHERS. */
bool limits_may_keep(unsigned int others);

#endif
