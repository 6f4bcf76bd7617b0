/*
 * The environment: every variable, its default, its range, and what the log says of a bad
 * value.
 */
#include "config/config.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <criterion/criterion.h>

static struct config config;

static void read_one(const char *assignment)
{
    char *environment[] = {"HOME=/", (char *)assignment, "PATH=/bin", NULL};

    config_read(&config, environment);
}

static void expect_defaults(void)
{
    cr_expect(config.rule_count == 1 && config.rules[0].port == 11211);
    cr_expect(config.max_idle == 32);
    cr_expect(config.max_idle_total == 256);
    cr_expect(config.idle_timeout == 55 * 1000);
    cr_expect(config.max_lifetime == 5 * 60 * 1000);
    cr_expect(config.keepalive == 15);
    cr_expect(config.log_path[0] == '\0');
    cr_expect(config.log_level == LOG_INFO);
    cr_expect(strcmp(config.deepbind, "memcached.so,memcache.so,sockets.so") == 0);
    cr_expect(!config.dry_run && !config.disable);
    cr_expect(strcmp(config.stats, "/run/mcpool") == 0);
}

Test(config, defaults)
{
    read_one("UNRELATED=1");
    expect_defaults();
    cr_expect(config.warning_count == 0);
}

Test(config, bad_values_mean_the_default_and_one_warning)
{
    static const char *const bad[] = {
        "MCPOOL_SERVERS=11211,",    "MCPOOL_SERVERS=,11211",
        "MCPOOL_SERVERS=nonsense",  "MCPOOL_MAX_IDLE=0",
        "MCPOOL_MAX_IDLE=10001",    "MCPOOL_MAX_IDLE=-1",
        "MCPOOL_MAX_IDLE=",         "MCPOOL_MAX_IDLE=3x",
        "MCPOOL_MAX_IDLE= 3",       "MCPOOL_MAX_IDLE=99999999999999999999",
        "MCPOOL_MAX_IDLE_TOTAL=0",  "MCPOOL_MAX_IDLE_TOTAL=many",
        "MCPOOL_IDLE_TIMEOUT=0",    "MCPOOL_IDLE_TIMEOUT=1d",
        "MCPOOL_IDLE_TIMEOUT=s",    "MCPOOL_IDLE_TIMEOUT=169h",
        "MCPOOL_IDLE_TIMEOUT=1.5s", "MCPOOL_MAX_LIFETIME=9999999999999999999h",
        "MCPOOL_MAX_LIFETIME=soon", "MCPOOL_LOG_LEVEL=loud",
        "MCPOOL_DRY_RUN=maybe",     "MCPOOL_DISABLE=2",
        "MCPOOL_STATS=run/mcpool",  "MCPOOL_STATS=",
        "MCPOOL_KEEPALIVE=0",       "MCPOOL_KEEPALIVE=999ms",
        "MCPOOL_KEEPALIVE=3601s",   "MCPOOL_KEEPALIVE=2h",
        "MCPOOL_KEEPALIVE=",        "MCPOOL_KEEPALIVE=on",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        read_one(bad[i]);
        expect_defaults();
        cr_expect(config.warning_count == 1, "%s", bad[i]);
        cr_expect(strncmp(config.warnings[0], bad[i], strcspn(bad[i], "=")) == 0);
        cr_expect(strstr(config.warnings[0], "bad value") != NULL);
    }
}

Test(config, counts_and_durations)
{
    static const struct {
        const char *text;
        msec_t milliseconds;
    } good[] = {{"1ms", 1},
                {"200ms", 200},
                {"7", 7000},
                {"7s", 7000},
                {"2m", 120 * 1000},
                {"3h", 3 * 60 * 60 * 1000},
                {"168h", (msec_t)168 * 60 * 60 * 1000}};
    char text[64];

    read_one("MCPOOL_MAX_IDLE=1");
    cr_expect(config.max_idle == 1);
    read_one("MCPOOL_MAX_IDLE=10000");
    cr_expect(config.max_idle == 10000);
    read_one("MCPOOL_MAX_IDLE_TOTAL=77");
    cr_expect(config.max_idle_total == 77);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "MCPOOL_IDLE_TIMEOUT=%s", good[i].text);
        read_one(text);
        cr_expect(config.idle_timeout == good[i].milliseconds, "%s", text);
        snprintf(text, sizeof(text), "MCPOOL_MAX_LIFETIME=%s", good[i].text);
        read_one(text);
        cr_expect(config.max_lifetime == good[i].milliseconds, "%s", text);
        cr_expect(config.warning_count == 0);
    }
}

