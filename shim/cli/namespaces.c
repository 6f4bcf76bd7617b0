/*
 * Finds the processes in other namespaces, the files of their counters, and the names of their
 * containers.
 */
#include "cli/namespaces.h"

#include <ctype.h>
#include <dirent.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cli/beneath.h"
#include "cli/command.h"
#include "cli/printable.h"
#include "cli/proc.h"
#include "config/config.h"
#include "stats/stats_file.h"

/* An ID is SHA-256 in hexadecimal digits. Docker and crictl show twelve of them. */
#define ID_DIGITS       64
#define ID_DIGITS_SHOWN 12

/* What a process shares with others. */
struct view {
    ino_t pids, mounts, hosts;
    dev_t root_dev;
    ino_t root;
};

static bool read_view(const char *process, struct view *view)
{
    char path[64];
    struct stat found[4];
    static const char *const names[] = {"ns/pid", "ns/mnt", "ns/uts", "root"};

    for (int i = 0; i < 4; i++) {
        snprintf(path, sizeof(path), "/proc/%s/%s", process, names[i]);
        if (stat(path, &found[i]) != 0)
            return false;
    }
    *view = (struct view){found[0].st_ino, found[1].st_ino, found[2].st_ino, found[3].st_dev,
                          found[3].st_ino};
    return true;
}

/* The view of this command; NULL when it cannot be read. */
static const struct view *our_view(void)
{
    static struct view ours;
    static bool is_read;

    is_read = is_read || read_view("self", &ours);
    return is_read ? &ours : NULL;
}

/* Fills VIEW with that of the process PID, and *ELSEWHERE with whether its files are not where
 * this command finds its own ones. False when that cannot be read. */
static bool compare_view(int pid, struct view *view, bool *elsewhere)
{
    const struct view *ours = our_view();
    char name[16];

    snprintf(name, sizeof(name), "%d", pid);
    if (!ours || !read_view(name, view))
        return false;
    *elsewhere = view->pids != ours->pids || view->mounts != ours->mounts ||
                 view->root != ours->root || view->root_dev != ours->root_dev;
    return true;
}

bool namespaces_have_our_proc(void)
{
    char target[16];
    ssize_t n = readlink("/proc/self", target, sizeof(target) - 1);

    target[n < 0 ? 0 : n] = '\0';
    return strtol(target, NULL, 10) == getpid();
}

/* The last number in the line "NSpid:"; 0 without that line. */
static int find_inner_pid(int pid)
{
    char text[4096];
    char *at;
    int inner = 0;

    proc_read(pid, "status", text, sizeof(text));
    at = strstr(text, "\nNSpid:");
    if (!at)
        return 0;
    at += strlen("\nNSpid:");
    at[strcspn(at, "\n")] = '\0';
    for (char *end; *at; at = end) {
        long number = strtol(at, &end, 10);

        if (end == at)
            break;
        inner = (int)number;
    }
    return inner;
}

bool namespaces_has_others(int pid, int *inner_pid)
{
    struct view view;
    bool elsewhere;

    *inner_pid = find_inner_pid(pid);
    return compare_view(pid, &view, &elsewhere) && elsewhere;
}

int namespaces_open_root(int pid)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/%d/root", pid);
    return open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
}

/* The directories that a process may use. */
struct candidates {
    char list[4][CONFIG_DIRECTORY_SIZE + sizeof("/" STATS_SUBDIRECTORY)];
    size_t count;
};

/* The user of the process PID as its user namespace calls it. A line of uid_map has the first
 * ID in that namespace, the first one in ours, and how many there are. */
static unsigned long find_inner_user(int pid)
{
    char text[4096];
    unsigned long user;
    char *at;

    proc_read(pid, "status", text, sizeof(text));
    at = strstr(text, "\nUid:");
    user = at ? strtoul(at + strlen("\nUid:"), NULL, 10) : 0;
    proc_read(pid, "uid_map", text, sizeof(text));
    for (at = text; *at; at += strspn(at, " \n")) {
        unsigned long inner = strtoul(at, &at, 10);
        unsigned long outer = strtoul(at, &at, 10);
        unsigned long n = strtoul(at, &at, 10);

        if (user >= outer && user - outer < n)
            return inner + user - outer;
        if (n == 0)
            break;
    }
    return user;
}

static void list_candidates(int pid, struct candidates *candidates)
{
    static char bytes[128 << 10];
    const char *asked = getenv("MCPOOL_STATS"), *own = "", *runtime = "";
    size_t n;

    candidates->count = 0;
#define ADD(...)                                                                               \
    snprintf(candidates->list[candidates->count++], sizeof(candidates->list[0]), __VA_ARGS__)
    if (asked && *asked == '/' && strcmp(asked, STATS_DIRECTORY) != 0) {
        ADD("%s", asked);
        return;
    }
    n = proc_read(pid, "environ", bytes, sizeof(bytes));
    for (const char *at = bytes; at < bytes + n; at += strlen(at) + 1) {
        if (strncmp(at, "MCPOOL_STATS=/", 14) == 0)
            own = at + 13;
        else if (strncmp(at, "XDG_RUNTIME_DIR=/", 17) == 0)
            runtime = at + 16;
    }
    if (*own)
        ADD("%s", own);
    ADD(STATS_DIRECTORY);
    if (*runtime)
        ADD("%s/" STATS_SUBDIRECTORY, runtime);
    ADD(STATS_FALLBACK "%lu", find_inner_user(pid));
#undef ADD
}

