/*
 * mcpool off, on, dry and flush: tell running processes what to do with their connections.
 *
 * The command makes a switch file beside the file of counters of each process, and waits until
 * the process says there that it has followed. It writes only into the directory in which it
 * has found that file: one that it finds by its own paths, never below /proc/PID/root.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "cli/causes.h"
#include "cli/command.h"
#include "cli/namespaces.h"
#include "cli/places.h"
#include "cli/proc.h"
#include "config/rules.h"
#include "stats/switch_file.h"

/* How long the processes may take, and how often their files are looked at. */
#define WAIT_MS 2000
#define LOOK_MS 20

#define FILE_NAME_SIZE 48
#define READ_FLAGS     (O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY)

static const char *const states[] = {
    [WISH_ON] = "on", [WISH_DRY] = "dry run", [WISH_OFF] = "off", [WISH_FLUSH] = "flushed"};

/* A process that is told. */
struct target {
    int pid;
    int inner_pid; /* in its own PID namespace; this and the start name its file */
    uint64_t start;
    uint64_t pid_namespace;
    uid_t user;        /* its effective one */
    bool is_elsewhere; /* it has namespaces or a root of its own */
    int directory;     /* that has its file of counters; -1: not found */
    char file[FILE_NAME_SIZE];
    char switch_file[FILE_NAME_SIZE];
    ino_t inode; /* of the switch file; 0: it was not told */
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
         "not: a process follows at its next call that connects, closes or waits. Children "
         "that\n"
         "it forks later do as it does. See mcpool-switch(1).");
}

/* Fills TARGET from /proc/PID. False when there is no such process. */
static bool read_process(struct target *target)
{
    char text[4096];
    char *at;

    proc_read(target->pid, "status", text, sizeof(text));
    at = strstr(text, "\nUid:");
    if (!at)
        return false;
    at += strlen("\nUid:");
    strtoul(at, &at, 10); /* the real one */
    target->user = (uid_t)strtoul(at, NULL, 10);
    target->start = proc_start(target->pid);
    target->is_elsewhere = namespaces_has_others(target->pid, &target->inner_pid);
    return true;
}

static uint64_t read_pid_namespace(const char *pid)
{
    char path[64];
    struct stat found;

    snprintf(path, sizeof(path), "/proc/%s/ns/pid", pid);
    return stat(path, &found) == 0 ? found.st_ino : 0;
}

/* Reads the N bytes of a header from NAME, a regular file of root or of OWNER, into BYTES. */
static bool read_beginning(int directory, const char *name, uid_t owner, void *bytes, size_t n)
{
    int fd = openat(directory, name, READ_FLAGS);
    struct stat found;
    bool good;

    if (fd < 0)
        return false;
    good = fstat(fd, &found) == 0 && S_ISREG(found.st_mode) &&
           (found.st_uid == 0 || found.st_uid == owner) && read(fd, bytes, n) == (ssize_t)n;
    close(fd);
    return good;
}

/* Reads the header of the file of counters in DIRECTORY. False when it is not that of TARGET.
 */
static bool read_header(const struct target *target, int directory, struct stats_header *header)
{
    return read_beginning(directory, target->file, target->user, header,
                          offsetof(struct stats_header, names)) &&
           header->magic == STATS_MAGIC && header->layout == STATS_LAYOUT &&
           header->pid == target->inner_pid && header->start == target->start &&
           header->pid_namespace == target->pid_namespace;
}

/* Removes the switch file NAME if it is ours, for a process that has ended. */
static void remove_if_gone(int directory, const char *name)
{
    const char *end = strrchr(name, '.');
    struct switch_file content;
    char path[64];

    if (!end || strcmp(end, SWITCH_SUFFIX) != 0 ||
        !read_beginning(directory, name, geteuid(), &content, sizeof(content)) ||
        content.magic != SWITCH_MAGIC || content.pid_namespace != read_pid_namespace("self") ||
        proc_start(content.pid) == content.start)
        return;
    snprintf(path, sizeof(path), "%d-%llu" SWITCH_SUFFIX, content.pid,
             (unsigned long long)content.start);
    if (strcmp(name, path) == 0)
        unlinkat(directory, name, 0);
}

/* CONTEXT is a struct target. */
static void look_into(void *context, DIR *directory)
{
    struct target *target = context;
    static struct stats_header header;
    const struct dirent *entry;

    while ((entry = readdir(directory)))
        remove_if_gone(dirfd(directory), entry->d_name);
    if (target->directory < 0 && read_header(target, dirfd(directory), &header))
        target->directory = fcntl(dirfd(directory), F_DUPFD_CLOEXEC, 0);
}

static void find(struct target *target)
{
    static struct places places;
    char pid[16];

    memset(&places, 0, sizeof(places));
    snprintf(pid, sizeof(pid), "%d", target->pid);
    target->pid_namespace = read_pid_namespace(pid);
    snprintf(target->file, sizeof(target->file), "%d-%llu", target->inner_pid,
             (unsigned long long)target->start);
    snprintf(target->switch_file, sizeof(target->switch_file), "%s" SWITCH_SUFFIX,
             target->file);
    places_read(&places, look_into, target);
}

