/*
 * mcpool run: puts the library in front of LD_PRELOAD and executes the program.
 *
 * The program runs in the same process, so it has the same fds and signals, and the caller gets
 * its exit code. Wrong options are refused. If the library cannot be preloaded, or a variable
 * is wrong, a line on stderr says so, and the program runs.
 */
#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/command.h"
#include "cli/settings.h"

/* The options of `run` that set a variable of the library. */
static const struct setting {
    const char *option;
    const char *variable;
    const char *argument; /* its name in the help; NULL: no argument, sets "on" */
    const char *help;
} settings[] = {
    {"servers", "MCPOOL_SERVERS", "LIST", "what to pool (11211)"},
    {"max-idle", "MCPOOL_MAX_IDLE", "N", "idle connections kept per server (32)"},
    {"max-idle-total", "MCPOOL_MAX_IDLE_TOTAL", "N", "idle connections kept in all (256)"},
    {"idle-timeout", "MCPOOL_IDLE_TIMEOUT", "TIME", "not reused after longer idle (55s)"},
    {"max-lifetime", "MCPOOL_MAX_LIFETIME", "TIME", "not reused when older (5m)"},
    {"keepalive", "MCPOOL_KEEPALIVE", "TIME", "idle time to the first probe, or off (15s)"},
    {"deepbind", "MCPOOL_DEEPBIND", "NAMES", "objects to reach (default: PHP's)"},
    {"log", "MCPOOL_LOG", "FILE", "log to FILE, or to stderr (off)"},
    {"log-level", "MCPOOL_LOG_LEVEL", "LEVEL", "error, warning, info or debug (info)"},
    {"share", "MCPOOL_SHARE", "HOW", "idle connections in a family: on, off or always (on)"},
    {"dry-run", "MCPOOL_DRY_RUN", NULL, "only count what would be reused (off)"},
};

#define SETTINGS (sizeof(settings) / sizeof(settings[0]))

static void print_help(void)
{
    puts("usage: mcpool run [OPTION...] [--] COMMAND [ARGUMENT...]\n\n"
         "Runs COMMAND with its memcached connections pooled by " LIBRARY ".\n");
    for (size_t i = 0; i < SETTINGS; i++)
        printf("  --%-14s %-5s  %s\n", settings[i].option,
               settings[i].argument ? settings[i].argument : "", settings[i].help);
    puts("  --strict                do not run COMMAND without the library or with wrong "
         "variables\n"
         "  -v                      say on stderr what will run, and why it cannot be "
         "pooled\n\n"
         "See mcpool-run(1) and libmcpool(7).");
}

static void set(const char *variable, const char *value)
{
    if (setenv(variable, value, 1) == 0)
        return;
    perror("mcpool");
    exit(EXIT_CANNOT_RUN);
}

/* Fills PATH with the library in DIRECTORY, below FOLDER and LAST. False when it is not there.
 */
static bool is_library_in(char *path, size_t room, const char *directory, const char *folder,
                          const char *last)
{
    int n = snprintf(path, room, "%s%s%s/" LIBRARY, directory, folder, last);

    return n > 0 && (size_t)n < room && access(path, R_OK) == 0;
}

/* Fills PATH with the library that belongs to this command: in the directory of the command,
 * where the build tree has it, or below the same PREFIX, which `make` need not have known when
 * it built the command for `make install`. False when there is none. */
static bool find_beside_us(char *path, size_t room)
{
    const char *triplet = strrchr(MCPOOL_LIBDIR, '/'); /* /x86_64-linux-gnu */
    char us[PATH_MAX];
    ssize_t n = readlink("/proc/self/exe", us, sizeof(us) - 1);
    char *name;

    if (n < 0)
        return false;
    us[n] = '\0';
    *strrchr(us, '/') = '\0';
    if (is_library_in(path, room, us, "", ""))
        return true;
    name = strrchr(us, '/');
    if (!name)
        return false;
    *name = '\0';
    return is_library_in(path, room, us, "/lib", triplet ? triplet : "") ||
           is_library_in(path, room, us, "/lib64", "") ||
           is_library_in(path, room, us, "/lib", "");
}

/* Without this the loader would look a relative path up in the working directory of each child.
 * Returns PATH or ROOM. */
static const char *make_absolute(const char *path, char *room)
{
    return path[0] != '/' && strchr(path, '/') && realpath(path, room) ? room : path;
}

static const char *find_library(void)
{
    static char path[PATH_MAX];
    const char *given = getenv("MCPOOL_LIBRARY");

    if (given && *given)
        return make_absolute(given, path);
    if (find_beside_us(path, sizeof(path)))
        return path;
    return MCPOOL_LIBDIR "/" LIBRARY;
}

