/*
 * The choice of a private fd.
 */
#include "conn/fdtable.h"

#include <fcntl.h>
#include <limits.h>

#include "conn/fdmap.h"
#include "base/rawsys.h"

/* How many threads may look for a place at once and find one in the same table. */
#define AT_ONCE 4

_Atomic int fdtable_edge = INT_MAX;

/* The size of the table in which private fds lie. It never gets smaller: a program whose fds
 * came near once will come near again. */
static _Atomic int table_size = FDTABLE_LEAST;

static int edge_of(int size)
{
    return size - size / 4;
}

static void use(int size)
{
    int seen = atomic_load(&table_size);

    while (size > seen && !atomic_compare_exchange_weak(&table_size, &seen, size))
        ;
    atomic_store(&fdtable_edge, size < limits_fds() ? edge_of(size) : INT_MAX);
}

/* If the program has an fd there, its fds have come near, by calls that may be unseen. */
static bool is_taken(int fd)
{
    return !(fdmap_get(fd) & FDMAP_SHADOW) && raw_syscall(SYS_fcntl, fd, F_GETFD) >= 0;
}

/* In a table of SIZE entries; 0 when there is no place for it. */
static long duplicate_within(int size, int fd, int room)
{
    long found;

    if (room > size / 4 || is_taken(edge_of(size)))
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
    int room = others < FDTABLE_MOST ? (int)others + AT_ONCE : FDTABLE_MOST;
    long found;

    for (int size = atomic_load(&table_size); size < most; size *= 2) {
        found = duplicate_within(size, fd, room);
        if (found != 0) {
            use(size);
            return found;
        }
    }
    use(most);
    return raw_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC,
                       room < most / 4 ? most - room : edge_of(most));
}

void fdtable_move_on(int fd)
{
    int size = atomic_load(&table_size);

    while (size < FDTABLE_MOST && fd >= edge_of(size))
        size *= 2;
    use(size);
    atomic_store(&fdtable_edge, INT_MAX);
}

void fdtable_after_fork_in_child(void)
{
    atomic_store(&table_size, FDTABLE_LEAST);
    atomic_store(&fdtable_edge, INT_MAX);
}
