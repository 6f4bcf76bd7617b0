/*
 * Reading files of counters.
 */
#include "cli/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* More servers than any process may have. */
#define MOST_SLOTS 4096

const struct stat_row stat_rows[STATS] = {
#define STAT(kind, name, text) {#name, text, sizeof(#kind) == sizeof("gauge")},
#include "stats/stats.def"
#undef STAT
};

/* What is asked for, and where what is found goes. */
struct search {
    const int *pids;
    size_t pid_count;
    uint64_t pid_namespace;
    struct processes found;
};

static void *must(void *memory)
{
    if (memory)
        return memory;
    perror("mcpool");
    exit(EXIT_FAILURE);
}

/* Text of others does not get to write on a terminal, or out of a quoted string. */
static void make_printable(char *text)
{
    for (; *text; text++) {
        if (!isprint((unsigned char)*text) || *text == '"' || *text == '\\')
            *text = '?';
    }
}

/* The content of /proc/PID/NAME, cut to what fits; its length, 0 without any. */
static size_t read_proc(int pid, const char *name, char *text, size_t room)
{
    char path[64];
    ssize_t n = -1;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0) {
        n = read(fd, text, room - 1);
        close(fd);
    }
    text[n < 0 ? 0 : n] = '\0';
    return n < 0 ? 0 : (size_t)n;
}

static bool is_alive(int pid, uint64_t start)
{
    char text[1024];
    size_t n = read_proc(pid, "stat", text, sizeof(text));

    return n > 0 && stats_parse_start(text, n) == start;
}

/* Nobody speaks for another user's process; but root's may have become another's. The line has
 * the real, effective, saved and file system user. */
static bool may_speak_for(uid_t owner, int pid)
{
    char text[4096];
    char *at;

    if (owner == 0)
        return true;
    read_proc(pid, "status", text, sizeof(text));
    at = strstr(text, "\nUid:");
    if (!at)
        return false;
    at += strlen("\nUid:");
    for (int i = 0; i < 4; i++) {
        if (strtoul(at, &at, 10) == owner)
            return true;
    }
    return false;
}

/* The last unit in the process's path of control groups that is a service, and not the one that
 * all of a user's processes are in. */
static bool find_unit(int pid, char *unit, size_t room)
{
    char text[4096];
    bool found = false;
    char *rest = text;
    char *part;

    read_proc(pid, "cgroup", text, sizeof(text));
    while ((part = strsep(&rest, "/\n"))) {
        size_t n = strlen(part);

        if (n <= strlen(".service") || strcmp(part + n - strlen(".service"), ".service") != 0 ||
            strncmp(part, "user@", 5) == 0)
            continue;
        snprintf(unit, room, "%s", part);
        found = true;
    }
    return found;
}

static void name_process(struct process *process)
{
    read_proc(process->pid, "comm", process->command, sizeof(process->command));
    process->command[strcspn(process->command, "\n")] = '\0';
    if (!find_unit(process->pid, process->service, sizeof(process->service)))
        snprintf(process->service, sizeof(process->service), "%s", process->command);
    make_printable(process->command);
    make_printable(process->service);
}

static void add_derived(struct numbers *numbers)
{
    uint64_t timed = numbers->stats[STAT_connects_timed];
    uint64_t reused = numbers->stats[STAT_reused];

    if (timed > 0)
        numbers->seconds_avoided =
            (double)reused * (double)numbers->stats[STAT_connect_us] / (double)timed / 1e6;
    numbers->time_wait_avoided = reused;
}

static void read_slot(struct process *process, const struct stats_slot *slot)
{
    struct server *server = &process->servers[process->server_count];
    const struct stats *stats = &slot->stats;

    if (slot->change == 0 || slot->change % 2 == 1)
        return;
    memset(server, 0, sizeof(*server));
    memcpy(server->name, slot->endpoint, sizeof(server->name) - 1);
    make_printable(server->name);
#define STAT(kind, name, text) server->numbers.stats[STAT_##name] = stats->name;
#include "stats/stats.def"
#undef STAT
    for (int i = 0; i < REASON_COUNT; i++) {
        server->numbers.refused[i] = stats->refused[i];
        server->numbers.discarded[i] = stats->discarded[i];
    }
    add_derived(&server->numbers);
    process->server_count++;
}

static bool is_ours(const struct stats_header *header)
{
    return header->layout == STATS_LAYOUT && header->header_size == sizeof(*header) &&
           header->slot_size == sizeof(struct stats_slot) && header->reasons == REASON_COUNT &&
           header->names == stats_names();
}