/* The kernel counts whole seconds: what is between two is rounded up. */
Test(config, keepalive)
{
    static const struct {
        const char *text;
        unsigned int seconds;
    } good[] = {{"off", 0}, {"OFF", 0},  {"1s", 1},    {"1000ms", 1},  {"1001ms", 2},
                {"7", 7},   {"2m", 120}, {"1h", 3600}, {"3600s", 3600}};
    char text[64];

    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        snprintf(text, sizeof(text), "MCPOOL_KEEPALIVE=%s", good[i].text);
        read_one(text);
        cr_expect(config.keepalive == good[i].seconds, "%s", text);
        cr_expect(config.warning_count == 0);
    }
}

Test(config, switches)
{
    static const char *const on[] = {"1", "on", "ON", "yes", "true"};
    static const char *const off[] = {"0", "off", "no", "False"};
    char text[64];

    for (size_t i = 0; i < 5; i++) {
        snprintf(text, sizeof(text), "MCPOOL_DRY_RUN=%s", on[i]);
        read_one(text);
        cr_expect(config.dry_run && !config.disable);
        snprintf(text, sizeof(text), "MCPOOL_DISABLE=%s", on[i]);
        read_one(text);
        cr_expect(config.disable && !config.dry_run);
    }
    for (size_t i = 0; i < 4; i++) {
        snprintf(text, sizeof(text), "MCPOOL_DISABLE=%s", off[i]);
        read_one(text);
        cr_expect(!config.disable && config.warning_count == 0);
    }
}

Test(config, servers)
{
    read_one("MCPOOL_SERVERS=11212,10.0.0.0/8:11213,!10.0.0.1:11213");
    cr_expect(config.rule_count == 3 && config.warning_count == 0);
    cr_expect(config.rules[0].port == 11212 && config.rules[2].exclude);
}

Test(config, blanks_around_items)
{
    static const char *const same[] = {"31211, 31212", " 31211 ,31212 ", "31211\t,\t31212",
                                       "31211 ,  31212"};
    char text[64];

    for (size_t i = 0; i < sizeof(same) / sizeof(same[0]); i++) {
        snprintf(text, sizeof(text), "MCPOOL_SERVERS=%s", same[i]);
        read_one(text);
        cr_expect(config.rule_count == 2 && config.warning_count == 0, "'%s'", text);
        cr_expect(config.rules[0].port == 31211 && config.rules[1].port == 31212);
    }
    read_one("MCPOOL_SERVERS=  ");
    expect_defaults();
    cr_expect(config.warning_count == 0, "it is empty");
    read_one("MCPOOL_SERVERS=10.0.0.1, /run/m.sock");
    cr_expect(config.rule_count == 1 && config.warning_count == 1);
    read_one("MCPOOL_DEEPBIND= a.so , b.so ");
    cr_expect(strcmp(config.deepbind, "a.so,b.so") == 0, "'%s'", config.deepbind);
}

Test(config, localhost)
{
    read_one("MCPOOL_SERVERS=localhost,!localhost:5");
    cr_expect(config.rule_count == 4 && config.warning_count == 0);
    cr_expect(config.rules[1].port == 11211 && config.rules[3].exclude);
}

