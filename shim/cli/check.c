/*
 * mcpool check: says whether the library can be preloaded into a program, or whether a process
 * has it, and what to do if not.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cli/causes.h"
#include "cli/command.h"
#include "cli/explain.h"
#include "cli/families.h"
#include "cli/namespaces.h"
#include "cli/printable.h"
#include "cli/proc.h"
#include "cli/processes.h"
#include "cli/program.h"
#include "cli/settings.h"
#include "cli/text.h"

static void print_help(void)
{
    puts("usage: mcpool check [--] COMMAND | PID\n"
         "       mcpool check --config\n\n"
         "Says whether the library can be preloaded into COMMAND, or whether the process\n"
         "PID has it, and what to do if not. Of a PID it also shows the settings.\n"
         "Exit code 0: yes; 1: no.\n\n"
         "  --config  check the MCPOOL_ variables of this environment\n\n"
         "See mcpool-check(1).");
}

/* A reason why the library cannot be preloaded, and what to do about it. */
struct obstacle {
    bool is_there;
    const char *what;
    const char *remedy;
};

/* Prints the obstacles that are there. True when there is none. */
static bool tell_obstacles(const struct obstacle *obstacles, size_t n, FILE *to)
{
    bool clear = true;

    for (size_t i = 0; i < n; i++) {
        if (!obstacles[i].is_there)
            continue;
        fprintf(to, "no: %s\n    %s\n", obstacles[i].what, obstacles[i].remedy);
        clear = false;
    }
    return clear;
}

static bool judge(const struct program *program, FILE *to)
{
    const struct obstacle obstacles[] = {
        {!program->is_elf, "it is not a program for this machine",
         "The library can be preloaded into ELF programs of this machine only."},
        {program->is_other_machine, "it is for another architecture than the library",
         "Use a program, and a library, of the same architecture."},
        {program->is_go, "it is written in Go, which makes its system calls itself",
         "Use the client's own pool (MaxIdleConns of gomemcache), or a proxy on this host."},
        {program->is_static && !program->is_go,
         "it is linked statically, so nothing can be preloaded",
         "Link it dynamically against glibc, or use a proxy on this host."},
        {program->is_musl, "it uses musl (Alpine) instead of glibc",
         "Use an image with glibc, such as Debian's slim ones, or a proxy on this host."},
        {program->gains_privileges,
         "it has set-id bits or file capabilities, so the loader ignores LD_PRELOAD",
         "Remove them and start it as the right user; systemd's AmbientCapabilities= does no "
         "harm."},
        {program->is_confined,
         "it is started by snap or flatpak, and they change the environment",
         "Use the distribution's package, or set LD_PRELOAD inside: flatpak override --env."},
    };

    return tell_obstacles(obstacles, sizeof(obstacles) / sizeof(obstacles[0]), to);
}

static void tell_path(const struct program *program)
{
    if (program->script[0])
        printf("%s, a script for %s\n", program->script, program->path);
    else
        printf("%s\n", program->path);
}

/* The paths of PROGRAM are only printed from here on. */
static bool made_printable(struct program *program)
{
    make_printable(program->path);
    make_printable(program->script);
    return true;
}

static bool find_program(struct program *program, const char *name)
{
    return program_find(program, name) && made_printable(program);
}

bool check_program(const char *name, FILE *to)
{
    struct program program;

    return !program_find(&program, name) || judge(&program, to);
}

/* PHP opens its extensions with RTLD_DEEPBIND. Without the library's help they would call libc
 * past a preloaded library. And php-fpm sets a pool's variables long after it has started. */
static void tell_of_php(const struct program *program)
{
    const char *names = getenv("MCPOOL_DEEPBIND");
    const char *base = strrchr(program->path, '/');

    if (base && strncmp(base + 1, "php", 3) == 0)
        printf("note: PHP opens extensions with RTLD_DEEPBIND; the library removes it from %s\n"
               "    Add other clients of memcached to MCPOOL_DEEPBIND.\n",
               names ? names : "memcached.so, memcache.so and sockets.so");
    if (base && strncmp(base + 1, "php-fpm", 7) == 0)
        puts("note: php-fpm gets LD_PRELOAD from its service: "
             "env[LD_PRELOAD] of a pool comes too late,\n    and clear_env does not matter");
}

/* Root often asks about what others will run. For root, set-id bits change nothing. */
static void tell_of_others(const struct program *program)
{
    if (program->is_privileged)
        puts("note: for other users the loader ignores LD_PRELOAD: it has set-id bits or file "
             "capabilities\n"
             "    su - and sudo also clear the environment: sudo mcpool run -- ...");
}

