/*
 * How long the way to a server keeps an idle connection. A firewall or the server itself may
 * end it sooner than MCPOOL_IDLE_TIMEOUT. Ages at which that happened are noted here, per
 * endpoint; they give a limit for how long a connection may have idled when it is reused. The
 * limit rises again slowly, as the way may have changed.
 *
 * Guarded by the pool's lock, with the endpoint.
 */
#ifndef MCPOOL_PATH_LIMIT_H
#define MCPOOL_PATH_LIMIT_H

#include <stdbool.h>

#include "base/clock.h"
#include "base/compiler.h"

/* No limit is lower. */
#define PATH_LIMIT_LEAST ((msec_t)1000)

/* The time in which a limit doubles. */
#define PATH_LIMIT_PERIOD ((msec_t)5 * 60 * 1000)

/* Closes of less than this apart have one cause. */
#define PATH_LIMIT_APART ((msec_t)1000)

/* All zero: nothing is known. */
struct path_limit {
    msec_t limit; /* 0: none was learned */
    msec_t learned_at;
    msec_t closed_age; /* of the connection that the server closed last; 0: none */
    msec_t closed_at;
};

/* A connection was found dead, without a word from the server, after it had idled for AGE.
 * True if the limit is lower now. */
COLD bool path_limit_note_death(struct path_limit *path, msec_t age, msec_t now);

/* The server closed a connection at AT, after it had idled for AGE. One close proves nothing,
 * and many at the same moment may be a restart: two at a similar age and a second apart are
 * needed. True if the limit is lower now. */
COLD bool path_limit_note_close(struct path_limit *path, msec_t age, msec_t at);

/* The limit at NOW; MOST if none is known that is lower. A limit that has risen to MOST is
 * forgotten. */
COLD msec_t path_limit_at(struct path_limit *path, msec_t most, msec_t now);

#endif
