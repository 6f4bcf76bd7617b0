/*
 * Reads the switch file, and trusts it only if this user or root has made it. Any user may make
 * files in /run/mcpool.
 */
#include "stats/switch_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/ownfile.h"
#include "base/rawsys.h"

/* Root, or the user that the process is: all three, as for the file of counters. */
static bool may_command(uid_t owner)
{
    uid_t real = 0, effective = 0, saved = 0;

    if (owner == 0)
        return true;
    return raw_syscall(SYS_getresuid, &real, &effective, &saved) == 0 && owner == real &&
           owner == effective && owner == saved;
}

/* Asked of the fd: what is at the name may be another file by now. */
static bool is_trusted(int fd)
{
    struct stat found = {0};

    return ownfile_identify(fd, &found) && S_ISREG(found.st_mode) &&
           (found.st_mode & (S_IWGRP | S_IWOTH)) == 0 && found.st_nlink == 1 &&
           may_command(found.st_uid);
}

static bool is_for(const struct switch_file *wish, const struct stats_header *self)
{
    return wish->magic == SWITCH_MAGIC && wish->pid == self->pid &&
           wish->start == self->start && wish->pid_namespace == self->pid_namespace &&
           wish->wish < WISHES && wish->endpoint[sizeof(wish->endpoint) - 1] == '\0';
}

bool switch_file_read(const char *name, const struct stats_header *self,
                      struct switch_file *wish)
{
    int fd = ownfile_open(name, O_RDONLY);
    bool good;

    if (fd < 0)
        return false;
    good = is_trusted(fd) &&
           raw_syscall(SYS_read, fd, wish, sizeof(*wish)) == (long)sizeof(*wish) &&
           is_for(wish, self);
    ownfile_close(fd);
    return good;
}
