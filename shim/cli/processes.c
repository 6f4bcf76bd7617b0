/*
 * Finds and reads the files of counters, and removes those of processes that have ended.
 */
#include "cli/processes.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Limits for what is read of a file: its slots and its bytes. No process has as many. */
#define MOST_SLOTS 4096
#define MOST_BYTES (8 << 20)

struct search {
    const int *pids;        /* the processes that are asked for */
    size_t pid_count;       /* 0: all processes */
    uint64_t pid_namespace; /* ours */
    struct processes found;
};

/* Ends the program when MEMORY is NULL. */
static void *must(void *memory)
{
    if (memory)
        return memory;
    perror("mcpool");
    exit(EXIT_FAILURE);
}

/* Other users choose these texts: they must not control the terminal, nor end a quoted string
 * in JSON. */
static void make_printable(char *text)
{
    for (; *text; text++) {
        if (!isprint((unsigned char)*text) || *text == '"' || *text == '\\')
            *text = '?';
    }
}

/* Reads /proc/PID/NAME into TEXT, with a final NUL, cut to what fits. Returns the length; 0
 * when it cannot be read. */
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

/* Whether a file of the user OWNER may be about the process PID: only if that process has this
 * user. Root may write about all, as a process may have given up root after it made its file.
 * The line "Uid:" has the real, effective, saved and file system user. */
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

/* Fills UNIT with the last service in the path of the process's control group. user@UID.service
 * does not count: all processes of a user are in it. */
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

/* Adds a value that this version knows. */
static void read_value(struct numbers *numbers, const struct value *value, uint64_t number,
                       uint64_t discarded)
{
    if (value->kind == VALUE_REASON) {
        numbers->refused[value->index] = number;
        numbers->discarded[value->index] = discarded;
    } else {
        numbers->stats[value->index] = number;
    }
}

static void read_values(struct server *server, const struct layout *layout, const char *slot)
{
    size_t unknown = 0;

    for (size_t i = 0; i < layout->value_count; i++) {
        const struct value *value = &layout->values[i];
        uint64_t number = layout_value(layout, slot, i);
        uint64_t discarded =
            value->kind == VALUE_REASON ? layout_discarded(layout, slot, i) : 0;

        if (value->kind == VALUE_REASON)
            server->numbers.all_refused += number;
        if (value->index == VALUE_UNKNOWN)
            server->unknown[unknown++] = (struct unknown_number){number, discarded};
        else if (value->index != VALUE_REPLACED)
            read_value(&server->numbers, value, number, discarded);
    }
}

static void read_slot(struct process *process, const struct layout *layout, const char *slot)
{
    struct server *server = &process->servers[process->server_count];
    size_t name_at = offsetof(struct stats_slot, endpoint);
    size_t room = layout->values_at - name_at;
    uint32_t change;

    memcpy(&change, slot + offsetof(struct stats_slot, change), sizeof(change));
    if (change == 0 || change % 2 == 1)
        return;
    if (room > sizeof(server->name) - 1)
        room = sizeof(server->name) - 1;
    memcpy(server->name, slot + name_at, room);
    make_printable(server->name);
    server->unknown = process->unknown_numbers + process->server_count * process->unknown_count;
    read_values(server, layout, slot);
    add_derived(&server->numbers);
    process->server_count++;
}

static void read_slots(struct process *process, const struct layout *layout, const char *bytes,
                       size_t size)
{
    size_t n = (size - layout->slots_at) / layout->slot_size;

    if (n > MOST_SLOTS)
        n = MOST_SLOTS;
    process->servers = must(calloc(n + 1, sizeof(*process->servers)));
    process->unknown_numbers =
        must(calloc(n * process->unknown_count + 1, sizeof(*process->unknown_numbers)));
    for (size_t i = 0; i < n; i++)
        read_slot(process, layout, bytes + layout->slots_at + i * layout->slot_size);
}

static void read_names(struct process *process, const struct layout *layout)
{
    process->unknown = must(calloc(layout->value_count + 1, sizeof(*process->unknown)));
    for (size_t i = 0; i < layout->value_count; i++) {
        const struct value *value = &layout->values[i];

        if (value->index == VALUE_UNKNOWN)
            process->unknown[process->unknown_count++] = *value;
        else if (value->kind != VALUE_REASON && value->index != VALUE_REPLACED)
            process->has[value->index] = true;
    }
}

static void add_process(struct search *search, const struct stats_header *header, size_t size)
{
    static struct layout layout;
    struct process *process;

    if (!layout_read(&layout, header, size)) {
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
    read_names(process, &layout);
    read_slots(process, &layout, (const char *)header, size);
}

/* The file is not mapped: if its owner truncated it, an access would raise SIGBUS. */
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
        char bytes[MOST_BYTES];
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
    if (n < offsetof(struct stats_header, names) || file.header.magic != STATS_MAGIC ||
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

/* CONTEXT is a struct search. */
static void read_directory(void *context, DIR *directory)
{
    struct search *search = context;
    struct dirent *entry;
    uint64_t start;
    int pid;

    while ((entry = readdir(directory))) {
        if (stats_parse_name(entry->d_name, &pid, &start) && is_wanted(search, pid))
            read_file(search, dirfd(directory), entry->d_name, pid, start);
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
    places_read(&search.found.places, read_directory, &search);
    if (search.found.count > 0)
        qsort(search.found.list, search.found.count, sizeof(*search.found.list), compare);
    return search.found;
}

void processes_free(struct processes *processes)
{
    for (size_t i = 0; i < processes->count; i++) {
        free(processes->list[i].servers);
        free(processes->list[i].unknown);
        free(processes->list[i].unknown_numbers);
    }
    free(processes->list);
    *processes = (struct processes){0};
}

static struct reason_row known_reason(const struct server *server, enum outcome outcome,
                                      enum reason reason)
{
    const struct numbers *numbers = &server->numbers;

    return (struct reason_row){reason_name(reason), reason_text(reason),
                               outcome == REFUSED ? numbers->refused[reason]
                                                  : numbers->discarded[reason]};
}

static struct reason_row unknown_reason(const struct value *value,
                                        const struct unknown_number *number,
                                        enum outcome outcome)
{
    if (value->kind != VALUE_REASON)
        return (struct reason_row){0};
    return (struct reason_row){value->name, "unknown to this version of mcpool",
                               outcome == REFUSED ? number->value : number->discarded};
}

bool process_next_reason(const struct process *process, const struct server *server,
                         enum outcome outcome, size_t *at, struct reason_row *row)
{
    for (; *at < REASON_COUNT + process->unknown_count; (*at)++) {
        size_t i = *at - REASON_COUNT;

        *row = *at < REASON_COUNT
                   ? known_reason(server, outcome, (enum reason) * at)
                   : unknown_reason(&process->unknown[i], &server->unknown[i], outcome);
        if (row->number > 0)
            return (*at)++, true;
    }
    return false;
}

void numbers_add(struct numbers *to, const struct numbers *from)
{
    for (int i = 0; i < STATS; i++)
        to->stats[i] += from->stats[i];
    for (int i = 0; i < REASON_COUNT; i++) {
        to->refused[i] += from->refused[i];
        to->discarded[i] += from->discarded[i];
    }
    to->all_refused += from->all_refused;
    to->seconds_avoided += from->seconds_avoided;
    to->time_wait_avoided += from->time_wait_avoided;
}

double numbers_hit_rate(const struct numbers *numbers)
{
    uint64_t connects = numbers->stats[STAT_connects];

    return connects > 0 ? 100.0 * (double)numbers->stats[STAT_reused] / (double)connects : 0;
}