/* Checked here, as the loader would print its message for the program and each of its children.
 * A name without a directory is not checked: the loader searches it. */
static bool can_be_loaded(const char *library, bool strict)
{
    const char *why = NULL;

    if (strpbrk(library, ": "))
        why = "LD_PRELOAD cannot hold a path with a blank or colon";
    else if (strchr(library, '/') && access(library, R_OK) != 0)
        why = strerror(errno);
    if (why)
        fprintf(stderr, "mcpool: %s: %s; %s\n", library, why,
                strict ? "not run (--strict)" : "running without it");
    return !why;
}

/* Finds the library in PRELOAD, a value of LD_PRELOAD. Sets N to the length of its path. NULL
 * if it is not there. */
static const char *find_preloaded(const char *preload, size_t *n)
{
    while (*preload) {
        const char *end = preload + strcspn(preload, ": ");
        const char *name = end;

        while (name > preload && name[-1] != '/')
            name--;
        *n = (size_t)(end - preload);
        if ((size_t)(end - name) == strlen(LIBRARY) &&
            strncmp(name, LIBRARY, strlen(LIBRARY)) == 0)
            return preload;
        preload = end + strspn(end, ": ");
    }
    return NULL;
}

bool is_preloaded(const char *preload)
{
    size_t n;

    return find_preloaded(preload, &n) != NULL;
}

/* Whether the library can be loaded that LD_PRELOAD names: its path is FOUND, of length N. */
static bool check_preloaded(const char *found, size_t n, bool strict)
{
    char *path = strndup(found, n);
    bool loads = !path || can_be_loaded(path, strict);

    free(path);
    return loads;
}

/* False when it cannot be preloaded. */
static bool preload_library(bool strict)
{
    const char *others = getenv("LD_PRELOAD");
    const char *found, *library;
    char *joined;
    size_t n;

    if (others && (found = find_preloaded(others, &n)))
        return check_preloaded(found, n, strict);
    library = find_library();
    if (!can_be_loaded(library, strict))
        return false;
    if (!others || !*others) {
        set("LD_PRELOAD", library);
        return true;
    }
    if (asprintf(&joined, "%s:%s", library, others) < 0) {
        perror("mcpool");
        exit(EXIT_CANNOT_RUN);
    }
    set("LD_PRELOAD", joined);
    free(joined);
    return true;
}

static void tell(char *const *command)
{
    const char *preload = getenv("LD_PRELOAD");

    fprintf(stderr, "mcpool: LD_PRELOAD=%s", preload ? preload : "");
    for (size_t i = 0; i < SETTINGS; i++) {
        const char *value = getenv(settings[i].variable);

        if (value)
            fprintf(stderr, " %s=%s", settings[i].variable, value);
    }
    for (; *command; command++)
        fprintf(stderr, " %s", *command);
    fputc('\n', stderr);
}

/* Sets the variable of SETTING. False when VALUE is wrong, which a line on stderr says. */
static bool set_option(const struct setting *setting, const char *value)
{
    const char *problem = settings_problem(setting->variable, value);

    if (problem)
        fprintf(stderr, "mcpool: run: --%s: %s\n", setting->option, problem);
    else
        set(setting->variable, value);
    return !problem;
}

/* The first argument that is no option is the command: getopt_long() stops there ("+"). */
int command_run(int argc, char **argv)
{
    struct option options[SETTINGS + 3] = {0};
    bool verbose = false, strict = false;
    int option, which, error;

    for (size_t i = 0; i < SETTINGS; i++) {
        options[i].name = settings[i].option;
        options[i].has_arg = settings[i].argument ? required_argument : no_argument;
    }
    options[SETTINGS].name = "help";
    options[SETTINGS + 1].name = "strict";
    while ((option = getopt_long(argc, argv, "+v", options, &which)) != -1) {
        if (option == 'v')
            verbose = true;
        else if (option == 0 && which == SETTINGS)
            return print_help(), flushed(EXIT_SUCCESS);
        else if (option == 0 && which == SETTINGS + 1)
            strict = true;
        else if (option != 0)
            return usage_error("run");
        else if (!set_option(&settings[which], settings[which].argument ? optarg : "on"))
            return EXIT_USAGE;
    }
    if (optind == argc) {
        fputs("mcpool: run: no command given\n", stderr);
        return usage_error("run");
    }
    if (!settings_warn(strict) && strict)
        return EXIT_USAGE;
    if (!preload_library(strict) && strict)
        return EXIT_CANNOT_RUN;
    if (verbose) {
        tell(argv + optind);
        check_program(argv[optind], stderr);
    }
    execvp(argv[optind], argv + optind);
    error = errno;
    fprintf(stderr, "mcpool: %s: %s\n", argv[optind], strerror(error));
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}
