/*
 * How many fds the process may have, and how many of them may be those of idle connections.
 *
 * No lock, no wait; errno is kept.
 */
#ifndef MCPOOL_LIMITS_H
#define MCPOOL_LIMITS_H

#include <stdbool.h>

#include "base/clock.h"
#include "config/config.h"

/* The highest limit of fds that makes a difference, see conn/fdtable.h. */
#define LIMITS_FDS_MOST 8192

/* CONFIG stays the caller's and must not change. Takes note of the limit. */
void limits_start(const struct config *config);

/* Takes note of the process's limit of fds, at most once a second of NOW unless FORCE. */
void limits_note(msec_t now, bool force);

/* The process's limit of fds, LIMITS_FDS_MOST if it is higher. */
int limits_fds(void);

/* How many connections the process may keep idle. */
unsigned int limits_idle_most(void);

/* How many connections are idle or owing; and MORE are from now on, by the thread that has the
 * pool's lock. */
unsigned int limits_idle(void);
void limits_count_idle(int more);

/* Whether there may be one private fd more beside those of idle connections and OTHERS. */
bool limits_may_keep(unsigned int others);

#endif
