/*
 * The settings: the MCPOOL_ variables of the environment, and their defaults. The variables are
 * copied at start-up, as some programs (nginx, php-fpm) overwrite their environment later. Most
 * programs never speak memcached, so they are read when the first connection is near.
 */
#ifndef MCPOOL_CONFIG_H
#define MCPOOL_CONFIG_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/clock.h"
#include "config/rules.h"

#define CONFIG_MAX_RULES    64
#define CONFIG_MAX_WARNINGS 8
#define CONFIG_WARNING_SIZE 256

/* The default of MCPOOL_STATS, the directory for files of counters. Where it cannot be written,
 * the directory below $XDG_RUNTIME_DIR of the second name is used, and then the third, which
 * ends in the effective user ID. Both are the user's own: other users have no access. */
#define STATS_DIRECTORY    "/run/mcpool"
#define STATS_SUBDIRECTORY "mcpool"
#define STATS_FALLBACK     "/tmp/mcpool-"

/* Room for the path of such a directory, with its final NUL. */
#define CONFIG_DIRECTORY_SIZE 200

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* MCPOOL_SHARE: whether idle connections go to other processes (pool/family.h). On: not under a
 * seccomp filter. */
enum config_share { CONFIG_SHARE_OFF, CONFIG_SHARE_ON, CONFIG_SHARE_ALWAYS };

/* The fields that the defaults fill come first: a process that sets no variable touches only
 * two pages of memory. */
struct config {
    unsigned int max_idle;       /* connections per endpoint */
    unsigned int max_idle_total; /* connections per process */
    msec_t idle_timeout;
    msec_t max_lifetime;
    unsigned int keepalive; /* seconds; 0: off */
    enum log_level log_level;
    enum config_share share;
    bool dry_run;
    bool disable;
    bool stats_default; /* `stats` is the default, so there are others to fall back to */
    size_t rule_count;
    size_t warning_count;
    char deepbind[256];                /* file names, with commas between */
    char stats[CONFIG_DIRECTORY_SIZE]; /* the directory for the file of counters; empty: none */
    char stats_instead[CONFIG_DIRECTORY_SIZE]; /* made and used if that fails; empty: none */
    char log_path[PATH_MAX];                   /* absolute, or "stderr"; empty: no log */
    struct rule rules[CONFIG_MAX_RULES];
    char warnings[CONFIG_MAX_WARNINGS][CONFIG_WARNING_SIZE]; /* for the log, on bad variables */
    const char *details[CONFIG_MAX_WARNINGS]; /* its part that says what is wrong */
};

/* Fills CONFIG with the defaults, then with the variables in ENVIRONMENT. A bad value leads to
 * the default and a warning, an unknown MCPOOL_ name to a warning. What a warning cites is
 * printable. A relative log path is made absolute: it is below the present working directory.
 * Needs no lock; allocates nothing. */
void config_read(struct config *config, char *const *environment);

/* Copies what config_read() needs of ENVIRONMENT, for config_kept(). False if it has to be read
 * at once: it does not fit, or it names a log, to which the start is written. Called once. */
bool config_keep(char *const *environment);
char *const *config_kept(void);

#endif
