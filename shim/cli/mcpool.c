/*
 * The command mcpool: runs the subcommand that the first argument names.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "cli/command.h"

static const struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
} commands[] = {
    {"run", command_run, "run a program with its memcached connections pooled"},
    {"check", command_check, "say whether a program or process can be pooled"},
    {"stat", command_stat, "show what was reused, opened and not kept, and why"},
    {"top", command_top, "show the same, refreshed in place"},
    {"metrics", command_metrics, "give the counters to Prometheus"},
    {"explain", command_explain, "say what a reason means and what to do about it"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
    puts("usage: mcpool COMMAND [ARGUMENT...]\n"
         "       mcpool version | help\n\n"
         "Pools the memcached connections of unmodified programs.\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-9s%s\n", commands[i].name, commands[i].help);
    puts("\n`mcpool COMMAND --help` says more; see also mcpool(1) and libmcpool(7).");
}

int usage_error(const char *command)
{
    fprintf(stderr, "mcpool: try `mcpool %s%shelp`\n", command ? command : "",
            command ? " --" : "");
    return EXIT_USAGE;
}

int flushed(int code)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return code;
    perror("mcpool");
    return EXIT_FAILURE;
}

bool parse_pid(const char *text, int *pid)
{
    char *end;
    long number = strtol(text, &end, 10);

    *pid = (int)number;
    return *text >= '0' && *text <= '9' && *end == '\0' && number > 0 && number <= INT32_MAX;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";

    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(what, commands[i].name) != 0)
            continue;
        argv[1] = argv[0]; /* getopt_long() prints argv[0] in its messages */
        return commands[i].run(argc - 1, argv + 1);
    }
    if (strcmp(what, "version") == 0 || strcmp(what, "--version") == 0) {
        puts("mcpool " MCPOOL_VERSION);
        return flushed(EXIT_SUCCESS);
    }
    if (strcmp(what, "help") == 0 || strcmp(what, "--help") == 0) {
        print_help();
        return flushed(EXIT_SUCCESS);
    }
    if (*what)
        fprintf(stderr, "mcpool: no such command: %s\n", what);
    return usage_error(NULL);
}
