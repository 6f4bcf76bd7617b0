/*
 * Opens the directories that may hold files of counters.
 */
#include "cli/places.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ANY_USER    ((uid_t)-1)
#define OPEN_FLAGS  (O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY)
#define USERS       "/run/user"
#define FALLBACK_IN "/tmp"

/* A directory that was read. */
struct visited {
    dev_t dev;
    ino_t ino;
};

struct visit {
    struct places *places;
    void (*read)(void *context, DIR *directory);
    void *context;
    struct visited *visited;
    size_t visited_count;
};

__attribute__((format(printf, 3, 4))) static void note(struct places *places, const char *path,
                                                       const char *format, ...)
{
    struct place *place = &places->list[places->count];
    va_list args;

    if (places->count == PLACES_MOST)
        return;
    places->count++;
    snprintf(place->path, sizeof(place->path), "%s", path);
    va_start(args, format);
    vsnprintf(place->state, sizeof(place->state), format, args);
    va_end(args);
}

/* Whether the directory FOUND was read before. Notes that it is read now. */
static bool is_read_before(struct visit *visit, const struct stat *found)
{
    struct visited *more;

    for (size_t i = 0; i < visit->visited_count; i++) {
        if (visit->visited[i].dev == found->st_dev && visit->visited[i].ino == found->st_ino)
            return true;
    }
    more = reallocarray(visit->visited, visit->visited_count + 1, sizeof(*more));
    if (!more) {
        perror("mcpool");
        exit(EXIT_FAILURE);
    }
    visit->visited = more;
    more[visit->visited_count++] = (struct visited){found->st_dev, found->st_ino};
    return false;
}

/* Whether FOUND is a directory that the library would use for the user OWNER. If not, notes
 * why. */
static bool is_of(struct places *places, const char *path, const struct stat *found,
                  uid_t owner)
{
    if (owner == ANY_USER)
        return true;
    if (found->st_uid != owner)
        note(places, path, "not used: it belongs to uid %u", found->st_uid);
    else if (found->st_mode & 0077)
        note(places, path, "not used: other users have access, mode %04o",
             found->st_mode & 07777);
    else
        return true;
    return false;
}

static void note_failure(struct places *places, const char *path, int error)
{
    if (error == ENOENT)
        note(places, path, "no such directory");
    else if (error == ENOTDIR || error == ELOOP)
        note(places, path, "not used: not a directory, or a link");
    else
        note(places, path, "%s", strerror(error));
}

/* Reads the directory at FD, which is closed. True if there is a directory that can be read,
 * also when it was read before. */
static bool read_fd(struct visit *visit, const char *path, int fd, uid_t owner)
{
    struct stat found;
    DIR *directory;

    if (fstat(fd, &found) != 0 || is_read_before(visit, &found)) {
        close(fd);
        return true;
    }
    if (!is_of(visit->places, path, &found, owner)) {
        close(fd);
        return false;
    }
    directory = fdopendir(fd);
    if (!directory) {
        note_failure(visit->places, path, errno);
        close(fd);
        return false;
    }
    visit->places->opened++;
    visit->read(visit->context, directory);
    closedir(directory);
    return true;
}

/* Opens and reads NAME, below the directory at the fd AT. PATH is its full path, for people. A
 * link is followed only if any user may own the directory. With QUIET, nothing is noted when
 * there is none. */
static bool read_at(struct visit *visit, int at, const char *name, const char *path,
                    uid_t owner, bool quiet)
{
    int fd = openat(at, name, OPEN_FLAGS | (owner == ANY_USER ? 0 : O_NOFOLLOW));

    if (fd >= 0)
        return read_fd(visit, path, fd, owner);
    if (!quiet || errno != ENOENT)
        note_failure(visit->places, path, errno);
    return false;
}

static void read_one(struct visit *visit, const char *path, uid_t owner)
{
    if (read_at(visit, AT_FDCWD, path, path, owner, false))
        note(visit->places, path, "nothing to show");
}

/* The user ID that TEXT is, as printf() writes it. */
static bool parse_uid(const char *text, uid_t *uid)
{
    char *end;
    unsigned long number = strtoul(text, &end, 10);
    char again[24];

    *uid = (uid_t)number;
    snprintf(again, sizeof(again), "%u", *uid);
    return number < UINT32_MAX && strcmp(text, again) == 0;
}

/* Reads what OPEN finds for each entry of the directory PARENT, and notes for PATTERN how many
 * directories that were. */
