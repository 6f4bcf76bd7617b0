/*
 * mcpool off, on, dry and flush: tell running processes what to do with their connections.
 *
 * The command makes a switch file beside the file of counters of each process, and waits until
 * the process says there that it has followed. It writes only into the directory in which it
 * has found that file, and never through a link.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/causes.h"
#include "cli/command.h"
#include "cli/places.h"
#include "config/rules.h"
#include "stats/switch_file.h"

/* How long a process may take, and how often its file is looked at. */
#define WAIT_MS        2000
#define LOOK_MS        20
#define FILE_NAME_SIZE 48

static const char *const states[] = {
    [WISH_ON] = "on", [WISH_DRY] = "dry run", [WISH_OFF] = "off", [WISH_FLUSH] = "flushed"};

/* A process that is told. */
struct target {
    int pid;
    uint64_t start;
    uint64_t pid_namespace;
    uid_t user;    /* its effective one */
    int directory; /* that has its file of counters; -1: not found */
    char file[FILE_NAME_SIZE];
    char switch_file[FILE_NAME_SIZE];
    bool told;
    bool followed;
};

static void print_help(const char *command, enum wish wish)
{
    printf("usage: mcpool %s PID...%s\n\n", command, wish == WISH_FLUSH ? " [ENDPOINT]" : "");
    puts("mcpool off, on, dry and flush tell running processes what to do with their\n"
         "connections to memcached.\n\n"
         "  off    pool nothing, as if the library were not there; close what is idle\n"
         "  on     pool again\n"
         "  dry    reuse nothing, and count what would be reused\n"
         "  flush  close what is idle, and keep nothing that is open now; with ENDPOINT\n"
         "         (127.0.0.1:11211) only connections to that server\n\n"
         "Waits up to 2 seconds until the processes have followed, and names those that have\n"
         "not: a process follows at its next call or wait. Children that it forks later do as\n"
         "it does. See mcpool-switch(1).");
}

/* The effective user of the process PID. False when there is no such process. */
static bool read_user(int pid, uid_t *user)
{
    char path[64], line[256];
    unsigned long effective;
    bool found = false;
    FILE *status;

    snprintf(path, sizeof(path), "/proc/%d/status", pid);
    status = fopen(path, "re");
    while (status && !found && fgets(line, sizeof(line), status)) {
        char *at = line + strlen("Uid:");

        if (strncmp(line, "Uid:", strlen("Uid:")) != 0)
            continue;
        strtoul(at, &at, 10); /* the real one */
        effective = strtoul(at, NULL, 10);
        *user = (uid_t)effective;
        found = true;
    }
    if (status)
        fclose(status);
    return found;
}

static uint64_t read_start(int pid)
{
    char path[64], text[1024];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    n = read(fd, text, sizeof(text));
    close(fd);
    return n <= 0 ? 0 : stats_parse_start(text, (size_t)n);
}

/* Reads the header of the file of counters in DIRECTORY. False when it is not that of TARGET,
 * or another user than root and the process's could have made it. */
