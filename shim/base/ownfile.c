/*
 * Files of our own, opened and written unnoticed.
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

/* The kernel's set of signals, which is smaller than libc's. */
#define SET_OF(signal) (UINT64_C(1) << ((signal)-1))

static const uint64_t raised_by_writes = SET_OF(SIGPIPE) | SET_OF(SIGXFSZ);

/* Fds of ours at this moment, which a child made by another thread inherits, each plus 1. More
 * at once are not noted. */
#define OPEN_MOST 8

static _Atomic int open_now[OPEN_MOST];

/* Held while an fd of ours is opened or closed and the note changes, and by a thread in fork():
 * what a child inherits is noted. */
static struct lock changing;

bool ownfile_begin(struct ownfile *own)
{
    uint64_t all = ~UINT64_C(0);

    if (raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &all, &own->mask, sizeof(all)) != 0)
        return false;
    own->pending = 0;
    /* What was not blocked before cannot have been pending. */
    if (own->mask & raised_by_writes)
        raw_syscall(SYS_rt_sigpending, &own->pending, sizeof(own->pending));
    return true;
}

/* The kernel raises them for the thread that writes, and gives such a signal before one that
 * was sent to the process. */
static void take_away(uint64_t pending)
{
    uint64_t ours = raised_by_writes & ~pending;
    struct timespec at_once = {0, 0};

    raw_syscall(SYS_rt_sigtimedwait, &ours, NULL, &at_once, sizeof(ours));
}

void ownfile_end(const struct ownfile *own, long result, size_t n)
{
    if (result == -EPIPE || result == -EFBIG || (result >= 0 && (size_t)result < n))
        take_away(own->pending);
    raw_syscall(SYS_rt_sigprocmask, SIG_SETMASK, &own->mask, NULL, sizeof(own->mask));
}

static int open_above_standard_fds(const char *path, int flags)
{
    long low = raw_syscall(SYS_openat, AT_FDCWD, path,
                           flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);
    long fd;

    if (low < 0 || low > STDERR_FILENO)
        return (int)low;
    fd = raw_syscall(SYS_fcntl, low, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    raw_syscall(SYS_close, low);
    return (int)fd;
}

static void change_note(int from, int to)
{
    for (int i = 0; i < OPEN_MOST; i++) {
        int found = from;

        if (atomic_compare_exchange_strong(&open_now[i], &found, to))
            return;
    }
}

/* A fork that takes longer than the lock's patience is not waited for: its child may then have
 * an fd too many, until it execs. */
static bool keep_forks_out(void)
{
    return !lock_is_mine(&changing) && lock_acquire(&changing);
}

static void let_forks_in(bool locked)
{
    if (locked)
        lock_release(&changing);
}

int ownfile_open(const char *path, int flags)
{
    bool locked = keep_forks_out();
    int fd = open_above_standard_fds(path, flags);

    if (fd >= 0)
        change_note(0, fd + 1);
    let_forks_in(locked);
    return fd;
}

void ownfile_close(int fd)
{
    bool locked = keep_forks_out();

    change_note(fd + 1, 0);
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
