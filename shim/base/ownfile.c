/*
 * Opens and writes our own files in a way that the program cannot notice.
 */
#include "base/ownfile.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "base/lock.h"
#include "base/rawsys.h"
#include "base/signals.h"

/* A set of signals as the kernel has it, which is smaller than libc's sigset_t. */
#define SET_OF(signal) (UINT64_C(1) << ((signal)-1))

static const uint64_t raised_by_writes = SET_OF(SIGPIPE) | SET_OF(SIGXFSZ);

/* The fds that our files have at this moment, each plus 1. A child that another thread forks
 * inherits them, and closes those that are noted here. */
#define OPEN_MOST 8

static _Atomic int open_now[OPEN_MOST];

/* Held while a file is opened or closed and open_now is changed, and by a thread in fork(). So
 * a child finds each fd that it inherits in open_now. See concurrency.md, order of locks, 3. */
static struct lock changing;

bool ownfile_begin(struct ownfile *own)
{
    if (!signals_block_all(&own->mask))
        return false;
    own->pending = 0;
    /* A signal that was not blocked cannot have been pending. */
    if (own->mask & raised_by_writes)
        raw_syscall(SYS_rt_sigpending, &own->pending, sizeof(own->pending));
    return true;
}

/* Discards a SIGPIPE or SIGXFSZ that our write raised. The kernel raises it for the thread that
 * writes, and sigtimedwait() takes a signal of the thread before one of the process. */
static void discard_raised(uint64_t pending)
{
    uint64_t ours = raised_by_writes & ~pending;
    struct timespec at_once = {0, 0};

    raw_syscall(SYS_rt_sigtimedwait, &ours, NULL, &at_once, sizeof(ours));
}

void ownfile_end(const struct ownfile *own, long result, size_t n)
{
    if (result == -EPIPE || result == -EFBIG || (result >= 0 && (size_t)result < n))
        discard_raised(own->pending);
    signals_restore(own->mask);
}

static int open_above_standard_fds(int directory, const char *path, int flags)
{
    long opened = raw_syscall(SYS_openat, directory, path,
                              flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
    long moved;

    if (opened < 0 || opened > STDERR_FILENO)
        return (int)opened;
    moved = raw_syscall(SYS_fcntl, opened, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    raw_syscall(SYS_close, opened);
    return (int)moved;
}

/* Does nothing when no entry is FROM: more than OPEN_MOST fds at once are not noted. */
static void replace_note(int from, int to)
{
    for (int i = 0; i < OPEN_MOST; i++) {
        int found = from;

        if (atomic_compare_exchange_strong(&open_now[i], &found, to))
            return;
    }
}

/* Returns whether let_forks_in() has to release the lock. If a fork takes longer than we wait
 * for the lock, its child may inherit an fd of ours and keep it until it execs. */
static bool keep_forks_out(void)
{
    return !lock_is_mine(&changing) && lock_acquire(&changing);
}

static void let_forks_in(bool locked)
{
    if (locked)
        lock_release(&changing);
}

int ownfile_open_at(int directory, const char *path, int flags)
{
    bool locked = keep_forks_out();
    int fd = open_above_standard_fds(directory, path, flags);

    if (fd >= 0)
        replace_note(0, fd + 1);
    let_forks_in(locked);
    return fd;
}

int ownfile_open(const char *path, int flags)
{
    return ownfile_open_at(AT_FDCWD, path, flags);
}

void ownfile_close(int fd)
{
    bool locked = keep_forks_out();

    replace_note(fd + 1, 0);
    raw_syscall(SYS_close, fd);
    let_forks_in(locked);
}

void ownfile_before_fork(void)
{
    (void)lock_acquire(&changing);
}

void ownfile_after_fork_in_parent(void)
{
    if (lock_is_mine(&changing))
        lock_release(&changing);
}

void ownfile_after_fork_in_child(void)
{
    atomic_store(&changing.word, 0);
    for (int i = 0; i < OPEN_MOST; i++) {
        int fd = atomic_exchange(&open_now[i], 0) - 1;

        if (fd >= 0)
            raw_syscall(SYS_close, fd);
    }
}

bool ownfile_may_grow(uint64_t size)
{
    struct rlimit limit = {0};

    return raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) == 0 &&
           limit.rlim_cur >= size;
}

bool ownfile_identify(int fd, struct stat *found)
{
    return raw_syscall(SYS_newfstatat, fd, "", found, AT_EMPTY_PATH) == 0;
}
