/*
 * The settings that a process has, or would have: what it pools, and which variables are wrong.
 */
#include "cli/settings.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "config/config.h"

static struct config config;

const char *settings_problem(const char *name, const char *value)
{
    char *environment[] = {NULL, NULL};

    if (asprintf(&environment[0], "%s=%s", name, value) < 0)
        return NULL;
    config_read(&config, environment);
    free(environment[0]);
    return config.warning_count > 0 ? config.details[0] : NULL;
}

bool settings_warn(bool refuse)
{
    config_read(&config, environ);
    for (size_t i = 0; i < config.warning_count; i++) {
        const char *warning = config.warnings[i];

        if (refuse)
            fprintf(stderr, "mcpool: %.*s: %s; not run (--strict)\n",
                    (int)strcspn(warning, ":"), warning, config.details[i]);
        else
            fprintf(stderr, "mcpool: %s\n", warning);
    }
    return config.warning_count == 0;
}

static void print_rule(const struct rule *rule)
{
    static const uint8_t mapped[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};
    bool is_v4 = rule->prefix >= 96 && memcmp(rule->ip, mapped, sizeof(mapped)) == 0;
    int bits = is_v4 ? rule->prefix - 96 : rule->prefix;
    char ip[INET6_ADDRSTRLEN];

    if (rule->exclude)
        putchar('!');
    if (rule->any) {
        putchar('*');
        return;
    }
    if (rule->prefix > 0) {
        inet_ntop(is_v4 ? AF_INET : AF_INET6, is_v4 ? rule->ip + 12 : rule->ip, ip, sizeof(ip));
        printf("%s%s", is_v4 ? "" : "[", ip);
        if (bits < (is_v4 ? 32 : 128))
            printf("/%d", bits);
        printf("%s:", is_v4 ? "" : "]");
    }
    printf("%u", rule->port);
}

static void print_time(msec_t time)
{
    static const struct {
        msec_t milliseconds;
        const char *name;
    } units[] = {{3600000, "h"}, {60000, "m"}, {1000, "s"}, {1, "ms"}};
    size_t i = 0;

    while (time % units[i].milliseconds != 0)
        i++;
    printf("%lld%s", (long long)(time / units[i].milliseconds), units[i].name);
}

static void print_config(void)
{
    printf("pools: ");
    for (size_t i = 0; i < config.rule_count; i++) {
        printf(i == 0 ? "" : ", ");
        print_rule(&config.rules[i]);
    }
    printf("%s%s\n", config.rule_count == 0 ? "no server" : "",
           config.disable   ? " (nothing now: MCPOOL_DISABLE is on)"
           : config.dry_run ? " (only counted: MCPOOL_DRY_RUN is on)"
                            : "");
    printf("keeps at most: %u connections for each server, %u in all; ", config.max_idle,
           config.max_idle_total);
    print_time(config.idle_timeout);
    printf(" idle, ");
    print_time(config.max_lifetime);
    puts(" old");
    if (config.share != CONFIG_SHARE_ON)
        printf("shares idle connections with processes of one ancestor: %s\n",
               config.share == CONFIG_SHARE_OFF ? "never" : "under a seccomp filter, too");
}

bool settings_tell_own(void)
{
    config_read(&config, environ);
    print_config();
    for (size_t i = 0; i < config.warning_count; i++)
        printf("no: %s\n", config.warnings[i]);
    if (config.warning_count == 0)
        puts("yes: every MCPOOL_ variable is right");
    return config.warning_count == 0;
}

/* The variables of a process that matter here. */
struct variables {
    char **list; /* ends with NULL */
    size_t n;
    bool preload; /* LD_PRELOAD names the library */
};

static void keep(struct variables *variables, const char *assignment)
{
    char **longer = realloc(variables->list, (variables->n + 2) * sizeof(*longer));

    if (!longer)
        return;
    variables->list = longer;
    longer[variables->n] = strdup(assignment);
    if (longer[variables->n])
        variables->n++;
    longer[variables->n] = NULL;
}

/* False when the environment cannot be read, or is empty. */
static bool read_variables(struct variables *variables, int pid)
{
    static const char ours[] = "MCPOOL_", preload[] = "LD_PRELOAD=";
    char name[64], *assignment = NULL;
    bool any = false;
    size_t room = 0;
    FILE *file;

    snprintf(name, sizeof(name), "/proc/%d/environ", pid);
    file = fopen(name, "re");
    while (file && getdelim(&assignment, &room, '\0', file) > 0) {
        any = true;
        if (strncmp(assignment, ours, sizeof(ours) - 1) == 0)
            keep(variables, assignment);
        else if (strncmp(assignment, preload, sizeof(preload) - 1) == 0)
            variables->preload |= is_preloaded(assignment + sizeof(preload) - 1);
    }
    free(assignment);
    if (file)
        fclose(file);
    return any;
}

/* A process may write over its environment, as nginx and php-fpm do for their titles. Without
 * LD_PRELOAD it is not the one with which the library came, unless /etc/ld.so.preload did. */
void settings_tell_process(int pid)
{
    static char *none[] = {NULL};
    struct variables variables = {0};

    if (!read_variables(&variables, pid)) {
        puts("note: its settings are unknown, as its environment cannot be read\n"
             "    Its log (MCPOOL_LOG) names each wrong variable.");
        return;
    }
    config_read(&config, variables.list ? variables.list : none);
    print_config();
    for (size_t i = 0; i < config.warning_count; i++)
        printf("note: %s\n", config.warnings[i]);
    if (!variables.preload)
        puts("note: these settings may be wrong: its environment has no LD_PRELOAD with the "
             "library,\n"
             "    so it was probably overwritten since the start. Its log (MCPOOL_LOG) names "
             "each "
             "wrong\n"
             "    variable.");
    for (size_t i = 0; i < variables.n; i++)
        free(variables.list[i]);
    free(variables.list);
}
