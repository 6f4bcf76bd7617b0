/*
 * Processes in other PID namespaces, in other mount namespaces, or with another root, such as
 * those of containers. Their files of counters are not where this command finds its own ones,
 * and have other pids in their names. If /proc is not ours, all processes count as such.
 */
#ifndef MCPOOL_NAMESPACES_H
#define MCPOOL_NAMESPACES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

/* A process as its own namespaces have it. */
struct resident {
    int pid;                /* in our PID namespace */
    int inner_pid;          /* in its own */
    uint64_t start;         /* in clock ticks since boot */
    uint64_t pid_namespace; /* the inode of its own */
};

/* Whether /proc is that of our PID namespace. Else it names even the processes that share all
 * namespaces with this command by other pids than their files do. */
bool namespaces_have_our_proc(void);

/* Calls READ with each such process, and with an fd of the file that has the name of its
 * counters: a regular file with the size of a header at least, FOUND. Nothing else is known of
 * it. It was found below the root of the process, in the directories that the process may use,
 * without following a link. READ returns whether that was the file. The N pids at PIDS are
 * looked at; if N is 0, all processes. */
void namespaces_read(const int *pids, size_t n,
                     bool (*read)(void *context, const struct resident *resident, int fd,
                                  const struct stat *found),
                     void *context);

/* Whether the process PID is such a process. False when that cannot be read. Fills INNER_PID
 * with its pid in its own PID namespace. */
bool namespaces_has_others(int pid, int *inner_pid);

/* Opens the root of the process PID; -1 when that is not allowed. */
int namespaces_open_root(int pid);

/* The last ID of a container in TEXT, which is the path of a control group; NULL without one.
 */
const char *namespaces_find_id(const char *text);

/* Fills NAME, which is printable, with the name of the container of the process PID: its host
 * name, and the first digits of its ID. Empty when the process is in none. */
void namespaces_name_container(int pid, char *name, size_t room);

#endif