/* The person who reads it knows then what to write instead. */
Test(config, warnings_say_what_would_be_right)
{
    static const struct {
        const char *assignment, *detail;
    } cases[] = {
        {"MCPOOL_MAX_IDLE=0", "'0' is not a whole number from 1 to 10000"},
        {"MCPOOL_IDLE_TIMEOUT=5x", "'5x' is not a time from 1ms to 168h, such as 90s or 5m"},
        {"MCPOOL_LOG_LEVEL=loud", "'loud' is not error, warning, info or debug"},
        {"MCPOOL_DRY_RUN=maybe", "'maybe' is not on, off, yes, no, true, false, 1 or 0"},
        {"MCPOOL_STATS=x", "'x' is not off or an absolute path of at most 199 bytes"},
        {"MCPOOL_DEEPBIND=/a.so", "'/a.so' is not a list of file names without directories"},
        {"MCPOOL_SERVERS=11211, memcached.internal:31211",
         "'memcached.internal:31211' is not PORT, IP, IP:PORT, [V6]:PORT, IP/BITS:PORT, "
         "localhost:PORT or *; other names are not looked up"},
        {"MCPOOL_SERVERS=11211,", "'11211,' has an empty item"},
        {"MCPOOL_SERVERS=\033[2J", "'?[2J' is not PORT, IP, IP:PORT, [V6]:PORT, IP/BITS:PORT, "
                                   "localhost:PORT or *; other names are not looked up"},
        {"MCPOOL_SERVERS="
         "a234567890123456789012345678901234567890123456789012345678901234567890",
         "'a2345678901234567890123456789012345678901234...' is not PORT, IP, IP:PORT, "
         "[V6]:PORT, IP/BITS:PORT, localhost:PORT or *; other names are not looked up"},
    };
    char text[CONFIG_WARNING_SIZE];

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        read_one(cases[i].assignment);
        cr_assert(config.warning_count == 1, "%s", cases[i].assignment);
        cr_expect(strcmp(config.details[0], cases[i].detail) == 0, "%s", config.details[0]);
        snprintf(text, sizeof(text), "%.*s: bad value, the default is used: %s",
                 (int)strcspn(cases[i].assignment, "="), cases[i].assignment, cases[i].detail);
        cr_expect(strcmp(config.warnings[0], text) == 0, "%s", config.warnings[0]);
        expect_defaults();
    }
    read_one("MCPOOL_NONSENSE=1");
    cr_expect(strcmp(config.details[0], "no such variable") == 0);
    read_one("MCPOOL_SERVERS=/run/m.sock");
    cr_expect(strcmp(config.details[0], "Unix sockets are not pooled") == 0);
}

/* Unix sockets are not pooled. Where only they are named, the default does not replace them. */
Test(config, paths_are_ignored_with_one_warning)
{
    read_one("MCPOOL_SERVERS=/run/m.sock,11212,!/run/n.sock,!10.0.0.1:11212");
    cr_expect(config.rule_count == 2 && config.warning_count == 1);
    cr_expect(config.rules[0].port == 11212 && config.rules[1].exclude);
    cr_expect(strcmp(config.warnings[0], "MCPOOL_SERVERS: Unix sockets are not pooled") == 0,
              "%s", config.warnings[0]);
    read_one("MCPOOL_SERVERS=/run/m.sock");
    cr_expect(config.rule_count == 0 && config.warning_count == 1);
    read_one("MCPOOL_SERVERS=!/run/m.sock");
    cr_expect(config.rule_count == 1 && config.warning_count == 1);
    cr_expect(config.rules[0].port == 11211 && !config.rules[0].exclude);
    read_one("MCPOOL_SERVERS=/run/m.sock,x");
    expect_defaults();
    cr_expect(config.warning_count == 1, "the bad value");
}

/* Exclusions without a rule to exclude from would mean nothing. */
Test(config, exclusions_alone_are_exceptions_to_the_default)
{
    read_one("MCPOOL_SERVERS=!10.0.0.1:11211");
    cr_expect(config.rule_count == 2);
    cr_expect(config.rules[1].port == 11211 && !config.rules[1].exclude);
}

Test(config, too_many_servers)
{
    char list[65 * 6 + 32] = "MCPOOL_SERVERS=1";

    for (int i = 1; i < 64; i++)
        strcat(list, ",1");
    read_one(list);
    cr_expect(config.rule_count == 64 && config.warning_count == 0);
    strcat(list, ",1");
    read_one(list);
    cr_expect(config.warning_count == 1);
    cr_expect(strstr(config.details[0], "has more than 64 items") != NULL);
    expect_defaults();
    list[63 * 2 + strlen("MCPOOL_SERVERS=")] = '\0';
    strcat(list, "localhost");
    read_one(list);
    cr_expect(config.warning_count == 1, "localhost counts twice");
    expect_defaults();
}

