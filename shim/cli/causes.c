/*
 * Finds out why a process shows no counters: in /proc, as this user may read it.
 */
#include "cli/causes.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "cli/beneath.h"
#include "cli/command.h"
#include "cli/namespaces.h"
#include "cli/printable.h"
#include "cli/proc.h"
#include "config/config.h"

#define MOST_VARIABLES 1024
#define MOST_GROUPS    128
#define MOST_SOCKETS   16384
#define MOST_PEERS     4 /* are named; all are looked at */

/* The process as its files in /proc show it. */
struct subject {
    int pid;
    bool is_elsewhere; /* in other namespaces, or with another root */
    struct config config;
    char servers[128]; /* the value of MCPOOL_SERVERS, printable; empty: not set */
    char runtime[CONFIG_DIRECTORY_SIZE]; /* that of XDG_RUNTIME_DIR; empty: not set */
    bool is_one_user;                    /* real, effective and saved user are the same */
    uid_t uid;                           /* the effective ones */
    gid_t gid;
    gid_t groups[MOST_GROUPS];
    size_t group_count;
};

static void read_settings(struct subject *subject)
{
    static char bytes[256 << 10];
    static char *variables[MOST_VARIABLES + 1];
    size_t n = proc_read(subject->pid, "environ", bytes, sizeof(bytes));
    size_t count = 0;

    for (char *at = bytes; at < bytes + n && count < MOST_VARIABLES; at += strlen(at) + 1) {
        variables[count++] = at;
        if (strncmp(at, "MCPOOL_SERVERS=", 15) == 0)
            snprintf(subject->servers, sizeof(subject->servers), "%s", at + 15);
        else if (strncmp(at, "XDG_RUNTIME_DIR=/", 17) == 0)
            snprintf(subject->runtime, sizeof(subject->runtime), "%s", at + 16);
    }
    variables[count] = NULL;
    make_printable(subject->servers);
    config_read(&subject->config, variables);
}

/* The numbers in the line NAME of /proc/PID/status. */
struct ids {
    unsigned long real, effective, saved;
};

static struct ids find_ids(const char *status, const char *name)
{
    struct ids ids = {UINT32_MAX, UINT32_MAX, UINT32_MAX};
    char *at = strstr(status, name);

    if (!at)
        return ids;
    at += strlen(name);
    ids.real = strtoul(at, &at, 10);
    ids.effective = strtoul(at, &at, 10);
    ids.saved = strtoul(at, &at, 10);
    return ids;
}

static void read_identity(struct subject *subject)
{
    static char status[16 << 10];
    char *at, *end;
    struct ids users;

    proc_read(subject->pid, "status", status, sizeof(status));
    users = find_ids(status, "\nUid:");
    subject->uid = (uid_t)users.effective;
    subject->is_one_user = users.real == users.effective && users.effective == users.saved;
    subject->gid = (gid_t)find_ids(status, "\nGid:").effective;
    at = strstr(status, "\nGroups:");
    if (!at)
        return;
    for (at += strlen("\nGroups:"); subject->group_count < MOST_GROUPS; at = end) {
        unsigned long group = strtoul(at, &end, 10);

        /* strtoul() would go on over the end of the line. */
        if (end == at || memchr(at, '\n', (size_t)(end - at)))
            break;
        subject->groups[subject->group_count++] = (gid_t)group;
    }
}

static bool has_group(const struct subject *subject, gid_t group)
{
    for (size_t i = 0; i < subject->group_count; i++) {
        if (subject->groups[i] == group)
            return true;
    }
    return subject->gid == group;
}

/* Whether the mode of FOUND lets the process make a file there. */
static bool may_write(const struct subject *subject, const struct stat *found)
{
    mode_t wanted = S_IWOTH | S_IXOTH;

    if (subject->uid == 0)
        return true;
    if (subject->uid == found->st_uid)
        wanted <<= 6;
    else if (has_group(subject, found->st_gid))
        wanted <<= 3;
    return (found->st_mode & wanted) == wanted;
}

/* Opens PATH, as the process sees it, with O_PATH; -1 when that fails. OWN: a link at its end
 * is opened itself. */
