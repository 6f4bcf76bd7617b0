/*
 * Reads the variables of the environment. A table has a row for each, with its default.
 */
#include "config/config.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/fmt.h"

#define PREFIX  "MCPOOL_"
#define RUNTIME "XDG_RUNTIME_DIR="

/* N is the length of NAME. More than CONFIG_MAX_WARNINGS are dropped. */
static void warn(struct config *config, const char *name, size_t n, const char *problem)
{
    char copy[64];

    if (config->warning_count == CONFIG_MAX_WARNINGS)
        return;
    fmt_print(copy, n + 1 < sizeof(copy) ? n + 1 : sizeof(copy), "%s", name);
    fmt_print(config->warnings[config->warning_count++], sizeof(config->warnings[0]), "%s: %s",
              copy, problem);
}

static bool read_servers(struct config *config, const char *value)
{
    bool positive = false, path = false;

    config->rule_count = 0;
    while (*value) {
        size_t n = strcspn(value, ",");
        bool exclude = *value == '!';

        if (value[exclude] == '/') {
            path = true;
        } else {
            if (config->rule_count == CONFIG_MAX_RULES ||
                !rule_parse(&config->rules[config->rule_count], value, n))
                return false;
            config->rule_count++;
        }
        positive |= !exclude;
        value += n;
        if (*value == ',' && *++value == '\0')
            return false;
    }
    if (path)
        warn(config, PREFIX "SERVERS", sizeof(PREFIX "SERVERS") - 1,
             "Unix sockets are not pooled");
    /* A list that only excludes is a list of exceptions to the default. */
    if (positive)
        return true;
    if (config->rule_count == CONFIG_MAX_RULES)
        return false;
    return rule_parse(&config->rules[config->rule_count++], "11211", 5);
}

/* Reads a whole number from LEAST to MOST. END is set behind its last digit. */
static bool read_whole(const char *value, long least, long most, char **end, long *number)
{
    if (*value < '0' || *value > '9')
        return false;
    *number = strtol(value, end, 10);
    return *number >= least && *number <= most;
}

static bool read_count(const char *value, unsigned int *count)
{
    char *end;
    long number;

    if (!read_whole(value, 1, 10000, &end, &number) || *end != '\0')
        return false;
    *count = (unsigned int)number;
    return true;
}

static bool read_max_idle(struct config *config, const char *value)
{
    return read_count(value, &config->max_idle);
}

static bool read_max_idle_total(struct config *config, const char *value)
{
    return read_count(value, &config->max_idle_total);
}

/* A number with a unit (ms, s, m, h; seconds without one), a week at most. */
static bool read_duration(const char *value, msec_t *duration)
{
    static const struct {
        const char *name;
        msec_t milliseconds;
    } units[] = {{"ms", 1}, {"s", 1000}, {"", 1000}, {"m", 60000}, {"h", 3600000}};
    const msec_t week = (msec_t)7 * 24 * 60 * 60 * 1000;
    char *unit;
    long number;

    if (!read_whole(value, 1, (long)week, &unit, &number))
        return false;
    for (size_t i = 0; i < sizeof(units) / sizeof(units[0]); i++) {
        if (strcmp(unit, units[i].name) != 0)
            continue;
        if (number > week / units[i].milliseconds)
            return false;
        *duration = number * units[i].milliseconds;
        return true;
    }
    return false;
}

static bool read_idle_timeout(struct config *config, const char *value)
{
    return read_duration(value, &config->idle_timeout);
}

static bool read_max_lifetime(struct config *config, const char *value)
{
    return read_duration(value, &config->max_lifetime);
}

/* File names without a directory. An empty list is allowed. */
static bool read_deepbind(struct config *config, const char *value)
{
    size_t n = strlen(value);

    if (n >= sizeof(config->deepbind) || strchr(value, '/'))
        return false;
    memcpy(config->deepbind, value, n + 1);
    return true;
}

static bool read_log(struct config *config, const char *value)
{
    size_t used = 0;
    size_t n = strlen(value);

    config->log_path[0] = '\0';
    if (n == 0)
        return true;
    if (value[0] != '/' && strcmp(value, "stderr") != 0) {
        if (!getcwd(config->log_path, sizeof(config->log_path) - 1))
            return false;
        used = strlen(config->log_path);
        config->log_path[used++] = '/';
    }
    if (used + n >= sizeof(config->log_path)) {
        config->log_path[0] = '\0';
        return false;
    }
    memcpy(config->log_path + used, value, n + 1);
    return true;
}