Test(config, log)
{
    char cwd[4096];
    char wanted[8192];

    read_one("MCPOOL_LOG=/var/log/pool");
    cr_expect(strcmp(config.log_path, "/var/log/pool") == 0);
    read_one("MCPOOL_LOG=stderr");
    cr_expect(strcmp(config.log_path, "stderr") == 0);
    read_one("MCPOOL_LOG=");
    cr_expect(config.log_path[0] == '\0' && config.warning_count == 0);
    read_one("MCPOOL_LOG=Off");
    cr_expect(config.log_path[0] == '\0' && config.warning_count == 0);
    read_one("MCPOOL_LOG=pool.log");
    cr_assert(getcwd(cwd, sizeof(cwd)));
    snprintf(wanted, sizeof(wanted), "%s/pool.log", cwd);
    cr_expect(strcmp(config.log_path, wanted) == 0, "'%s'", config.log_path);
    read_one("MCPOOL_LOG_LEVEL=debug");
    cr_expect(config.log_level == LOG_DEBUG);
    read_one("MCPOOL_LOG_LEVEL=ERROR");
    cr_expect(config.log_level == LOG_ERROR);
}

Test(config, log_path_too_long)
{
    char *assignment = malloc(9000);

    memset(assignment, 'x', 8999);
    assignment[8999] = '\0';
    memcpy(assignment, "MCPOOL_LOG=/", 12);
    read_one(assignment);
    cr_expect(config.log_path[0] == '\0' && config.warning_count == 1);
    free(assignment);
}

Test(config, stats)
{
    char runtime[] = "XDG_RUNTIME_DIR=/tmp/mcpool-config-XXXXXX";
    char *environment[] = {runtime, NULL, NULL};
    char instead[64];

    cr_assert(mkdtemp(strchr(runtime, '/')));
    config_read(&config, environment);
    cr_expect(strcmp(config.stats, "/run/mcpool") == 0);
    snprintf(instead, sizeof(instead), "%s/mcpool", strchr(runtime, '/'));
    cr_expect(strcmp(config.stats_instead, instead) == 0);
    cr_expect(config.stats_default);
    environment[1] = "MCPOOL_STATS=/var/tmp";
    config_read(&config, environment);
    cr_expect(strcmp(config.stats, "/var/tmp") == 0);
    cr_expect(config.stats_instead[0] == '\0', "what was asked for has no substitute");
    cr_expect(!config.stats_default);
    environment[1] = "MCPOOL_STATS=No";
    config_read(&config, environment);
    cr_expect(config.stats[0] == '\0' && config.warning_count == 0);
    environment[1] = "MCPOOL_STATS=off";
    config_read(&config, environment);
    cr_expect(config.stats[0] == '\0' && config.stats_instead[0] == '\0');
    cr_expect(config.warning_count == 0);
    rmdir(strchr(runtime, '/'));
}

/* Its owner could lead us elsewhere by a link in it. */
Test(config, stats_in_a_directory_of_another_user)
{
    char runtime[] = "/tmp/mcpool-config-XXXXXX";
    char assignment[128], name[64];

    cr_assert(mkdtemp(runtime));
    snprintf(name, sizeof(name), "%s/link", runtime);
    cr_assert(symlink(runtime, name) == 0);
    snprintf(assignment, sizeof(assignment), "XDG_RUNTIME_DIR=%s", name);
    read_one(assignment);
    cr_expect(config.stats_instead[0] == '\0', "a link");
    unlink(name);
    snprintf(assignment, sizeof(assignment), "XDG_RUNTIME_DIR=%s", runtime);
    read_one(assignment);
    cr_expect(config.stats_instead[0] != '\0');
    if (geteuid() == 0) {
        cr_assert(chown(runtime, 65534, 65534) == 0);
        read_one(assignment);
        cr_expect(config.stats_instead[0] == '\0');
    }
    rmdir(runtime);
    read_one(assignment);
    cr_expect(config.stats_instead[0] == '\0', "there is none");
}