struct scan {
    bool all; /* also processes that are not elsewhere */
    bool (*read)(void *context, const struct resident *resident, int fd,
                 const struct stat *found);
    void *context;
};

/* Reads the file of RESIDENT in DIRECTORY, below ROOT. */
static bool read_in(const struct scan *scan, const struct resident *resident, int root,
                    const char *directory)
{
    char path[PATH_MAX];
    struct stat found;
    int place, fd;
    bool done = false;

    snprintf(path, sizeof(path), "%s/%d-%" PRIu64, directory, resident->inner_pid,
             resident->start);
    place = beneath_find(root, path);
    if (place < 0)
        return false;
    fd = beneath_open(place, offsetof(struct stats_header, names), &found);
    if (fd >= 0) {
        done = scan->read(scan->context, resident, fd, &found);
        close(fd);
    }
    close(place);
    return done;
}

static void read_process(const struct scan *scan, int pid)
{
    struct resident resident = {.pid = pid};
    struct candidates candidates;
    struct view view;
    bool elsewhere;
    int root;

    if (!compare_view(pid, &view, &elsewhere) || (!elsewhere && !scan->all))
        return;
    resident.pid_namespace = view.pids;
    resident.start = proc_start(pid);
    resident.inner_pid = find_inner_pid(pid);
    root = namespaces_open_root(pid);
    if (resident.inner_pid > 0 && resident.start > 0 && root >= 0) {
        list_candidates(pid, &candidates);
        for (size_t i = 0; i < candidates.count; i++) {
            if (read_in(scan, &resident, root, candidates.list[i]))
                break;
        }
    }
    if (root >= 0)
        close(root);
}

void namespaces_read(const int *pids, size_t n,
                     bool (*read)(void *context, const struct resident *resident, int fd,
                                  const struct stat *found),
                     void *context)
{
    const struct scan scan = {!namespaces_have_our_proc(), read, context};
    struct dirent *entry;
    DIR *all;
    int pid;

    for (size_t i = 0; i < n; i++)
        read_process(&scan, pids[i]);
    all = n == 0 ? opendir("/proc") : NULL;
    while (all && (entry = readdir(all))) {
        if (parse_pid(entry->d_name, &pid))
            read_process(&scan, pid);
    }
    if (all)
        closedir(all);
}

const char *namespaces_find_id(const char *text)
{
    const char *found = NULL;

    while (*text) {
        size_t n = strspn(text, "0123456789abcdef");

        if (n == ID_DIGITS)
            found = text;
        text += n + (text[n] != '\0');
    }
    return found;
}

/* Fills HOST with the first line of /etc/hostname, as the process PID sees it. */
static void read_host(int pid, char *host, size_t room)
{
    int root = namespaces_open_root(pid);
    int place = root < 0 ? -1 : beneath_find(root, "/etc/hostname");
    struct stat found;
    int fd = place < 0 ? -1 : beneath_open(place, 1, &found);
    ssize_t n = fd < 0 ? 0 : read(fd, host, room - 1);

    host[n < 0 ? 0 : n] = '\0';
    host[strcspn(host, "\n")] = '\0';
    make_quotable(host);
    if (fd >= 0)
        close(fd);
    if (place >= 0)
        close(place);
    if (root >= 0)
        close(root);
}

void namespaces_name_container(int pid, char *name, size_t room)
{
    char id[ID_DIGITS_SHOWN + 1] = "", host[65] = "", text[4096];
    const char *found;
    struct view view;
    bool elsewhere;

    name[0] = '\0';
    if (!compare_view(pid, &view, &elsewhere) || !elsewhere)
        return;
    proc_read(pid, "cgroup", text, sizeof(text));
    found = namespaces_find_id(text);
    if (found)
        snprintf(id, sizeof(id), "%.*s", ID_DIGITS_SHOWN, found);
    if (view.hosts != our_view()->hosts)
        read_host(pid, host, sizeof(host));
    if (host[0] && id[0] && strncmp(host, id, ID_DIGITS_SHOWN) != 0)
        snprintf(name, room, "%s/%s", host, id);
    else if (host[0] || id[0])
        snprintf(name, room, "%s", id[0] ? id : host);
    else if (view.pids != our_view()->pids)
        snprintf(name, room, "pid:[%" PRIu64 "]", (uint64_t)view.pids);
}