static int find_seen(const struct subject *subject, const char *path, bool own)
{
    int root, fd;

    if (!subject->is_elsewhere)
        return open(*path ? path : "/", O_PATH | O_CLOEXEC | (own ? O_NOFOLLOW : 0));
    root = namespaces_open_root(subject->pid);
    if (root < 0)
        return -1;
    fd = beneath_find(root, path);
    close(root);
    return fd;
}

/* Whether the file system of the directory at FD can only be read. */
static bool is_read_only(int fd)
{
    struct statvfs system;

    return fstatvfs(fd, &system) == 0 && system.f_flag & ST_RDONLY;
}

/* Why the process cannot make a directory PATH; NULL when it can. */
static const char *obstacle_to_making(const struct subject *subject, const char *path)
{
    char parent[PATH_MAX];
    const char *why = NULL;
    struct stat found;
    int fd;

    snprintf(parent, sizeof(parent), "%s", path);
    *strrchr(parent, '/') = '\0';
    fd = find_seen(subject, parent, false);
    if (fd < 0)
        return "no such directory";
    if (fstat(fd, &found) != 0 || !may_write(subject, &found))
        why = "it cannot be made";
    else if (is_read_only(fd))
        why = "read-only file system";
    close(fd);
    return why;
}

/* Why the process cannot make a file in what is at FD; NULL when it can. */
static const char *obstacle_at(const struct subject *subject, int fd, bool own)
{
    struct stat found;

    if (fstat(fd, &found) != 0)
        return strerror(errno);
    if (!S_ISDIR(found.st_mode))
        return "not a directory, or a link";
    if (own && found.st_uid != subject->uid)
        return "it belongs to another user";
    if (own && found.st_mode & 0077)
        return "other users have access";
    if (!may_write(subject, &found))
        return "it cannot write there";
    return is_read_only(fd) ? "read-only file system" : NULL;
}

/* Why the process cannot make a file in the directory PATH, as it sees it; NULL when it can.
 * OWN: a directory of its user alone, which it makes if it is missing. */
static const char *obstacle(const struct subject *subject, const char *path, bool own)
{
    int fd = find_seen(subject, path, own);
    const char *why;

    if (fd < 0 && errno == ENOENT)
        return own ? obstacle_to_making(subject, path) : "no such directory";
    if (fd < 0 && errno == ELOOP)
        return own ? "not a directory, or a link" : "a link, and mcpool follows none there";
    if (fd < 0)
        return strerror(errno);
    why = obstacle_at(subject, fd, own);
    close(fd);
    return why;
}

/* The directories that the process may use, in its order. */
struct choice {
    char path[CONFIG_DIRECTORY_SIZE + sizeof("/" STATS_SUBDIRECTORY)];
    bool own;
    const char *obstacle;
};

static size_t list_choices(const struct subject *subject, struct choice *choices)
{
    size_t n = 1;

    snprintf(choices[0].path, sizeof(choices[0].path), "%s", subject->config.stats);
    if (subject->config.stats_default && subject->runtime[0])
        snprintf(choices[n++].path, sizeof(choices[0].path), "%s/" STATS_SUBDIRECTORY,
                 subject->runtime);
    if (subject->config.stats_default)
        snprintf(choices[n++].path, sizeof(choices[0].path), STATS_FALLBACK "%u", subject->uid);
    for (size_t i = 0; i < n; i++) {
        make_printable(choices[i].path);
        choices[i].own = i > 0;
        choices[i].obstacle = obstacle(subject, choices[i].path, i > 0);
    }
    return n;
}

/* True when there is a directory in which the process can make its file. Else says why not. */
static bool tell_directories(const struct subject *subject, FILE *to)
{
    struct choice choices[3] = {0};
    size_t n = list_choices(subject, choices);

    for (size_t i = 0; i < n; i++) {
        if (!choices[i].obstacle)
            return true;
    }
    fprintf(to, "    Its user, uid %u, can make no file of counters:\n", subject->uid);
    for (size_t i = 0; i < n; i++)
        fprintf(to, "        %s: %s\n", choices[i].path, choices[i].obstacle);
    fputs("    Set MCPOOL_STATS to a directory that it can write to, for it and for mcpool.\n",
          to);
    return false;
}

/* True when this command looks where the process shows its counters. By default it looks where
 * a process in other namespaces has its own MCPOOL_STATS. */
