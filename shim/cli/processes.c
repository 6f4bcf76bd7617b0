/*
 * Finds and reads the files of counters, and removes those of processes that have ended.
 */
#include "cli/processes.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli/namespaces.h"
#include "cli/printable.h"
#include "cli/proc.h"

/* Limits for what is read of a file: its endpoints, as many as the library has
 * (POOL_ENDPOINTS), and its bytes. No process has more. */
#define MOST_ENDPOINTS 512
#define MOST_BYTES     (8 << 20)

/* Limits for all files of a user together: bytes that are read, and values that are shown. Each
 * endpoint counts as ENDPOINT_COST values. They suffice for several thousand processes, and
 * keep the output near 100 MB. */
#define USER_BYTES    (64 << 20)
#define USER_VALUES   300000
#define ENDPOINT_COST 16

const char *const mode_names[MODE_OFF + 1] = {
    [MODE_ON] = "on", [MODE_DRY] = "dry", [MODE_OFF] = "off"};

struct user {
    uid_t uid;
    size_t bytes;  /* that were read */
    size_t values; /* that are shown */
};

struct search {
    const int *pids;        /* the processes that are asked for */
    size_t pid_count;       /* 0: all processes */
    uint64_t pid_namespace; /* ours; 0 when /proc is not ours: no file is read then */
    struct user *users;     /* the owners of the files */
    size_t user_count;
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

/* Valid until the next call. */
static struct user *find_user(struct search *search, uid_t uid)
{
    for (size_t i = 0; i < search->user_count; i++) {
        if (search->users[i].uid == uid)
            return &search->users[i];
    }
    search->users =
        must(reallocarray(search->users, search->user_count + 1, sizeof(*search->users)));
    search->users[search->user_count] = (struct user){.uid = uid};
    return &search->users[search->user_count++];
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
    proc_read(pid, "status", text, sizeof(text));
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
 * does not count: all processes of a user are in it. Nor does a service above a container,
 * which is that of the runtime. */
static bool find_unit(int pid, char *unit, size_t room)
{
    char text[4096];
    bool found = false;
    char *rest = text;
    char *part;

    proc_read(pid, "cgroup", text, sizeof(text));
    while ((part = strsep(&rest, "/\n"))) {
        size_t n = strlen(part);

        if (namespaces_find_id(part))
            found = false;
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
    proc_read(process->pid, "comm", process->command, sizeof(process->command));
    process->command[strcspn(process->command, "\n")] = '\0';
    if (!find_unit(process->pid, process->service, sizeof(process->service)))
        snprintf(process->service, sizeof(process->service), "%s", process->command);
    make_quotable(process->command);
    make_quotable(process->service);
    namespaces_name_container(process->pid, process->container, sizeof(process->container));
}

/* A file of an older library does not say what was saved. There the mean real connect stands
 * for each reuse, and the product may fall. */
static void add_derived(const struct process *process, struct numbers *numbers)
{
    uint64_t timed = numbers->stats[STAT_connects_timed];
    uint64_t reused = numbers->stats[STAT_reused];

    numbers->seconds_avoided = (double)numbers->stats[STAT_connect_us_avoided] / 1e6;
    if (!process->has[STAT_connect_us_avoided] && timed > 0)
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

static bool has_server(const struct process *process, const char *name)
{
    for (size_t i = 0; i < process->server_count; i++) {
        if (strcmp(process->servers[i].name, name) == 0)
            return true;
    }
    return false;
}

/* Prometheus rejects all metrics when two have the same labels. */
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
    memset(server->name, 0, sizeof(server->name));
    memcpy(server->name, slot + name_at, room);
    make_quotable(server->name);
    if (has_server(process, server->name))
        return;
    server->unknown = process->unknown_numbers + process->server_count * process->unknown_count;
    read_values(server, layout, slot);
    add_derived(process, &server->numbers);
    process->server_count++;
}

static void read_slots(struct process *process, const struct layout *layout, const char *bytes,
                       size_t size)
{
    size_t n = (size - layout->slots_at) / layout->slot_size;

    if (n > MOST_ENDPOINTS)
        n = MOST_ENDPOINTS;
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

static void free_process(struct process *process)
{
    free(process->servers);
    free(process->unknown);
    free(process->unknown_numbers);
}

/* How many values are shown of PROCESS, at most. */
static size_t count_values(const struct process *process, const struct layout *layout)
{
    size_t stats = layout->value_count - layout->reason_count;
    size_t n = ENDPOINT_COST + process->unknown_count;

    for (size_t i = 0; i < process->server_count; i++) {
        const struct server *server = &process->servers[i];
        struct reason_row row;

        n += ENDPOINT_COST + stats;
        for (size_t at = 0; process_next_reason(process, server, REFUSED, &at, &row);)
            n++;
        for (size_t at = 0; process_next_reason(process, server, DISCARDED, &at, &row);)
            n++;
    }
    return n;
}

/* What HEADER says of the family. */
static void read_share(struct process *process, const struct layout *layout,
                       const struct stats_header *header)
{
    process->share = SHARES;
    process->tells_share = layout->tells_share;
    if (!layout->tells_share)
        return;
    if (header->share < SHARES)
        process->share = (enum share)header->share;
    process->family = header->family;
    process->queued = header->queued;
}

/* PID is what we call the process that calls itself header->pid. FOUND is its file. */
static void add_process(struct search *search, struct user *user, int pid,
                        const struct stat *found, const struct stats_header *header,
                        size_t size)
{
    static struct layout layout;
    struct process *process;
    size_t values;

    if (!layout_read(&layout, header, size)) {
        search->found.strange++;
        return;
    }
    search->found.list = must(
        reallocarray(search->found.list, search->found.count + 1, sizeof(*search->found.list)));
    process = &search->found.list[search->found.count];
    memset(process, 0, sizeof(*process));
    process->pid = pid;
    process->inner_pid = header->pid;
    process->start = header->start;
    process->mode = header->mode < MODE_OFF ? (enum mode)header->mode : MODE_OFF;
    process->since = header->since;
    process->owner = found->st_uid;
    process->written = found->st_mtim;
    read_share(process, &layout, header);
    memcpy(process->version, header->version, sizeof(header->version));
    make_quotable(process->version);
    name_process(process);
    read_names(process, &layout);
    read_slots(process, &layout, (const char *)header, size);
    values = count_values(process, &layout);
    if (user->values + values > USER_VALUES) {
        search->found.too_many++;
        free_process(process);
        return;
    }
    user->values += values;
    search->found.count++;
}

/* Reads the bytes of FD from FROM to TO into BYTES, less at the end of the file. Returns where
 * it ended. The file is not mapped: if its owner truncated it, an access would raise SIGBUS. */
static size_t read_bytes(int fd, char *bytes, size_t from, size_t to)
{
    ssize_t more;

    while (from < to && (more = pread(fd, bytes + from, to - from, (off_t)from)) > 0)
        from += (size_t)more;
    return from;
}

/* Where the part of a file ends that is read. */
static size_t end_of(const struct stats_header *header)
{
    uint64_t end = header->header_size + (uint64_t)MOST_ENDPOINTS * header->slot_size;

    return end < MOST_BYTES ? (size_t)end : MOST_BYTES;
}

static bool is_known(const struct search *search, int pid, uint64_t start)
{
    for (size_t i = 0; i < search->found.count; i++) {
        if (search->found.list[i].pid == pid && search->found.list[i].start == start)
            return true;
    }
    return false;
}

/* The part of a file that is read. */
static union {
    struct stats_header header;
    char bytes[MOST_BYTES];
} file;

/* Reads the beginning of FD. Whether it is a file of counters, about RESIDENT. */
static bool read_header(int fd, const struct resident *resident)
{
    return read_bytes(fd, file.bytes, 0, LAYOUT_LEAST) == LAYOUT_LEAST &&
           file.header.magic == STATS_MAGIC &&
           file.header.pid_namespace == resident->pid_namespace &&
           file.header.pid == resident->inner_pid && file.header.start == resident->start;
}

/* Reads the rest of FD, which is FOUND and whose header was read. */
static void read_contents(struct search *search, int fd, const struct stat *found,
                          const struct resident *resident)
{
    struct user *user = find_user(search, found->st_uid);
    size_t n;

    if (user->bytes >= USER_BYTES) {
        search->found.too_many++;
        return;
    }
    n = read_bytes(fd, file.bytes, LAYOUT_LEAST, end_of(&file.header));
    user->bytes += n;
    add_process(search, user, resident->pid, found, &file.header, n);
}

/* Reads FD, the file NAME in DIRECTORY about RESIDENT, which is in our PID namespace. The
 * header tells whether the rest is read at all. A file of another user is never removed. */
static void read_open_file(struct search *search, int fd, int directory, const char *name,
                           const struct resident *resident)
{
    struct stat found;

    if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode) || !read_header(fd, resident))
        return;
    if (proc_start(resident->pid) != resident->start) {
        if (found.st_uid == geteuid())
            unlinkat(directory, name, 0);
        return;
    }
    if (may_speak_for(found.st_uid, resident->pid) &&
        !is_known(search, resident->pid, resident->start))
        read_contents(search, fd, &found, resident);
}

/* Reads FD, a file below the root of RESIDENT. CONTEXT is a struct search. */
static bool read_elsewhere(void *context, const struct resident *resident, int fd,
                           const struct stat *found)
{
    struct search *search = context;

    if (!may_speak_for(found->st_uid, resident->pid) || !read_header(fd, resident))
        return false;
    if (!is_known(search, resident->pid, resident->start))
        read_contents(search, fd, found, resident);
    return true;
}

static void read_file(struct search *search, int directory, const char *name, int pid,
                      uint64_t start)
{
    const struct resident resident = {pid, pid, start, search->pid_namespace};
    int fd = openat(directory, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);

    if (fd < 0) {
        search->found.forbidden += errno == EACCES;
        return;
    }
    read_open_file(search, fd, directory, name, &resident);
    close(fd);
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

    while (search->pid_namespace != 0 && (entry = readdir(directory))) {
        if (stats_parse_name(entry->d_name, &pid, &start) && is_wanted(search, pid))
            read_file(search, dirfd(directory), entry->d_name, pid, start);
    }
}

static int compare(const void *a, const void *b)
{
    const struct process *one = a, *other = b;
    int order = strcmp(one->service, other->service);

    if (order == 0)
        order = strcmp(one->container, other->container);
    if (order == 0)
        order = (int)one->mode - (int)other->mode;
    return order ? order : (one->pid > other->pid) - (one->pid < other->pid);
}

struct processes processes_read(const int *pids, size_t n)
{
    struct search search = {.pids = pids, .pid_count = n};
    struct stat found;

    if (namespaces_have_our_proc() && stat("/proc/self/ns/pid", &found) == 0)
        search.pid_namespace = found.st_ino;
    places_read(&search.found.places, read_directory, &search);
    namespaces_read(pids, n, read_elsewhere, &search);
    if (search.found.count > 0)
        qsort(search.found.list, search.found.count, sizeof(*search.found.list), compare);
    free(search.users);
    return search.found;
}

void processes_free(struct processes *processes)
{
    for (size_t i = 0; i < processes->count; i++) {
        free_process(&processes->list[i]);
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