static int check_command(const char *name)
{
    struct program program;

    if (!find_program(&program, name)) {
        fprintf(stderr, "mcpool: %s: %s\n", name, strerror(errno));
        return errno == ENOENT ? EXIT_NOT_FOUND : EXIT_CANNOT_RUN;
    }
    tell_path(&program);
    if (!judge(&program, stdout))
        return flushed(EXIT_NO);
    tell_of_php(&program);
    tell_of_others(&program);
    puts("yes: the library can be preloaded");
    return flushed(EXIT_SUCCESS);
}

/* The environment of a process as it was when the process started. */
struct environment {
    char bytes[1 << 17];
    size_t n;
    bool readable;
};

static void read_environment(struct environment *environment, int pid)
{
    char name[64];
    ssize_t more;
    int fd;

    snprintf(name, sizeof(name), "/proc/%d/environ", pid);
    fd = open(name, O_RDONLY | O_CLOEXEC);
    environment->n = 0;
    environment->readable = fd >= 0;
    while (fd >= 0 && environment->n < sizeof(environment->bytes) - 1 &&
           (more = read(fd, environment->bytes + environment->n,
                        sizeof(environment->bytes) - 1 - environment->n)) > 0)
        environment->n += (size_t)more;
    environment->bytes[environment->n] = '\0';
    if (fd >= 0)
        close(fd);
}

/* The value of the variable NAME, which ends in '='; NULL when it is not set. */
static const char *value_of(const struct environment *environment, const char *name)
{
    const char *at = environment->bytes;

    for (; at < environment->bytes + environment->n; at += strlen(at) + 1) {
        if (strncmp(at, name, strlen(name)) == 0)
            return at + strlen(name);
    }
    return NULL;
}

static bool has_preload(int pid)
{
    static struct environment environment;
    const char *preload;

    read_environment(&environment, pid);
    preload = value_of(&environment, "LD_PRELOAD=");
    return preload && is_preloaded(preload);
}

static int parent_of(int pid)
{
    char name[64], line[256];
    int parent = 0;
    FILE *status;

    snprintf(name, sizeof(name), "/proc/%d/status", pid);
    status = fopen(name, "re");
    while (status && parent == 0 && fgets(line, sizeof(line), status)) {
        if (strncmp(line, "PPid:", 5) == 0)
            parent = (int)strtol(line + 5, NULL, 10);
    }
    if (status)
        fclose(status);
    return parent;
}

static int tell_why_not(int pid)
{
    int parent = parent_of(pid);

    if (has_preload(pid))
        puts("no: LD_PRELOAD names the library, but the loader did not load it\n"
             "    The loader says why on stderr. The path may not exist where the process "
             "lives\n"
             "    (container, chroot), or the process may have gained privileges.");
    else if (parent > 0 && has_preload(parent))
        printf("no: its parent %d has the library, and cleared the environment for it\n"
               "    Start the command by `mcpool run` behind what clears it: sudo mcpool run "
               "-- ...\n",
               parent);
    else
        puts("no: it was started without the library\n"
             "    Start it by `mcpool run`, or with LD_PRELOAD=" LIBRARY
             " in its environment;\n"
             "    for a service: systemctl edit, [Service] Environment=LD_PRELOAD=" LIBRARY "\n"
             "    (php-fpm too: env[LD_PRELOAD] of a pool comes too late).");
    return EXIT_NO;
}

static void tell_counters(const struct process *process)
{
    char since[64];
    time_t start = (time_t)process->since;
    struct tm *local = localtime(&start);

    /* The file may have a time whose year is not in the range of int. */
    if (!local || strftime(since, sizeof(since), "%Y-%m-%d %H:%M:%S", local) == 0)
        snprintf(since, sizeof(since), "at an unknown time");
    printf("libmcpool %s, first connection %s%s\n", process->version, since,
           process->mode == MODE_DRY   ? ", dry run"
           : process->mode == MODE_OFF ? ", switched off by mcpool off"
                                       : "");
    for (size_t i = 0; i < process->server_count; i++) {
        const struct server *server = &process->servers[i];

        printf("    %s: %" PRIu64 " of %" PRIu64 " connects reused\n", server->name,
               server->numbers.stats[STAT_reused], server->numbers.stats[STAT_connects]);
    }
}

/* So many pids are named. */
#define MOST_PIDS 12

/* The other members of the family of PROCESS, as far as they show counters. */
static void tell_family(const struct process *process)
{
    struct processes processes = processes_read(NULL, 0);
    size_t others = 0;

    for (size_t i = 0; i < processes.count; i++) {
        const struct process *other = &processes.list[i];

        if (other->pid == process->pid || !families_share(process, other))
            continue;
        if (others < MOST_PIDS)
            printf("%s%d", others == 0 ? "shares idle connections with " : ", ", other->pid);
        others++;
    }
    if (others == 0)
        fputs("shares idle connections, and no other process of its family shows counters",
              stdout);
    if (others > MOST_PIDS)
        printf(" and %zu more", others - MOST_PIDS);
    putchar('\n');
    processes_free(&processes);
}

