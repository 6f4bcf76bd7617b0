/*
 * Chooses the table size and the fd for a new shadow fd.
 */
#include "conn/fdtable.h"

#include <fcntl.h>
#include <limits.h>

#include "conn/fdmap.h"
#include "base/rawsys.h"

/* Spare places, so that as many threads can make a shadow fd at once in the same table. */
#define THREADS_AT_ONCE 4

_Atomic int fdtable_edge = INT_MAX;

/* The size, in fds, of the table in which shadow fds lie. It never shrinks: a program whose fds
 * reached the top quarter once will reach it again. */
static _Atomic int table_size = FDTABLE_LEAST;

static int edge_of(int size)
{
    return size - size / 4;
}

static void use_size(int size)
{
    int seen = atomic_load(&table_size);

    while (size > seen && !atomic_compare_exchange_weak(&table_size, &seen, size))
        ;
    atomic_store(&fdtable_edge, size < limits_fds() ? edge_of(size) : INT_MAX);
}

/* Whether FD is open and no shadow fd. At the edge this tells that its fds have reached the top
 * quarter, even by calls we did not see. */
static bool program_has(int fd)
{
    return !(fdmap_get(fd) & FDMAP_SHADOW) && raw_syscall(SYS_fcntl, fd, F_GETFD) >= 0;
}

/* Duplicates FD within the last ROOM fds of a table of SIZE; 0 when they have no place. */
static long duplicate_within(int size, int fd, int room)
{
    long found;

    if (room > size / 4 || program_has(edge_of(size)))
        return 0;
    found = raw_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, size - room);
    if (found < size)
        return found;
    raw_close((int)found);
    return 0;
}

long fdtable_duplicate(int fd, unsigned int others)
{
    int most = limits_fds();
    int room = others < FDTABLE_MOST ? (int)others + THREADS_AT_ONCE : FDTABLE_MOST;
    long found;

    for (int size = atomic_load(&table_size); size < most; size *= 2) {
        found = duplicate_within(size, fd, room);
        if (found != 0) {
            use_size(size);
            return found;
        }
    }
    use_size(most);
    return raw_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC,
                       room < most / 4 ? most - room : edge_of(most));
}

void fdtable_move_on(int fd)
{
    int size = atomic_load(&table_size);

    while (size < FDTABLE_MOST && fd >= edge_of(size))
        size *= 2;
    use_size(size);
    atomic_store(&fdtable_edge, INT_MAX);
}

void fdtable_after_fork_in_child(void)
{
    atomic_store(&table_size, FDTABLE_LEAST);
    atomic_store(&fdtable_edge, INT_MAX);
}
