/*
 * Reads files in /proc.
 */
#include "cli/proc.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#include "stats/stats_file.h"

size_t proc_read(int pid, const char *name, char *bytes, size_t room)
{
    char path[64];
    size_t n = 0;
    ssize_t more;
    int fd;

    snprintf(path, sizeof(path), "/proc/%d/%s", pid, name);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    while (fd >= 0 && n < room - 1 && (more = read(fd, bytes + n, room - 1 - n)) > 0)
        n += (size_t)more;
    bytes[n] = '\0';
    if (fd >= 0)
        close(fd);
    return n;
}

uint64_t proc_start(int pid)
{
    char text[1024];
    size_t n = proc_read(pid, "stat", text, sizeof(text));

    return n > 0 ? stats_parse_start(text, n) : 0;
}
