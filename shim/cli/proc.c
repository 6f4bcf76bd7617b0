/*
 * Reads files in /proc.
 */
#include "cli/proc.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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

bool proc_is_gone(int pid)
{
    return kill(pid, 0) != 0 && errno == ESRCH;
}

/* The mode of the file lets everybody read it; open(2) asks for more (proc(5)). */
int proc_find_mapped(int pid, const char *part, char *path, size_t room)
{
    char name[64], *line = NULL;
    size_t size = 0;
    int found = 0;
    FILE *maps;

    snprintf(name, sizeof(name), "/proc/%d/maps", pid);
    maps = fopen(name, "re");
    if (!maps)
        return -1;
    while (found == 0 && getline(&line, &size, maps) > 0) {
        char *file = strchr(line, '/');

        if (!file || !strstr(file, part))
            continue;
        file[strcspn(file, "\n")] = '\0';
        snprintf(path, room, "%s", file);
        found = 1;
    }
    fclose(maps);
    free(line);
    return found;
}