static bool tell_other_directory(const struct subject *subject, FILE *to)
{
    const char *asked = getenv("MCPOOL_STATS");
    char path[CONFIG_DIRECTORY_SIZE];

    if (!asked || !*asked)
        asked = STATS_DIRECTORY;
    if (subject->is_elsewhere && strcmp(asked, STATS_DIRECTORY) == 0)
        return true;
    if (strcmp(asked, subject->config.stats) == 0)
        return true;
    snprintf(path, sizeof(path), "%s", subject->config.stats);
    make_printable(path);
    if (subject->config.stats_default)
        fputs("    It uses the default directories, and MCPOOL_STATS of this command names "
              "another:\n"
              "    unset it.\n",
              to);
    else
        fprintf(to,
                "    It shows them in %s, and this command looks elsewhere:\n"
                "    MCPOOL_STATS=%s mcpool stat %d\n",
                path, path, subject->pid);
    return false;
}

/* The sockets of the process, and the ports on which its network namespace listens. */
static unsigned long inodes[MOST_SOCKETS];
static size_t inode_count;
static bool listens[UINT16_MAX + 1];

static void read_sockets(int pid)
{
    char path[64], target[64];
    DIR *fds;
    struct dirent *entry;

    snprintf(path, sizeof(path), "/proc/%d/fd", pid);
    fds = opendir(path);
    inode_count = 0;
    while (fds && inode_count < MOST_SOCKETS && (entry = readdir(fds))) {
        ssize_t n = readlinkat(dirfd(fds), entry->d_name, target, sizeof(target) - 1);

        target[n < 0 ? 0 : n] = '\0';
        if (strncmp(target, "socket:[", 8) == 0)
            inodes[inode_count++] = strtoul(target + 8, NULL, 10);
    }
    if (fds)
        closedir(fds);
}

static bool has_socket(unsigned long inode)
{
    for (size_t i = 0; i < inode_count; i++) {
        if (inodes[i] == inode)
            return true;
    }
    return false;
}

/* Fills ADDRESS with the peer at TEXT, as /proc/net/tcp has it: groups of eight hexadecimal
 * digits, each a 32-bit number in the order of this machine. */
static bool parse_peer(const char *text, struct address *address)
{
    struct sockaddr_in6 six = {.sin6_family = AF_INET6};
    struct sockaddr_in four = {.sin_family = AF_INET};
    uint32_t words[4] = {0};
    const char *colon = strchr(text, ':');
    size_t n = colon ? (size_t)(colon - text) / 8 : 0;

    if (n != 1 && n != 4)
        return false;
    for (size_t i = 0; i < n; i++) {
        char digits[9] = "";

        memcpy(digits, text + 8 * i, 8);
        words[i] = (uint32_t)strtoul(digits, NULL, 16);
    }
    memcpy(&six.sin6_addr, words, sizeof(words));
    memcpy(&four.sin_addr, words, sizeof(four.sin_addr));
    six.sin6_port = four.sin_port = htons((uint16_t)strtoul(colon + 1, NULL, 16));
    return n == 1 ? address_from(address, (struct sockaddr *)&four, sizeof(four))
                  : address_from(address, (struct sockaddr *)&six, sizeof(six));
}

/* What the process is connected to. */
struct peers {
    size_t named;   /* connections that its MCPOOL_SERVERS names */
    size_t unnamed; /* those that it does not name, each address once */
    struct address list[MOST_PEERS];
};

static void note_peer(const struct subject *subject, struct peers *peers,
                      const struct address *peer)
{
    if (rules_match(subject->config.rules, subject->config.rule_count, peer)) {
        peers->named++;
        return;
    }
    for (size_t i = 0; i < peers->unnamed; i++) {
        if (address_equal(&peers->list[i], peer))
            return;
    }
    if (peers->unnamed < MOST_PEERS)
        peers->list[peers->unnamed++] = *peer;
}

#define TCP_IS_ESTABLISHED 1
#define TCP_LISTENS        10

/* The fields of a line of /proc/net/tcp that count here. */
enum { LOCAL = 1, PEER, STATE, INODE = 9, FIELDS };

/* Splits LINE at its blanks. False when it has too few fields. */
static bool split(char *line, char **fields)
{
    char *rest = line, *field;
    int n = 0;

    while (n < FIELDS && (field = strsep(&rest, " \n"))) {
        if (*field)
            fields[n++] = field;
    }
    return n == FIELDS && strchr(fields[LOCAL], ':');
}

