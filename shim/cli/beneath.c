/*
 * Opens files below the root of another process, one component after the other.
 */
#include "cli/beneath.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIND_FLAGS (O_PATH | O_NOFOLLOW | O_CLOEXEC)

/* Returns the fd of NAME in the directory at the fd AT, which is closed. */
static int step(int at, const char *name)
{
    int fd = -1;
    struct stat found;

    if (strcmp(name, "..") == 0 || strlen(name) > NAME_MAX)
        errno = EINVAL;
    else
        fd = openat(at, name, FIND_FLAGS);
    /* With O_PATH a link itself can be opened. */
    if (fd >= 0 && (fstat(fd, &found) != 0 || S_ISLNK(found.st_mode))) {
        close(fd);
        fd = -1;
        errno = ELOOP;
    }
    if (at >= 0) {
        int error = errno;

        close(at);
        errno = error;
    }
    return fd;
}

int beneath_find(int root, const char *path)
{
    char copy[PATH_MAX], *rest = copy, *name;
    int at = openat(root, ".", FIND_FLAGS | O_DIRECTORY);

    if ((size_t)snprintf(copy, sizeof(copy), "%s", path) >= sizeof(copy)) {
        if (at >= 0)
            close(at);
        errno = ENAMETOOLONG;
        return -1;
    }
    while (at >= 0 && (name = strsep(&rest, "/"))) {
        if (*name)
            at = step(at, name);
    }
    return at;
}

/* A file that procfs makes has no size; to read it may do something too. */
int beneath_open(int fd, off_t least, struct stat *found)
{
    char path[64];

    if (fstat(fd, found) != 0 || !S_ISREG(found->st_mode) || found->st_size < least)
        return -1;
    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    return open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
}