Test(config, stats_paths_too_long)
{
    char assignment[CONFIG_DIRECTORY_SIZE + 64];

    memset(assignment, 'x', sizeof(assignment));
    assignment[sizeof(assignment) - 1] = '\0';
    memcpy(assignment, "MCPOOL_STATS=/", 14);
    read_one(assignment);
    expect_defaults();
    cr_expect(config.warning_count == 1);
    memcpy(assignment, "XDG_RUNTIME_DIR=/", 17);
    read_one(assignment);
    cr_expect(config.stats_instead[0] == '\0');
    read_one("XDG_RUNTIME_DIR=relative");
    cr_expect(config.stats_instead[0] == '\0');
}

Test(config, unknown_names)
{
    read_one("MCPOOL_MAXIDLE=3");
    expect_defaults();
    cr_expect(config.warning_count == 1);
    cr_expect(strcmp(config.warnings[0], "MCPOOL_MAXIDLE: no such variable") == 0);
    read_one("MCPOOL_LIBRARY=/x");
    cr_expect(config.warning_count == 0, "it is for mcpool run");
}

Test(config, many_warnings_are_bounded)
{
    char *environment[CONFIG_MAX_WARNINGS + 3];

    for (int i = 0; i < CONFIG_MAX_WARNINGS + 2; i++)
        environment[i] =
            "MCPOOL_A_VERY_LONG_NAME_THAT_NO_PROGRAM_EVER_GAVE_TO_ANY_VARIABLE_OF_OURS=1";
    environment[CONFIG_MAX_WARNINGS + 2] = NULL;
    config_read(&config, environment);
    cr_expect(config.warning_count == CONFIG_MAX_WARNINGS);
}

Test(config, what_is_no_assignment_of_ours)
{
    static const char *const others[] = {
        "MCPOOL_MAX_IDLE", "mcpool_max_idle=3", "MCPOOL=3", "XMCPOOL_MAX_IDLE=3", "", "=",
        "MCPOOL"};

    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        read_one(others[i]);
        expect_defaults();
        cr_expect(config.warning_count == 0, "'%s'", others[i]);
    }
    read_one("MCPOOL_=3");
    expect_defaults();
    cr_expect(strcmp(config.warnings[0], "MCPOOL_: no such variable") == 0);
    read_one("MCPOOL_MAX_IDLE_=3");
    expect_defaults();
    cr_expect(config.warning_count == 1);
}

Test(config, all_at_once)
{
    char *environment[] = {"MCPOOL_SERVERS=11212",
                           "MCPOOL_MAX_IDLE=3",
                           "MCPOOL_MAX_IDLE_TOTAL=4",
                           "MCPOOL_IDLE_TIMEOUT=5s",
                           "MCPOOL_MAX_LIFETIME=6s",
                           "MCPOOL_LOG=stderr",
                           "MCPOOL_DEEPBIND=a.so,b.so",
                           "MCPOOL_LOG_LEVEL=warning",
                           "MCPOOL_DRY_RUN=1",
                           "MCPOOL_DISABLE=1",
                           NULL};

    config_read(&config, environment);
    cr_expect(config.warning_count == 0);
    cr_expect(config.rule_count == 1 && config.rules[0].port == 11212);
    cr_expect(config.max_idle == 3 && config.max_idle_total == 4);
    cr_expect(config.idle_timeout == 5000 && config.max_lifetime == 6000);
    cr_expect(strcmp(config.log_path, "stderr") == 0 && config.log_level == LOG_WARNING);
    cr_expect(config.dry_run && config.disable);
    cr_expect(strcmp(config.deepbind, "a.so,b.so") == 0);
    read_one("UNRELATED=1");
    expect_defaults();
}

/* One bad value changes its own variable only. */
Test(config, bad_among_good)
{
    char *environment[] = {"MCPOOL_MAX_IDLE=3", "MCPOOL_MAX_IDLE_TOTAL=0",
                           "MCPOOL_IDLE_TIMEOUT=5s", NULL};

    config_read(&config, environment);
    cr_expect(config.max_idle == 3 && config.max_idle_total == 256);
    cr_expect(config.idle_timeout == 5000 && config.warning_count == 1);
}

Test(config, empty_servers_are_the_default)
{
    read_one("MCPOOL_SERVERS=");
    expect_defaults();
    cr_expect(config.warning_count == 0);
}