/* Reads /proc/PID/net/NAME: all connections of its network namespace. Without PEERS it notes
 * the ports that listen; then with PEERS the connections of the process that it did not accept.
 */
static void read_table(const struct subject *subject, const char *name, struct peers *peers)
{
    char path[64], line[512], *fields[FIELDS];
    struct address address;
    FILE *table;

    snprintf(path, sizeof(path), "/proc/%d/net/%s", subject->pid, name);
    table = fopen(path, "re");
    while (table && fgets(line, sizeof(line), table)) {
        unsigned long port, state;

        if (!split(line, fields))
            continue;
        port = strtoul(strchr(fields[LOCAL], ':') + 1, NULL, 16) & UINT16_MAX;
        state = strtoul(fields[STATE], NULL, 16);
        if (!peers)
            listens[port] |= state == TCP_LISTENS;
        else if (state == TCP_IS_ESTABLISHED && !listens[port] &&
                 has_socket(strtoul(fields[INODE], NULL, 10)) &&
                 parse_peer(fields[PEER], &address))
            note_peer(subject, peers, &address);
    }
    if (table)
        fclose(table);
}

static struct peers find_peers(const struct subject *subject)
{
    struct peers peers = {0};

    memset(listens, 0, sizeof(listens));
    read_sockets(subject->pid);
    read_table(subject, "tcp", NULL);
    read_table(subject, "tcp6", NULL);
    read_table(subject, "tcp", &peers);
    read_table(subject, "tcp6", &peers);
    return peers;
}

static void tell_peers(const struct subject *subject, FILE *to)
{
    struct peers peers = find_peers(subject);
    char text[ADDRESS_TEXT_SIZE];

    if (peers.named > 0) {
        fputs(
            "    It is connected to a server that MCPOOL_SERVERS names, and the library has "
            "not\n"
            "    seen that: the connection is older than the program, or was not made through "
            "libc.\n",
            to);
        return;
    }
    fprintf(to,
            "    It has not connected over TCP to a memcached that MCPOOL_SERVERS (%s)\n"
            "    names, or not yet.\n",
            subject->servers[0] ? subject->servers : "11211, the default");
    for (size_t i = 0; i < peers.unnamed; i++) {
        address_text(&peers.list[i], text);
        fprintf(to, "    It is connected to %s, which that does not name.\n", text);
    }
}

/* A refused list of servers leads to the default, which is easily another port. */
static void tell_refused_list(const struct subject *subject, FILE *to)
{
    for (size_t i = 0; i < subject->config.warning_count; i++) {
        if (strncmp(subject->config.warnings[i], "MCPOOL_SERVERS: bad", 19) == 0)
            fprintf(to,
                    "    Its MCPOOL_SERVERS (%s) is not valid, so only port 11211 is "
                    "pooled.\n",
                    subject->servers);
    }
}

static void tell_why(struct subject *subject, FILE *to)
{
    read_settings(subject);
    read_identity(subject);
    if (subject->config.disable)
        fputs("    MCPOOL_DISABLE is on, so nothing is pooled.\n", to);
    else if (subject->config.stats[0] == '\0')
        fputs("    MCPOOL_STATS is off in it.\n", to);
    else if (!subject->is_one_user)
        fputs("    Its real, effective and saved user differ: another user could write to its "
              "file.\n"
              "    It shows counters if it gives up the others before its first connection.\n",
              to);
    else if (tell_other_directory(subject, to) && tell_directories(subject, to)) {
        tell_refused_list(subject, to);
        tell_peers(subject, to);
    }
}

void causes_tell(int pid, FILE *to)
{
    static struct subject subject;
    char path[PATH_MAX + 16];
    int library = proc_find_mapped(pid, "/" LIBRARY, path, sizeof(path)), inner_pid;

    memset(&subject, 0, sizeof(subject));
    subject.pid = pid;
    subject.is_elsewhere = namespaces_has_others(pid, &inner_pid);
    if (proc_is_gone(pid))
        fputs("    There is no such process.\n", to);
    else if (library < 0)
        fputs(geteuid() == 0 ? "    The system does not let root look at it.\n"
                             : "    It is another user's; ask as root.\n",
              to);
    else if (library == 0)
        fprintf(to, "    It does not have the library; `mcpool check %d` says why.\n", pid);
    else
        tell_why(&subject, to);
}