static bool read_log_level(struct config *config, const char *value)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(value, names[i]) != 0)
            continue;
        config->log_level = (enum log_level)i;
        return true;
    }
    return false;
}

static bool read_switch(const char *value, bool *on)
{
    static const char *const words[] = {"0", "1", "off", "on", "no", "yes", "false", "true"};

    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(value, words[i]) != 0)
            continue;
        *on = i % 2;
        return true;
    }
    return false;
}

static bool read_stats(struct config *config, const char *value)
{
    bool off = strcmp(value, "off") == 0;
    size_t n = strlen(value);

    if (!off && (value[0] != '/' || n >= sizeof(config->stats)))
        return false;
    memcpy(config->stats, value, n + 1);
    if (off)
        config->stats[0] = '\0';
    return true;
}

static bool read_dry_run(struct config *config, const char *value)
{
    return read_switch(value, &config->dry_run);
}

static bool read_disable(struct config *config, const char *value)
{
    return read_switch(value, &config->disable);
}

/* For `mcpool run`, which leaves it in the environment. */
static bool read_library(struct config *config, const char *value)
{
    (void)config;
    (void)value;
    return true;
}

static const struct variable {
    const char *name;
    bool (*read)(struct config *config, const char *value);
    const char *fallback;
} variables[] = {
    {"SERVERS", read_servers, "11211"},
    {"MAX_IDLE", read_max_idle, "32"},
    {"MAX_IDLE_TOTAL", read_max_idle_total, "256"},
    {"IDLE_TIMEOUT", read_idle_timeout, "55s"},
    {"MAX_LIFETIME", read_max_lifetime, "30m"},
    {"DEEPBIND", read_deepbind, "memcached.so,memcache.so"},
    {"LOG", read_log, ""},
    {"LOG_LEVEL", read_log_level, "info"},
    {"STATS", read_stats, STATS_DIRECTORY},
    {"DRY_RUN", read_dry_run, "off"},
    {"DISABLE", read_disable, "off"},
    {"LIBRARY", read_library, ""},
};

#define VARIABLES (sizeof(variables) / sizeof(variables[0]))

static void read_assignment(struct config *config, const char *assignment)
{
    const char *name = assignment + strlen(PREFIX);
    size_t n = strcspn(name, "=");

    if (name[n] != '=')
        return;
    for (size_t i = 0; i < VARIABLES; i++) {
        if (strlen(variables[i].name) != n || strncmp(name, variables[i].name, n) != 0)
            continue;
        if (!variables[i].read(config, name + n + 1)) {
            variables[i].read(config, variables[i].fallback);
            warn(config, assignment, n + strlen(PREFIX), "bad value, the default is used");
        }
        return;
    }
    warn(config, assignment, n + strlen(PREFIX), "no such variable");
}

/* Another user could lead us elsewhere by a link in a directory of that user. Root has such a
 * variable after `su` or `sudo -E`. */
static bool is_own_directory(const char *path)
{
    struct stat found;

    return lstat(path, &found) == 0 && S_ISDIR(found.st_mode) && found.st_uid == geteuid();
}

/* The substitute for STATS_DIRECTORY, which does not exist everywhere. */
static void read_runtime_directory(struct config *config, const char *value)
{
    size_t n = strlen(value) + sizeof("/" STATS_SUBDIRECTORY);

    if (value[0] == '/' && n <= sizeof(config->stats_instead) && is_own_directory(value))
        fmt_print(config->stats_instead, n, "%s/%s", value, STATS_SUBDIRECTORY);
}

void config_read(struct config *config, char *const *environment)
{
    config->warning_count = 0;
    config->stats_instead[0] = '\0';
    for (size_t i = 0; i < VARIABLES; i++)
        variables[i].read(config, variables[i].fallback);
    for (; *environment; environment++) {
        if (strncmp(*environment, PREFIX, strlen(PREFIX)) == 0)
            read_assignment(config, *environment);
        else if (strncmp(*environment, RUNTIME, strlen(RUNTIME)) == 0)
            read_runtime_directory(config, *environment + strlen(RUNTIME));
    }
    /* Only the default directory has substitutes, not one that the user chose. */
    config->stats_default = strcmp(config->stats, STATS_DIRECTORY) == 0;
    if (!config->stats_default)
        config->stats_instead[0] = '\0';
}