static void read_all_of(struct visit *visit, const char *parent, const char *pattern,
                        bool (*read_entry)(struct visit *visit, int parent, const char *name))
{
    int fd = open(parent, OPEN_FLAGS);
    DIR *directory = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    size_t n = 0;

    while (directory && (entry = readdir(directory)))
        n += read_entry(visit, dirfd(directory), entry->d_name);
    if (directory)
        closedir(directory);
    else if (fd >= 0)
        close(fd);
    if (n == 0)
        note(visit->places, pattern, "no such directory");
    else
        note(visit->places, pattern, "nothing to show in %zu director%s", n,
             n == 1 ? "y" : "ies");
}

static bool read_runtime_of(struct visit *visit, int parent, const char *name)
{
    char path[64];
    struct stat found;
    uid_t uid;
    bool done = false;
    int user;

    if (!parse_uid(name, &uid))
        return false;
    user = openat(parent, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (user < 0)
        return false;
    snprintf(path, sizeof(path), USERS "/%s/" STATS_SUBDIRECTORY, name);
    if (fstat(user, &found) == 0 && found.st_uid == uid)
        done = read_at(visit, user, STATS_SUBDIRECTORY, path, uid, true);
    close(user);
    return done;
}

static bool read_fallback_of(struct visit *visit, int parent, const char *name)
{
    const char *prefix = strrchr(STATS_FALLBACK, '/') + 1;
    char path[64];
    uid_t uid;

    if (strncmp(name, prefix, strlen(prefix)) != 0 || !parse_uid(name + strlen(prefix), &uid))
        return false;
    snprintf(path, sizeof(path), STATS_FALLBACK "%u", uid);
    return read_at(visit, parent, name, path, uid, true);
}

static void read_runtime_directory(struct visit *visit, uid_t user)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    char path[CONFIG_DIRECTORY_SIZE];
    struct stat found;

    if (!runtime || *runtime != '/')
        note(visit->places, "$XDG_RUNTIME_DIR/" STATS_SUBDIRECTORY,
             "XDG_RUNTIME_DIR is not set");
    else if (lstat(runtime, &found) == 0 && found.st_uid != user)
        note(visit->places, runtime, "not used: it belongs to uid %u", found.st_uid);
    else if (snprintf(path, sizeof(path), "%s/" STATS_SUBDIRECTORY, runtime) <
             (int)sizeof(path))
        read_one(visit, path, user);
}

void places_read(struct places *places, void (*read)(void *context, DIR *directory),
                 void *context)
{
    struct visit visit = {places, read, context, NULL, 0};
    const char *asked = getenv("MCPOOL_STATS");
    uid_t user = geteuid();
    char path[sizeof(STATS_FALLBACK) + 10];

    if (asked && *asked == '/' && strcmp(asked, STATS_DIRECTORY) != 0) {
        read_one(&visit, asked, ANY_USER);
        free(visit.visited);
        return;
    }
    read_one(&visit, STATS_DIRECTORY, ANY_USER);
    if (user == 0) {
        read_all_of(&visit, USERS, USERS "/*/" STATS_SUBDIRECTORY, read_runtime_of);
        read_all_of(&visit, FALLBACK_IN, STATS_FALLBACK "*", read_fallback_of);
        if (getenv("XDG_RUNTIME_DIR"))
            read_runtime_directory(&visit, user);
    } else {
        read_runtime_directory(&visit, user);
        snprintf(path, sizeof(path), STATS_FALLBACK "%u", user);
        read_one(&visit, path, user);
    }
    free(visit.visited);
}

void places_tell(const struct places *places, FILE *to)
{
    bool asked = places->count == 1;

    fprintf(to, "mcpool: uid %u looked into\n", geteuid());
    for (size_t i = 0; i < places->count; i++)
        fprintf(to, "    %s: %s\n", places->list[i].path, places->list[i].state);
    fputs("    below /proc/PID/root of each process in other namespaces: nothing to show\n",
          to);
    if (asked)
        fputs("    MCPOOL_STATS names it. Without that variable, mcpool looks into the default "
              "ones.\n",
              to);
    fputs("    A process shows counters from its first connection to a pooled server on.\n"
          "    `mcpool check PID` says why it shows none.\n",
          to);
    if (places->opened == 0)
        fputs("    If it can write to no directory, set MCPOOL_STATS to one for it and for "
              "mcpool.\n",
              to);
    if (geteuid() != 0)
        fputs("    Only root sees the processes of other users.\n", to);
}