static bool read_header(const struct target *target, int directory, struct stats_header *header)
{
    const size_t fixed = offsetof(struct stats_header, names);
    int fd = openat(directory, target->file,
                    O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat found;
    bool good;

    if (fd < 0)
        return false;
    good = fstat(fd, &found) == 0 && S_ISREG(found.st_mode) &&
           (found.st_uid == 0 || found.st_uid == target->user) &&
           read(fd, header, fixed) == (ssize_t)fixed && header->magic == STATS_MAGIC &&
           header->layout == STATS_LAYOUT && header->pid == target->pid &&
           header->start == target->start && header->pid_namespace == target->pid_namespace;
    close(fd);
    return good;
}

/* CONTEXT is a struct target. */
static void look_into(void *context, DIR *directory)
{
    struct target *target = context;
    static struct stats_header header;

    if (target->directory < 0 && read_header(target, dirfd(directory), &header))
        target->directory = fcntl(dirfd(directory), F_DUPFD_CLOEXEC, 0);
}

static void find(struct target *target)
{
    static struct places places;
    struct stat found;

    memset(&places, 0, sizeof(places));
    target->start = read_start(target->pid);
    target->pid_namespace = stat("/proc/self/ns/pid", &found) == 0 ? found.st_ino : 0;
    snprintf(target->file, sizeof(target->file), "%d-%llu", target->pid,
             (unsigned long long)target->start);
    snprintf(target->switch_file, sizeof(target->switch_file), "%s" SWITCH_SUFFIX,
             target->file);
    places_read(&places, look_into, target);
}

static bool write_new(int directory, const char *name, const struct switch_file *content)
{
    int fd =
        openat(directory, name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    bool written;

    if (fd < 0)
        return false;
    /* The process may have given up root; what it must be able to read is no secret. */
    written = write(fd, content, sizeof(*content)) == (ssize_t)sizeof(*content) &&
              fchmod(fd, 0644) == 0;
    return close(fd) == 0 && written;
}

/* Under another name first, so that the process never reads half a file. */
static bool write_file(const struct target *target, const struct switch_file *content)
{
    char name[FILE_NAME_SIZE + 16];
    bool done;

    snprintf(name, sizeof(name), "%s.%d", target->switch_file, getpid());
    done = write_new(target->directory, name, content) &&
           renameat(target->directory, name, target->directory, target->switch_file) == 0;
    if (!done) {
        int error = errno;

        if (error != EEXIST)
            unlinkat(target->directory, name, 0);
        errno = error;
    }
    return done;
}

static void tell(struct target *target, enum wish wish, const char *endpoint,
                 uint64_t generation)
{
    struct switch_file content = {
        .magic = SWITCH_MAGIC, .pid = target->pid, .wish = wish, .generation = generation};

    if (!read_user(target->pid, &target->user)) {
        fprintf(stderr, "mcpool: no process %d\n", target->pid);
        return;
    }
    if (geteuid() != 0 && geteuid() != target->user) {
        fprintf(stderr, "mcpool: process %d is another user's; ask as root\n", target->pid);
        return;
    }
    find(target);
    if (target->directory < 0) {
        fprintf(stderr, "mcpool: process %d cannot be switched: it shows no counters\n",
                target->pid);
        causes_tell(target->pid, stderr);
        return;
    }
    content.start = target->start;
    content.pid_namespace = target->pid_namespace;
    snprintf(content.endpoint, sizeof(content.endpoint), "%s", endpoint);
    target->told = write_file(target, &content);
    if (!target->told)
        fprintf(stderr,
                "mcpool: process %d cannot be told: the file %s beside its counters: %s\n",
                target->pid, target->switch_file, strerror(errno));
}

/* Whether TARGET has followed, or has ended. */
static bool is_done(struct target *target, uint64_t generation)
{
    static struct stats_header header;

    if (!target->told || target->followed)
        return true;
    target->followed =
        read_header(target, target->directory, &header) && header.followed == generation;
    return target->followed || read_start(target->pid) != target->start;
}

static bool are_done(struct target *targets, size_t n, uint64_t generation)
{
    bool all = true;

    for (size_t i = 0; i < n; i++)
        all &= is_done(&targets[i], generation);
    return all;
}

static void wait_for(struct target *targets, size_t n, uint64_t generation)
{
    for (int waited = 0; !are_done(targets, n, generation) && waited < WAIT_MS;
         waited += LOOK_MS)
        usleep(LOOK_MS * 1000);
}

/* The file of a process that has not followed stays, so that it follows later. */
static void conclude(const struct target *target, enum wish wish)
{
    bool ended = read_start(target->pid) != target->start;

    if (target->directory < 0)
        return;
    if (target->told && (target->followed || ended))
        unlinkat(target->directory, target->switch_file, 0);
    if (target->followed)
        printf("%d: %s\n", target->pid, states[wish]);
    else if (target->told && ended)
        fprintf(stderr, "mcpool: process %d has ended\n", target->pid);
    else if (target->told)
        fprintf(stderr,
                "mcpool: process %d has not followed yet: it sleeps, and follows at its next "
                "call or wait\n",
                target->pid);
    close(target->directory);
}

static uint64_t make_generation(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec + 1;
}

static int switch_all(const int *pids, size_t n, enum wish wish, const char *endpoint)
{
    struct target *targets = calloc(n, sizeof(*targets));
    uint64_t generation = make_generation();
    bool all = true;

    if (!targets) {
        perror("mcpool");
        return EXIT_FAILURE;
    }
    for (size_t i = 0; i < n; i++) {
        targets[i].pid = pids[i];
        targets[i].directory = -1;
        tell(&targets[i], wish, endpoint, generation);
    }
    wait_for(targets, n, generation);
    for (size_t i = 0; i < n; i++) {
        conclude(&targets[i], wish);
        all &= targets[i].followed;
    }
    free(targets);
    return flushed(all ? EXIT_SUCCESS : EXIT_NO);
}

/* Fills NAME with the text that the library has for the endpoint TEXT. */
static bool parse_endpoint(const char *text, char *name)
{
    struct rule rules[RULES_PER_ITEM];
    struct address address = {0};

    if (rules_parse(rules, text, strlen(text)) != 1 || rules[0].exclude || rules[0].any ||
        rules[0].prefix != 128)
        return false;
    address.port = rules[0].port;
    memcpy(address.ip, rules[0].ip, sizeof(address.ip));
    address_text(&address, name);
    return true;
}

static int command_switch(int argc, char **argv, const char *command, enum wish wish)
{
    static const struct option options[] = {{"help", no_argument, NULL, 'h'}, {0}};
    char endpoint[ADDRESS_TEXT_SIZE] = "";
    int *pids, option, code;
    size_t n = 0;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        if (option != 'h')
            return usage_error(command);
        return print_help(command, wish), flushed(EXIT_SUCCESS);
    }
    pids = calloc((size_t)argc, sizeof(*pids));
    if (!pids) {
        perror("mcpool");
        return EXIT_FAILURE;
    }
    for (; optind < argc && parse_pid(argv[optind], &pids[n]); optind++)
        n++;
    if (wish == WISH_FLUSH && n > 0 && optind == argc - 1 &&
        parse_endpoint(argv[optind], endpoint))
        optind++;
    code = n == 0 || optind < argc ? usage_error(command) : switch_all(pids, n, wish, endpoint);
    free(pids);
    return code;
}

int command_off(int argc, char **argv)
{
    return command_switch(argc, argv, "off", WISH_OFF);
}

int command_on(int argc, char **argv)
{
    return command_switch(argc, argv, "on", WISH_ON);
}

int command_dry(int argc, char **argv)
{
    return command_switch(argc, argv, "dry", WISH_DRY);
}

int command_flush(int argc, char **argv)
{
    return command_switch(argc, argv, "flush", WISH_FLUSH);
}