static void add_process(struct search *search, const struct stats_header *header, size_t size)
{
    const struct stats_slot *slots = (const void *)(header + 1);
    size_t n = (size - sizeof(*header)) / sizeof(*slots);
    struct process *process;

    if (!is_ours(header)) {
        search->found.strange++;
        return;
    }
    search->found.list = must(
        reallocarray(search->found.list, search->found.count + 1, sizeof(*search->found.list)));
    process = &search->found.list[search->found.count++];
    memset(process, 0, sizeof(*process));
    process->pid = header->pid;
    process->dry_run = header->dry_run;
    process->since = header->since;
    memcpy(process->version, header->version, sizeof(process->version) - 1);
    make_printable(process->version);
    name_process(process);
    process->servers = must(calloc(n + 1, sizeof(*process->servers)));
    for (size_t i = 0; i < n; i++)
        read_slot(process, &slots[i]);
}

/* Read, not mapped: every user that may write to it may cut it short at any time. */
static size_t read_all(int fd, void *bytes, size_t room)
{
    size_t n = 0;
    ssize_t more;

    while (n < room && (more = pread(fd, (char *)bytes + n, room - n, (off_t)n)) > 0)
        n += (size_t)more;
    return n;
}

static void read_file(struct search *search, int directory, const char *name, int pid,
                      uint64_t start)
{
    static union {
        struct stats_header header;
        char bytes[STATS_FILE_SIZE(MOST_SLOTS)];
    } file;
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    struct stat found;
    size_t n;

    if (fd < 0) {
        search->found.forbidden += errno == EACCES;
        return;
    }
    memset(&file.header, 0, sizeof(file.header));
    n = fstat(fd, &found) == 0 && S_ISREG(found.st_mode)
            ? read_all(fd, file.bytes, sizeof(file.bytes))
            : 0;
    close(fd);
    if (n < sizeof(file.header) || file.header.magic != STATS_MAGIC ||
        file.header.pid_namespace != search->pid_namespace || file.header.pid != pid ||
        file.header.start != start)
        return;
    if (!is_alive(pid, start))
        unlinkat(directory, name, 0);
    else if (may_speak_for(found.st_uid, pid))
        add_process(search, &file.header, n);
}

static bool is_wanted(const struct search *search, int pid)
{
    for (size_t i = 0; i < search->pid_count; i++) {
        if (search->pids[i] == pid)
            return true;
    }
    return search->pid_count == 0;
}

static void read_directory(struct search *search, const char *path)
{
    DIR *directory = opendir(path);
    struct dirent *entry;
    uint64_t start;
    int pid;

    if (!directory)
        return;
    while ((entry = readdir(directory))) {
        if (stats_parse_name(entry->d_name, &pid, &start) && is_wanted(search, pid))
            read_file(search, dirfd(directory), entry->d_name, pid, start);
    }
    closedir(directory);
}

/* Where the library writes; for root, of all users. */
static void read_directories(struct search *search)
{
    const char *asked = getenv("MCPOOL_STATS");
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[CONFIG_DIRECTORY_SIZE + 16];
    glob_t others;

    if (asked && *asked) {
        read_directory(search, asked);
        return;
    }
    read_directory(search, STATS_DIRECTORY);
    if (geteuid() == 0 &&
        glob("/run/user/*/" STATS_SUBDIRECTORY, GLOB_ONLYDIR, NULL, &others) == 0) {
        for (size_t i = 0; i < others.gl_pathc; i++)
            read_directory(search, others.gl_pathv[i]);
        globfree(&others);
    } else if (runtime) {
        snprintf(path, sizeof(path), "%s/" STATS_SUBDIRECTORY, runtime);
        read_directory(search, path);
    }
}

static int compare(const void *a, const void *b)
{
    const struct process *one = a, *other = b;
    int order = strcmp(one->service, other->service);

    if (order == 0)
        order = one->dry_run - other->dry_run;
    return order ? order : (one->pid > other->pid) - (one->pid < other->pid);
}

struct processes processes_read(const int *pids, size_t n)
{
    struct search search = {.pids = pids, .pid_count = n};
    struct stat found;

    if (stat("/proc/self/ns/pid", &found) == 0)
        search.pid_namespace = found.st_ino;
    read_directories(&search);
    if (search.found.count > 0)
        qsort(search.found.list, search.found.count, sizeof(*search.found.list), compare);
    return search.found;
}

void processes_free(struct processes *processes)
{
    for (size_t i = 0; i < processes->count; i++)
        free(processes->list[i].servers);
    free(processes->list);
    *processes = (struct processes){0};
}

void numbers_add(struct numbers *to, const struct numbers *from)
{
    for (int i = 0; i < STATS; i++)
        to->stats[i] += from->stats[i];
    for (int i = 0; i < REASON_COUNT; i++) {
        to->refused[i] += from->refused[i];
        to->discarded[i] += from->discarded[i];
    }
    to->seconds_avoided += from->seconds_avoided;
    to->time_wait_avoided += from->time_wait_avoided;
}

double numbers_hit_rate(const struct numbers *numbers)
{
    uint64_t connects = numbers->stats[STAT_connects];

    return connects > 0 ? 100.0 * (double)numbers->stats[STAT_reused] / (double)connects : 0;
}
