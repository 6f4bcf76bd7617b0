/*
 * mcpool run: puts the library in front of LD_PRELOAD and executes the program.
 *
 * The program runs in the same process, so it has the same fds and signals, and the caller gets
 * its exit code. If the library cannot be preloaded, a message on stderr says so, and the
 * program runs without it.
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
    {"max-lifetime", "MCPOOL_MAX_LIFETIME", "TIME", "not kept when older (30m)"},
    {"deepbind", "MCPOOL_DEEPBIND", "NAMES", "objects to reach (memcached.so,memcache.so)"},
    {"log", "MCPOOL_LOG", "FILE", "log to FILE, or to stderr (off)"},
    {"log-level", "MCPOOL_LOG_LEVEL", "LEVEL", "error, warning, info or debug (info)"},
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
    puts("  -v                      say on stderr what will run, and why it cannot be "
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
static bool can_be_loaded(const char *library)
{
    const char *why = NULL;

    if (strpbrk(library, ": "))
        why = "LD_PRELOAD cannot hold a path with a blank or colon";
    else if (strchr(library, '/') && access(library, R_OK) != 0)
        why = strerror(errno);
    if (why)
        fprintf(stderr, "mcpool: %s: %s; running without it\n", library, why);
    return !why;
}

bool is_preloaded(const char *preload)
{
    while (*preload) {
        size_t n = strcspn(preload, ": ");
        const char *name = preload + n;

        while (name > preload && name[-1] != '/')
            name--;
        if ((size_t)(preload + n - name) == strlen(LIBRARY) &&
            strncmp(name, LIBRARY, strlen(LIBRARY)) == 0)
            return true;
        preload += n;
        preload += strspn(preload, ": ");
    }
    return false;
}

static void preload_library(void)
{
    const char *others = getenv("LD_PRELOAD");
    const char *library;
    char *joined;

    if (others && is_preloaded(others))
        return;
    library = find_library();
    if (!can_be_loaded(library))
        return;
    if (!others || !*others) {
        set("LD_PRELOAD", library);
        return;
    }
    if (asprintf(&joined, "%s:%s", library, others) < 0) {
        perror("mcpool");
        exit(EXIT_CANNOT_RUN);
    }
    set("LD_PRELOAD", joined);
    free(joined);
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

/* The first argument that is no option is the command: getopt_long() stops there ("+"). */
int command_run(int argc, char **argv)
{
    struct option options[SETTINGS + 2] = {0};
    bool verbose = false;
    int option, which, error;

    for (size_t i = 0; i < SETTINGS; i++) {
        options[i].name = settings[i].option;
        options[i].has_arg = settings[i].argument ? required_argument : no_argument;
    }
    options[SETTINGS].name = "help";
    while ((option = getopt_long(argc, argv, "+v", options, &which)) != -1) {
        if (option == 'v')
            verbose = true;
        else if (option == 0 && which == SETTINGS)
            return print_help(), flushed(EXIT_SUCCESS);
        else if (option == 0)
            set(settings[which].variable, settings[which].argument ? optarg : "on");
        else
            return usage_error("run");
    }
    if (optind == argc) {
        fputs("mcpool: run: no command given\n", stderr);
        return usage_error("run");
    }
    preload_library();
    if (verbose) {
        tell(argv + optind);
        check_program(argv[optind], stderr);
    }
    execvp(argv[optind], argv + optind);
    error = errno;
    fprintf(stderr, "mcpool: %s: %s\n", argv[optind], strerror(error));
    return error == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
}
