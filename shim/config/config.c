/*
 * Reads the variables of the environment, which variables.def lists.
 */
#include "config/config.h"

#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/fmt.h"
#include "base/rawsys.h"

#define PREFIX  "MCPOOL_"
#define RUNTIME "XDG_RUNTIME_DIR="
#define BLANKS  " \t"

/* A part of a value. */
struct part {
    const char *text;
    size_t n;
};

static struct part whole(const char *value)
{
    return (struct part){value, strlen(value)};
}

/* Copies PART to TEXT of ROOM bytes, printable, and cut to "...". */
static void copy_part(char *text, size_t room, struct part part)
{
    bool cut = part.n >= room;
    size_t n = cut ? room - sizeof("...") : part.n;

    for (size_t i = 0; i < n; i++) {
        text[i] = part.text[i];
        if (text[i] < ' ' || text[i] > '~')
            text[i] = '?';
    }
    fmt_print(text + n, sizeof("..."), "%s", cut ? "..." : "");
}

/* Adds the warning "NAME: ", CONSEQUENCE, DETAIL. More than CONFIG_MAX_WARNINGS are dropped. */
static void warn(struct config *config, struct part name, const char *consequence,
                 const char *detail)
{
    size_t i = config->warning_count;
    char copy[64];
    size_t n;

    if (i == CONFIG_MAX_WARNINGS)
        return;
    name.n = name.n < sizeof(copy) ? name.n : sizeof(copy) - 1;
    copy_part(copy, sizeof(copy), name);
    n = fmt_print(config->warnings[i], CONFIG_WARNING_SIZE, "%s: %s", copy, consequence);
    fmt_print(config->warnings[i] + n, CONFIG_WARNING_SIZE - n, "%s", detail);
    config->details[i] = config->warnings[i] + n;
    config->warning_count++;
}

/* Says that CULPRIT, in the value of NAME, is PROBLEM ("is not ..."). */
static void warn_of_value(struct config *config, struct part name, struct part culprit,
                          const char *problem)
{
    char copy[48], detail[CONFIG_WARNING_SIZE];

    copy_part(copy, sizeof(copy), culprit);
    fmt_print(detail, sizeof(detail), "'%s' %s", copy, problem);
    warn(config, name, "bad value, the default is used: ", detail);
}

/* Takes the next item off the list at *LIST, without the blanks around it. False behind the
 * last one. An item may be empty, and so is the one behind a final comma. */
static bool next_item(const char **list, struct part *item)
{
    const char *at = *list;

    if (!at)
        return false;
    at += strspn(at, BLANKS);
    item->text = at;
    item->n = strcspn(at, ",");
    *list = at[item->n] == ',' ? at + item->n + 1 : NULL;
    while (item->n > 0 && strchr(BLANKS, at[item->n - 1]))
        item->n--;
    return true;
}

static bool is_blank(const char *value)
{
    return value[strspn(value, BLANKS)] == '\0';
}

static const char wrong_form[] = "is not PORT, IP, IP:PORT, [V6]:PORT, IP/BITS:PORT, "
                                 "localhost:PORT or *; other names are not looked up";
static const char empty_item[] = "has an empty item";
static const char too_many_items[] = "has more than 64 items";

/* Adds the rules of ITEM. Returns NULL, or what is wrong with it. */
static const char *add_rules(struct config *config, struct part item)
{
    struct rule rules[RULES_PER_ITEM];
    size_t n = rules_parse(rules, item.text, item.n);

    if (n == 0)
        return wrong_form;
    if (n > CONFIG_MAX_RULES - config->rule_count)
        return too_many_items;
    memcpy(config->rules + config->rule_count, rules, n * sizeof(rules[0]));
    config->rule_count += n;
    return NULL;
}

/* Returns NULL, or what is wrong: with ITEM if that is wrong_form, else with the list. */
static const char *read_rules(struct config *config, const char *list, struct part *item,
                              bool *has_path)
{
    static const struct part standard = {"11211", 5};
    const char *rest = is_blank(list) ? NULL : list;
    const char *problem;
    bool positive = false;

    config->rule_count = 0;
    while (next_item(&rest, item)) {
        bool exclude = item->n > 0 && item->text[0] == '!';

        if (item->n == 0)
            return empty_item;
        if (item->n > exclude && item->text[exclude] == '/')
            *has_path = true;
        else if ((problem = add_rules(config, *item)))
            return problem;
        positive |= !exclude;
    }
    /* A list that only excludes is a list of exceptions to the default. */
    return positive ? NULL : add_rules(config, standard);
}