/* An unfinished file is too short for the library. A former wish is replaced. */
static bool write_file(struct target *target, const struct switch_file *content)
{
    struct stat found;
    bool written;
    int fd;

    unlinkat(target->directory, target->switch_file, 0);
    fd = openat(target->directory, target->switch_file,
                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return false;
    /* The process may have given up root; what it must be able to read is no secret. */
    written = fstat(fd, &found) == 0 && fchmod(fd, 0644) == 0 &&
              write(fd, content, sizeof(*content)) == (ssize_t)sizeof(*content);
    if (written)
        target->inode = found.st_ino;
    else
        unlinkat(target->directory, target->switch_file, 0);
    close(fd);
    return written;
}

/* CONTEXT is a bool. */
static bool note_inside(void *context, const struct resident *resident, int fd,
                        const struct stat *found)
{
    (void)resident, (void)fd, (void)found;
    return *(bool *)context = true;
}

static void tell_not_found(const struct target *target)
{
    bool inside = false;

    if (target->is_elsewhere)
        namespaces_read(&target->pid, 1, note_inside, &inside);
    if (inside) {
        fprintf(stderr,
                "mcpool: process %d cannot be switched from here: its counters are in its "
                "container,\n"
                "    and mcpool writes nothing there. Run mcpool inside, where the process is "
                "%d, or share\n"
                "    the directory of its counters.\n",
                target->pid, target->inner_pid);
        return;
    }
    fprintf(stderr, "mcpool: process %d cannot be switched: it shows no counters\n",
            target->pid);
    causes_tell(target->pid, stderr);
}

/* ORDER lacks only for which process it is. */
static void tell(struct target *target, const struct switch_file *order)
{
    struct switch_file content = *order;

    if (!read_process(target)) {
        fprintf(stderr, "mcpool: no process %d\n", target->pid);
        return;
    }
    if (geteuid() != 0 && geteuid() != target->user) {
        fprintf(stderr, "mcpool: process %d is another user's; ask as root\n", target->pid);
        return;
    }
    find(target);
    if (target->directory < 0) {
        tell_not_found(target);
        return;
    }
    content.pid = target->inner_pid;
    content.start = target->start;
    content.pid_namespace = target->pid_namespace;
    if (!write_file(target, &content))
        fprintf(stderr,
                "mcpool: process %d cannot be told: the file %s beside its counters: %s\n",
                target->pid, target->switch_file, strerror(errno));
}

static bool has_ended(const struct target *target)
{
    return proc_start(target->pid) != target->start;
}

/* Whether there is nothing to wait for at TARGET. */
static bool is_done(struct target *target, uint64_t generation)
{
    static struct stats_header header;

    if (target->inode == 0 || target->followed)
        return true;
    target->followed =
        read_header(target, target->directory, &header) && header.followed == generation;
    return target->followed || has_ended(target);
}

static bool are_done(struct target *targets, size_t n, uint64_t generation)
{
    bool all = true;

    for (size_t i = 0; i < n; i++)
        all &= is_done(&targets[i], generation);
    return all;
}

static int64_t now_in_ms(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void wait_for(struct target *targets, size_t n, uint64_t generation)
{
    int64_t until = now_in_ms() + WAIT_MS;

    while (!are_done(targets, n, generation) && now_in_ms() < until)
        usleep(LOOK_MS * 1000);
}

/* Removes the switch file, unless that is the one of a later command by now. */
static void remove_file(const struct target *target)
{
    struct stat found;

    if (fstatat(target->directory, target->switch_file, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
        found.st_ino == target->inode)
        unlinkat(target->directory, target->switch_file, 0);
}

/* The file of a process that has not followed stays, so that it follows later. */
static void conclude(const struct target *target, enum wish wish)
{
    bool ended = has_ended(target);

    if (target->inode == 0)
        return;
    if (target->followed || ended)
        remove_file(target);
    if (target->followed)
        printf("%d: %s\n", target->pid, states[wish]);
    else if (ended)
        fprintf(stderr, "mcpool: process %d has ended\n", target->pid);
    else
        fprintf(stderr,
                "mcpool: process %d has not followed yet: it sleeps or computes, and follows "
                "at its\n"
                "    next call that connects, closes a connection or waits\n",
                target->pid);
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
    struct switch_file order = {
        .magic = SWITCH_MAGIC, .wish = wish, .generation = make_generation()};
    bool all = true;

    if (!targets) {
        perror("mcpool");
        return EXIT_FAILURE;
    }
    snprintf(order.endpoint, sizeof(order.endpoint), "%s", endpoint);
    for (size_t i = 0; i < n; i++) {
        targets[i].pid = pids[i];
        targets[i].directory = -1;
        tell(&targets[i], &order);
    }
    wait_for(targets, n, order.generation);
    for (size_t i = 0; i < n; i++) {
        conclude(&targets[i], wish);
        all &= targets[i].followed;
        if (targets[i].directory >= 0)
            close(targets[i].directory);
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

/* `flush PID PORT` would flush all servers of the first process. Whether the last of N pids is
 * no process, but could be a port; says so. */
static bool is_port(const int *pids, size_t n)
{
    int last = pids[n - 1];

    if (n < 2 || last > UINT16_MAX || !proc_is_gone(last))
        return false;
    fprintf(stderr, "mcpool: no process %d; an ENDPOINT is ADDRESS:PORT, as 127.0.0.1:%d\n",
            last, last);
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
    if (optind < argc)
        code =
            bad_argument(command, argv[optind],
                         wish == WISH_FLUSH ? "a process ID or ADDRESS:PORT" : "a process ID");
    else if (n == 0)
        code = usage_error(command);
    else if (wish == WISH_FLUSH && is_port(pids, n))
        code = EXIT_USAGE;
    else
        code = switch_all(pids, n, wish, endpoint);
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
