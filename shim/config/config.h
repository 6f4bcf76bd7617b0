/*
 * The variables of the environment, read and copied once at start-up: some programs (nginx,
 * php-fpm) wipe their environment later.
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

/* Where counters are published unless MCPOOL_STATS says otherwise, and the name of that
 * directory below $XDG_RUNTIME_DIR. */
#define STATS_DIRECTORY    "/run/mcpool"
#define STATS_SUBDIRECTORY "mcpool"

/* Longest path of a directory, with its final NUL. */
#define CONFIG_DIRECTORY_SIZE 200

enum log_level { LOG_ERROR, LOG_WARNING, LOG_INFO, LOG_DEBUG };

/* What defaults fill stands together, so that a process without a wish touches two pages. */
struct config {
    unsigned int max_idle;       /* connections per endpoint */
    unsigned int max_idle_total; /* connections per process */
    msec_t idle_timeout;
    msec_t max_lifetime;
    enum log_level log_level;
    bool dry_run;
    bool disable;
    size_t rule_count;
    size_t warning_count;
    char deepbind[256];                /* file names, with commas between */
    char stats[CONFIG_DIRECTORY_SIZE]; /* where counters are published; empty: nowhere */
    char stats_instead[CONFIG_DIRECTORY_SIZE]; /* to be made and used where that fails; empty */
    char log_path[PATH_MAX];                   /* empty: no log; "stderr" */
    struct rule rules[CONFIG_MAX_RULES];
    char warnings[CONFIG_MAX_WARNINGS][128]; /* what was wrong, for the log */
};

/* Fills CONFIG with the defaults and then with what ENVIRONMENT says. A bad value means the
 * default and a warning; so does an unknown MCPOOL_ name. A relative log path is made absolute
 * against the working directory. Needs no lock; allocates nothing. */
void config_read(struct config *config, char *const *environment);

#endif