Test(config, numbers_beyond_any_type)
{
    static const char *const bad[] = {
        "MCPOOL_MAX_IDLE=4294967297",
        "MCPOOL_MAX_IDLE=18446744073709551617",
        "MCPOOL_MAX_IDLE_TOTAL=10001",
        "MCPOOL_IDLE_TIMEOUT=604800001ms",
        "MCPOOL_IDLE_TIMEOUT=604801",
        "MCPOOL_IDLE_TIMEOUT=10081m",
        "MCPOOL_MAX_LIFETIME=9223372036854775807h",
        "MCPOOL_MAX_LIFETIME=2562047788016h",
    };

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        read_one(bad[i]);
        expect_defaults();
        cr_expect(config.warning_count == 1, "%s", bad[i]);
    }
    read_one("MCPOOL_IDLE_TIMEOUT=604800000ms");
    cr_expect(config.idle_timeout == 604800000 && config.warning_count == 0);
    read_one("MCPOOL_IDLE_TIMEOUT=10080m");
    cr_expect(config.idle_timeout == 604800000 && config.warning_count == 0);
}

static char *log_assignment(char first, size_t n)
{
    static char assignment[2 * PATH_MAX];

    strcpy(assignment, "MCPOOL_LOG=");
    memset(assignment + 11, 'x', n);
    assignment[11] = first;
    assignment[11 + n] = '\0';
    return assignment;
}

Test(config, longest_log_path)
{
    read_one(log_assignment('/', PATH_MAX - 1));
    cr_expect(strlen(config.log_path) == PATH_MAX - 1 && config.warning_count == 0);
    read_one(log_assignment('/', PATH_MAX));
    cr_expect(config.log_path[0] == '\0' && config.warning_count == 1);
    cr_assert(chdir("/tmp") == 0);
    read_one(log_assignment('x', PATH_MAX - 6));
    cr_expect(strlen(config.log_path) == PATH_MAX - 1 && config.warning_count == 0);
    read_one(log_assignment('x', PATH_MAX - 5));
    cr_expect(config.log_path[0] == '\0' && config.warning_count == 1);
}

/* No absolute path can be made in that state. */
Test(config, working_directory_is_gone)
{
    char directory[] = "/tmp/mcpool-config-XXXXXX";

    cr_assert(mkdtemp(directory) && chdir(directory) == 0 && rmdir(directory) == 0);
    read_one("MCPOOL_LOG=pool.log");
    cr_expect(config.log_path[0] == '\0' && config.warning_count == 1);
    read_one("MCPOOL_LOG=/var/log/pool");
    cr_expect(strcmp(config.log_path, "/var/log/pool") == 0 && config.warning_count == 0);
}

Test(config, warnings_are_cut_to_their_room)
{
    char assignment[1000];

    memset(assignment, 'A', sizeof(assignment) - 1);
    memcpy(assignment, "MCPOOL_", 7);
    memcpy(assignment + 900, "=", 2);
    read_one(assignment);
    cr_expect(config.warning_count == 1);
    cr_expect(strncmp(config.warnings[0], "MCPOOL_AAAA", 11) == 0);
    cr_expect(strstr(config.warnings[0], "AAAA: no such variable") != NULL);
    cr_expect(strlen(config.warnings[0]) < sizeof(config.warnings[0]));
}

/* There is no room for the default rules, which these exclusions need: a bad value, and the log
 * says so. */
Test(config, too_many_exclusions)
{
    char list[64 * 3 + 32] = "MCPOOL_SERVERS=!1";

    for (int i = 1; i < 64; i++)
        strcat(list, ",!1");
    read_one(list);
    cr_expect(config.warning_count == 1);
    expect_defaults();
}

Test(config, deepbind)
{
    char assignment[512] = "MCPOOL_DEEPBIND=";

    read_one("MCPOOL_DEEPBIND=");
    cr_expect(config.deepbind[0] == '\0' && config.warning_count == 0);
    read_one("MCPOOL_DEEPBIND=/usr/lib/memcached.so");
    expect_defaults();
    cr_expect(config.warning_count == 1);
    memset(assignment + strlen(assignment), 'x', 256);
    read_one(assignment);
    expect_defaults();
    cr_expect(config.warning_count == 1);
}