static bool read_servers(struct config *config, const char *value)
{
    static const struct part name = {PREFIX "SERVERS", sizeof(PREFIX "SERVERS") - 1};
    bool has_path = false;
    struct part item;
    const char *problem = read_rules(config, value, &item, &has_path);

    if (problem) {
        warn_of_value(config, name, problem == wrong_form ? item : whole(value), problem);
        read_rules(config, "", &item, &has_path);
    } else if (has_path) {
        warn(config, name, "", "Unix sockets are not pooled");
    }
    return true;
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

/* From 1s to 1h, or off. The kernel counts in seconds. */
static bool read_keepalive(struct config *config, const char *value)
{
    const msec_t second = 1000;
    msec_t idle = 0;

    if (strcasecmp(value, "off") != 0 &&
        (!read_duration(value, &idle) || idle < second || idle > 3600 * second))
        return false;
    config->keepalive = (unsigned int)((idle + second - 1) / second);
    return true;
}

/* File names without a directory. An empty list is allowed. */
static bool read_deepbind(struct config *config, const char *value)
{
    size_t used = 0;
    struct part item;

    if (strlen(value) >= sizeof(config->deepbind) || strchr(value, '/'))
        return false;
    while (next_item(&value, &item)) {
        memcpy(config->deepbind + used, item.text, item.n);
        used += item.n;
        if (value)
            config->deepbind[used++] = ',';
    }
    config->deepbind[used] = '\0';
    return true;
}

static bool read_log(struct config *config, const char *value)
{
    size_t used = 0;
    size_t n = strlen(value);

    config->log_path[0] = '\0';
    if (n == 0 || strcasecmp(value, "off") == 0)
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
    bool on = true;
    bool off = read_switch(value, &on) && !on;
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

static bool read_share(struct config *config, const char *value)
{
    bool on = false;

    if (strcasecmp(value, "always") == 0)
        config->share = CONFIG_SHARE_ALWAYS;
    else if (read_switch(value, &on))
        config->share = on ? CONFIG_SHARE_ON : CONFIG_SHARE_OFF;
    else
        return false;
    return true;
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

#define NOT_A_COUNT  "is not a whole number from 1 to 10000"
#define NOT_A_TIME   "is not a time from 1ms to 168h, such as 90s or 5m"
#define NOT_A_SWITCH "is not on, off, yes, no, true, false, 1 or 0"

/* Texts in the table, as the loader would have to relocate pointers in every process. */
static const struct variable {
    char name[16];
    char fallback[40];
} variables[] = {
#define VARIABLE(name, read, fallback, problem) {#name, fallback},
#include "config/variables.def"
#undef VARIABLE
};

enum index {
#define VARIABLE(name, read, fallback, problem) INDEX_##name,
#include "config/variables.def"
#undef VARIABLE
    COUNT
};

static bool read_value(enum index i, struct config *config, const char *value)
{
    switch (i) {
#define VARIABLE(name, read, fallback, problem)                                                \
    case INDEX_##name:                                                                         \
        return read(config, value);
#include "config/variables.def"
#undef VARIABLE
    default:
        return false;
    }
}

static const char *problem_of(enum index i)
{
    switch (i) {
#define VARIABLE(name, read, fallback, problem)                                                \
    case INDEX_##name:                                                                         \
        return problem;
#include "config/variables.def"
#undef VARIABLE
    default:
        return NULL;
    }
}

static void read_assignment(struct config *config, const char *assignment)
{
    const char *name = assignment + strlen(PREFIX);
    size_t n = strcspn(name, "=");

    if (name[n] != '=')
        return;
    for (enum index i = 0; i < COUNT; i++) {
        if (strlen(variables[i].name) != n || strncmp(name, variables[i].name, n) != 0)
            continue;
        if (!read_value(i, config, name + n + 1)) {
            read_value(i, config, variables[i].fallback);
            warn_of_value(config, (struct part){assignment, n + strlen(PREFIX)},
                          whole(name + n + 1), problem_of(i));
        }
        return;
    }
    warn(config, (struct part){assignment, n + strlen(PREFIX)}, "", "no such variable");
}

/* lstat() is a new name of glibc 2.33. Another user could lead us elsewhere by a link in a
 * directory of that user. Root has such a variable after `su` or `sudo -E`. */
static bool is_own_directory(const char *path)
{
    struct stat found = {0};

    return raw_syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
           S_ISDIR(found.st_mode) && found.st_uid == getauxval(AT_EUID);
}

/* The substitute for STATS_DIRECTORY, which does not exist everywhere. */
static void read_runtime_directory(struct config *config, const char *value)
{
    size_t n = strlen(value) + sizeof("/" STATS_SUBDIRECTORY);

    if (value[0] == '/' && n <= sizeof(config->stats_instead) && is_own_directory(value))
        fmt_print(config->stats_instead, n, "%s/%s", value, STATS_SUBDIRECTORY);
}

/* The copies: the strings, and pointers to them. */
static LARGE struct {
    char *names[32]; /* the last one is always NULL */
    char bytes[4096];
} kept;

static bool is_ours(const char *assignment)
{
    return strncmp(assignment, PREFIX, strlen(PREFIX)) == 0 ||
           strncmp(assignment, RUNTIME, strlen(RUNTIME)) == 0;
}

bool config_keep(char *const *environment)
{
    const size_t most = sizeof(kept.names) / sizeof(kept.names[0]) - 1;
    size_t count = 0, used = 0;

    for (; *environment; environment++) {
        size_t n;

        if (!is_ours(*environment))
            continue;
        n = strlen(*environment) + 1;
        if (count == most || n > sizeof(kept.bytes) - used ||
            strncmp(*environment, PREFIX "LOG=", strlen(PREFIX "LOG=")) == 0)
            return false;
        kept.names[count] = memcpy(kept.bytes + used, *environment, n);
        used += n;
        count++;
    }
    return true;
}

char *const *config_kept(void)
{
    return kept.names;
}

void config_read(struct config *config, char *const *environment)
{
    config->warning_count = 0;
    config->stats_instead[0] = '\0';
    for (enum index i = 0; i < COUNT; i++)
        read_value(i, config, variables[i].fallback);
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