static void tell_share(const struct process *process)
{
    if (!process->tells_share || process->mode == MODE_OFF)
        return;
    if (process->family != 0) {
        tell_family(process);
        return;
    }
    printf("shares no idle connections: %s (%s)\n", share_name(process->share),
           share_text(process->share));
    if (share_is_notable(process->share))
        text_print_wrapped("    ", share_explanations[process->share].helps);
}

static void tell_no_proof(const struct process *process)
{
    uint64_t n = 0;

    for (size_t i = 0; i < process->server_count; i++)
        n += process->servers[i].numbers.refused[REASON_NO_PROOF] +
             process->servers[i].numbers.discarded[REASON_NO_PROOF];
    if (n > 0)
        printf("note: NO_PROOF %" PRIu64 ": the kernel or a filter (seccomp) refuses SO_COOKIE "
               "or TCP_INFO\n"
               "    Its connections cannot be verified, so they are not pooled. "
               "`mcpool explain NO_PROOF` says more.\n",
               n);
}

static bool find_executed(int pid, struct program *program)
{
    return program_find_executed(program, pid) && made_printable(program);
}

/* Netty 4.2 (IoUringIoHandler) sends, receives and closes through io_uring, without libc. */
static void tell_of_netty(int pid)
{
    char path[PATH_MAX + 16];

    if (proc_find_mapped(pid, "/libnetty_transport_native_io_uring", path, sizeof(path)) > 0)
        puts("note: it has Netty's io_uring transport; the library cannot see its connections\n"
             "    Use its epoll or NIO transport (EpollIoHandler, "
             "NioIoHandler), which pool.");
}

static void tell_container(int pid)
{
    char name[80];
    int inner_pid;

    namespaces_name_container(pid, name, sizeof(name));
    if (name[0] && namespaces_has_others(pid, &inner_pid))
        printf("note: it is process %d of the container %s\n", inner_pid, name);
}

static int tell_mapped(int pid, const char *path)
{
    static struct environment environment;
    struct processes processes;
    struct program program;

    if (find_executed(pid, &program) && program.is_go) {
        tell_path(&program);
        judge(&program, stdout);
        return EXIT_NO;
    }
    printf("yes: it has %s\n", path);
    tell_container(pid);
    tell_of_netty(pid);
    settings_tell_process(pid);
    processes = processes_read(&pid, 1);
    if (strstr(path, " (deleted)"))
        puts("note: the file was replaced since; restart the process to load the new one");
    read_environment(&environment, pid);
    if (processes.count > 0) {
        tell_counters(&processes.list[0]);
        tell_share(&processes.list[0]);
        tell_no_proof(&processes.list[0]);
    } else if (value_of(&environment, "MCPOOL_DISABLE="))
        puts("note: MCPOOL_DISABLE is set; unless it says off, nothing is pooled");
    if (processes.count == 0) {
        puts("note: it shows no counters");
        causes_tell(pid, stdout);
    }
    processes_free(&processes);
    return EXIT_SUCCESS;
}

static int check_process(int pid)
{
    char path[PATH_MAX + 16];
    struct program program;
    int library;

    if (proc_is_gone(pid)) {
        fprintf(stderr, "mcpool: no process %d\n", pid);
        return EXIT_NOT_FOUND;
    }
    library = proc_find_mapped(pid, "/" LIBRARY, path, sizeof(path));
    if (library < 0) {
        fprintf(stderr,
                geteuid() == 0 ? "mcpool: process %d: the system does not let root look at it\n"
                               : "mcpool: process %d is another user's; ask as root\n",
                pid);
        return EXIT_CANNOT_RUN;
    }
    if (library > 0) {
        make_printable(path);
        return flushed(tell_mapped(pid, path));
    }
    if (find_executed(pid, &program)) {
        tell_path(&program);
        if (!judge(&program, stdout))
            return flushed(EXIT_NO);
    }
    tell_of_netty(pid);
    return flushed(tell_why_not(pid));
}

int command_check(int argc, char **argv)
{
    static const struct option options[] = {
        {"help", no_argument, NULL, 'h'}, {"config", no_argument, NULL, 'c'}, {0}};
    bool settings = false;
    int option, pid;

    while ((option = getopt_long(argc, argv, "+", options, NULL)) != -1) {
        if (option == 'h')
            return print_help(), flushed(EXIT_SUCCESS);
        if (option != 'c')
            return usage_error("check");
        settings = true;
    }
    if (settings && optind == argc)
        return flushed(settings_tell_own() ? EXIT_SUCCESS : EXIT_NO);
    if (settings || optind == argc)
        return usage_error("check");
    return parse_pid(argv[optind], &pid) ? check_process(pid) : check_command(argv[optind]);
}
