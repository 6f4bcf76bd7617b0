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
    {"doctor", command_doctor, "say in sentences what the counters mean, and what to do"},
    {"metrics", command_metrics, "give the counters to Prometheus"},
    {"explain", command_explain, "say what a reason means and what to do about it"},
    {"off", command_off, "switch running processes off, at once and without a restart"},
    {"on", command_on, "switch them on again"},
    {"dry", command_dry, "let them only count what would be reused"},
    {"flush", command_flush, "let them close what is idle, and keep nothing older"},
};

#define COMMANDS (sizeof(commands) / sizeof(commands[0]))

static void print_help(void)
{
    puts("usage: mcpool COMMAND [ARGUMENT...]\n"
         "       mcpool help [COMMAND] | version\n\n"
         "Pools the memcached connections of unmodified programs.\n");
    for (size_t i = 0; i < COMMANDS; i++)
        printf("  %-9s%s\n", commands[i].name, commands[i].help);
    puts("\n`mcpool help COMMAND` says more; see also mcpool(1) and libmcpool(7).");
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

int bad_argument(const char *command, const char *text, const char *wanted)
{
    fprintf(stderr, "mcpool: %s: not %s\n", text, wanted);
    return usage_error(command);
}

bool parse_pid(const char *text, int *pid)
{
    char *end;
    long number = strtol(text, &end, 10);

    *pid = (int)number;
    return *text >= '0' && *text <= '9' && *end == '\0' && number > 0 && number <= INT32_MAX;
}

/* Runs COMMAND; argv[1] is its name, its arguments follow. */
static int run(const struct command *command, int argc, char **argv)
{
    static char help[] = "--help";

    if (argc > 2 && strcmp(argv[2], "-h") == 0)
        argv[2] = help;
    argv[1] = argv[0]; /* getopt_long() prints argv[0] in its messages */
    return command->run(argc - 1, argv + 1);
}

static const struct command *find_command(const char *name)
{
    for (size_t i = 0; i < COMMANDS; i++) {
        if (strcmp(name, commands[i].name) == 0)
            return &commands[i];
    }
    return NULL;
}

static int no_such_command(const char *name)
{
    fprintf(stderr, "mcpool: no such command: %s\n", name);
    return usage_error(NULL);
}

/* `mcpool help` and `mcpool help COMMAND`. */
static int help(int argc, char **argv)
{
    static char option[] = "--help";
    const struct command *command = argc > 2 ? find_command(argv[2]) : NULL;
    char *arguments[] = {argv[0], option, NULL};

    if (command)
        return command->run(2, arguments);
    if (argc > 2)
        return no_such_command(argv[2]);
    print_help();
    return flushed(EXIT_SUCCESS);
}

static bool is_one_of(const char *word, const char *one, const char *other, const char *third)
{
    return strcmp(word, one) == 0 || strcmp(word, other) == 0 || strcmp(word, third) == 0;
}

int main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    const struct command *command = find_command(what);

    if (command)
        return run(command, argc, argv);
    if (is_one_of(what, "version", "--version", "-V")) {
        puts("mcpool " MCPOOL_VERSION);
        return flushed(EXIT_SUCCESS);
    }
    if (is_one_of(what, "help", "--help", "-h"))
        return help(argc, argv);
    return *what ? no_such_command(what) : usage_error(NULL);
}
