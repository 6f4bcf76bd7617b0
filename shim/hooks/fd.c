/*
 * How an fd ends or is duplicated: close(), dup(), fcntl(), close_range(), and stdio streams.
 */
#include "hooks/hooks.h"

#include "hooks/flags.h"

#include "pool/family.h"
#include "pool/swap.h"
#include "base/lock.h"
#include "base/rawsys.h"
#include "conn/waiter.h"

#include <sys/resource.h>
#include <unistd.h>

#include "base/unwind.h"

bool hook_is_hidden(int fd)
{
    uint32_t word = fdmap_word(fd);
    bool hidden = word & FDMAP_SHADOW && track_is_hidden(fd, word);

    if (hidden)
        errno = EBADF;
    return hidden;
}

/* Another thread is in connect() or close() on FD, of which the map says WORD, and is about to
 * put another file there. Waits until that is over, some 10 ms at most: the other call may be
 * one that this thread was in when a signal handler interrupted it. Returns the word then. */
static COLD uint32_t wait_for_other(int fd, uint32_t word)
{
    enum { LOOKS = 100, LOOK_EVERY = 50000 };

    for (int i = 0; i < LOOKS && word & FDMAP_CLOSING && owner_is_this_process(); i++) {
        lock_pause(LOOK_EVERY);
        word = fdmap_get(fd);
    }
    return word;
}

static inline bool has_other(uint32_t word)
{
    return __builtin_expect((word & (FDMAP_CLOSING | FDMAP_SHADOW)) == FDMAP_CLOSING, 0);
}

static inline uint32_t settled(int fd, uint32_t word)
{
    return has_other(word) ? wait_for_other(fd, word) : word;
}

/* Forgets FD, also if another thread has begun a connect() since the word was read. */
static bool forget_settled(int fd)
{
    bool is_shadow = track_forget(fd);
    uint32_t word = fdmap_word(fd);

    if (!has_other(word))
        return is_shadow;
    wait_for_other(fd, word);
    return track_forget(fd);
}

/* The program never got a shadow fd, so its close() of one fails. */
static int close_tracked(int fd, uint32_t word, int (*real)(int fd))
{
    struct check_in check_in;
    int result;

    word = settled(fd, word);
    if (word & FDMAP_SHADOW && owner_is_this_process() && track_close_shadow(fd)) {
        errno = EBADF;
        return -1;
    }
    unwind_testcancel();
    if (check_in_begin(&check_in, fd, word)) {
        result = real(fd);
        check_in_end(&check_in);
        return result;
    }
    /* No thread waits for what is checked in: it has no call in flight. */
    waiter_closing(fd, word);
    if (!check_in.forgotten)
        forget_settled(fd);
    return real(fd);
}

int hook_close(int fd, int (*real)(int fd))
{
    return close_tracked(fd, fdmap_word(fd), real);
}

HOOKED int close(int fd)
{
    uint32_t word = fdmap_word(fd);

    if (UNTRACKED(word))
        return real_close(fd);
    return close_tracked(fd, word, real_close);
}
HOOKED_ALIAS(__close, close);

int hook_duplicated(int fd, struct conn *conn, int result)
{
    track_new_fd(result);
    if (conn || !PLAIN(fd))
        track_duplicated(fd, conn, result);
    return result;
}

static struct conn *before_duplicate(int fd)
{
    swap_for_new(fd);
    return track_share(fd);
}

HOOKED int dup(int fd)
{
    struct conn *conn;
    int result;

    if (hook_is_hidden(fd))
        return -1;
    conn = PLAIN(fd) ? NULL : before_duplicate(fd);
    result = real_dup(fd);
    if (hook_should_retry(result))
        result = real_dup(fd);
    track_lowest_fd(result);
    return hook_duplicated(fd, conn, result);
}

/* Whether dup3(FD, TO, FLAGS), or dup2(), will succeed. TO is open. */
static bool will_succeed(int fd, int to, int flags)
{
    struct rlimit limit;
    int saved = errno;
    bool will = fd != to && (flags & ~O_CLOEXEC) == 0 && real_fcntl(fd, F_GETFD) >= 0 &&
                getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)to < limit.rlim_cur;

    errno = saved;
    return will;
}

/* A duplicate placed at TO closes what TO named, which is a check-in. A call that will fail
 * closes nothing. */
int hook_replace(int fd, int to, int flags, int (*real)(int fd, int to, int flags))
{
    struct check_in check_in;
    bool forgotten = false, checked_in = false, is_shadow = false;
    struct conn *conn;
    uint32_t word = fdmap_word(to);
    int result;

    if (hook_is_hidden(fd))
        return -1;
    conn = fd == to || PLAIN(fd) ? NULL : before_duplicate(fd);
    word = settled(to, word);
    if (word != FDMAP_NONE && will_succeed(fd, to, flags)) {
        waiter_closing(to, word);
        checked_in = check_in_begin(&check_in, to, word);
        forgotten = !checked_in;
        is_shadow = forgotten && !check_in.forgotten && forget_settled(to);
    }
    result = real(fd, to, flags);
    if (checked_in && result == to)
        check_in_end(&check_in);
    else if (checked_in)
        check_in_call_off(&check_in);
    else if (forgotten && result != to && owner_is_this_process())
        track_still_open(to, is_shadow);
    return fd == to ? result : hook_duplicated(fd, conn, result);
}

static int real_dup2_of(int fd, int to, int flags)
{
    (void)flags;
    return real_dup2(fd, to);
}

HOOKED int dup2(int fd, int to)
{
    if (PLAIN(fd) && PLAIN(to))
        return real_dup2(fd, to);
    return hook_replace(fd, to, 0, real_dup2_of);
}
HOOKED_ALIAS(__dup2, dup2);

HOOKED int dup3(int fd, int to, int flags)
{
    if (PLAIN(fd) && PLAIN(to))
        return real_dup3(fd, to, flags);
    return hook_replace(fd, to, flags, real_dup3);
}

/* The part of fcntl() before the real call. Returns the connection that COMMAND duplicates or
 * changes. */
static struct conn *before_fcntl(int fd, int command)
{
    if (command == F_DUPFD)
        return before_duplicate(fd);
    if (command == F_DUPFD_CLOEXEC) {
        swap_for_new_unless_sure(fd);
        return track_share(fd);
    }
    if (command == F_SETOWN || command == F_SETOWN_EX || command == F_SETSIG)
        return track_change_begins(fd);
    return NULL;
}

/* The part of fcntl() after the real call. Commands that ask for signals cannot be undone at
 * check-in. A duplicate at the fd of a stdio stream may move bytes unseen. */
static int after_fcntl(int fd, int command, struct conn *conn, int result)
{
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
        result = hook_duplicated(fd, conn, result);
        if (result >= 0 && result <= STDERR_FILENO && conn)
            swap_for_new(fd);
        return result;
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG:
        track_change_ends(fd, conn, result == 0);
        return result;
    default:
        return result;
    }
}

/* O_NONBLOCK is the only flag of a connection that is pooled. */
static void note_flags(struct flags_change *change, int command, int flags)
{
    if (command == F_SETFD)
        change->fd_flags = flags & FD_CLOEXEC;
    else if (flags & ~(O_ACCMODE | O_NONBLOCK | O_LARGEFILE) || change->flags == CONN_UNKNOWN)
        change->flags = CONN_UNKNOWN;
    else
        change->flags = (change->flags & ~O_NONBLOCK) | (flags & O_NONBLOCK);
}

/* F_SETFL and F_SETFD: check-out and check-in have to know the flags of a connection. */
static int set_flags(int fd, int command, void *argument, int (*real)(int, int, ...))
{
    bool asynchronous = command == F_SETFL && (long)argument & O_ASYNC;
    struct flags_change change;
    int result;

    if (asynchronous)
        swap_for_new_if_possible(fd);
    flags_change_begin(&change, fd);
    result = real(fd, command, argument);
    if (result == 0 && asynchronous)
        track_refuse(fd, REASON_ODD_FLAGS);
    if (result == 0 && change.conn)
        note_flags(&change, command, (int)(long)argument);
    flags_change_end(&change);
    return result;
}

/* The program asks for the lowest free fd from FROM on. If shadow fds are in the way, all of
 * them are given up. Not after the call: to close the wrong duplicate then would release the
 * program's record locks on the file (fcntl(2)). */
static void give_up_shadows_from(int from)
{
    int end = fdmap_end();
    int fd = from;

    if (from < 0 || !owner_is_this_process())
        return;
    while (fd < end && !(fdmap_get(fd) & FDMAP_SHADOW))
        fd++;
    if (fd >= end)
        return;
    while (fd > from && raw_syscall(SYS_fcntl, fd - 1, F_GETFD) >= 0)
        fd--;
    if (fd == from) {
        discard_idle(REASON_FD_PRESSURE);
        family_leave(SHARE_CLOSED);
    }
}

/* Whether COMMAND concerns the library also on an fd that is not tracked. */
static inline bool concerns_any_fd(int command)
{
    switch (command) {
    case F_DUPFD:
    case F_DUPFD_CLOEXEC:
    case F_SETOWN:
    case F_SETOWN_EX:
    case F_SETSIG:
        return true;
    default:
        return false;
    }
}

static __attribute__((noinline)) int tracked_fcntl(int fd, int command, void *argument,
                                                   int (*real)(int, int, ...))
{
    struct conn *conn = NULL;
    int result;

    if (!PLAIN(fd)) {
        if (hook_is_hidden(fd))
            return -1;
        if (command == F_SETFL || command == F_SETFD)
            return set_flags(fd, command, argument, real);
        conn = before_fcntl(fd, command);
    }
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        give_up_shadows_from((int)(long)argument);
    result = real(fd, command, argument);
    if (hook_should_retry(result))
        result = real(fd, command, argument);
    return after_fcntl(fd, command, conn, result);
}

HOOKED int fcntl(int fd, int command, ...)
{
    void *argument = VARIADIC(command);

    if (PLAIN(fd) && !concerns_any_fd(command))
        return real_fcntl(fd, command, argument);
    return tracked_fcntl(fd, command, argument, real_fcntl);
}
HOOKED_ALIAS(__fcntl, fcntl);

HOOKED int fcntl64(int fd, int command, ...)
{
    void *argument = VARIADIC(command);

    if (PLAIN(fd) && !concerns_any_fd(command))
        return real_fcntl64(fd, command, argument);
    return tracked_fcntl(fd, command, argument, real_fcntl64);
}

/* Whether close_range() with FLAGS works here, asked with a range that has no fd. Linux has
 * close_range() since 5.9 and CLOSE_RANGE_CLOEXEC since 5.11; a seccomp filter may refuse
 * either. */
static bool can_close_range(int flags,
                            int (*real)(unsigned int first, unsigned int last, int flags))
{
    int saved = errno;
    bool can = real(~0U, ~0U, flags & ~(int)CLOSE_RANGE_UNSHARE) == 0;

    errno = saved;
    return can;
}

/* Whether track_bulk_closed() has to be called after the call. Idle connections are closed
 * before CLOSE_RANGE_UNSHARE copies the table of fds: other threads keep the old table, in
 * which this thread could not close them any more. */
static bool before_close_range(unsigned int first, unsigned int last, int flags)
{
    if (flags & (int)CLOSE_RANGE_UNSHARE) {
        discard_idle(REASON_NAMESPACE);
        family_leave(SHARE_IDENTITY);
    }
    if (!(flags & (int)CLOSE_RANGE_CLOEXEC))
        return track_forget_range(first, last);
    track_flags_range(first, last);
    return false;
}

/* Cleanup handler: a signal handler has jumped out of the bulk close, which can block on a
 * socket with SO_LINGER. The kernel has finished the call all the same. */
static void end_bulk_close(void *closed)
{
    track_bulk_closed(*(const bool *)closed);
}

int hook_close_range(unsigned int first, unsigned int last, int flags,
                     int (*real)(unsigned int first, unsigned int last, int flags))
{
    struct _pthread_cleanup_buffer cleanup;
    bool noted = first <= last && owner_is_this_process() && can_close_range(flags, real);
    bool closed = true;
    int result;

    if (noted && before_close_range(first, last, flags)) {
        _pthread_cleanup_push(&cleanup, end_bulk_close, &closed);
        result = real(first, last, flags);
        closed = result == 0;
        _pthread_cleanup_pop(&cleanup, 1);
    } else {
        result = real(first, last, flags);
    }
    if (noted && result == 0 && flags & (int)CLOSE_RANGE_UNSHARE)
        track_namespace_lost();
    return result;
}

HOOKED int close_range(unsigned int first, unsigned int last, int flags)
{
    return hook_close_range(first, last, flags, real_close_range);
}

HOOKED void closefrom(int first)
{
    struct _pthread_cleanup_buffer cleanup;
    bool closed = true;

    if (!track_forget_range(first < 0 ? 0 : (unsigned int)first, ~0U)) {
        real_closefrom(first);
        return;
    }
    _pthread_cleanup_push(&cleanup, end_bulk_close, &closed);
    real_closefrom(first);
    _pthread_cleanup_pop(&cleanup, 1);
}

/* Stdio moves bytes past our hooks. */
HOOKED FILE *fdopen(int fd, const char *mode)
{
    FILE *stream;

    if (!PLAIN(fd))
        swap_for_new(fd);
    stream = real_fdopen(fd, mode);
    if (stream && !PLAIN(fd))
        track_refuse(fd, REASON_STDIO);
    return stream;
}
HOOKED_ALIAS(_IO_fdopen, fdopen);

HOOKED int fclose(FILE *stream)
{
    int saved = errno;
    int fd = fileno(stream);

    errno = saved;
    if (!PLAIN(fd)) {
        waiter_closing(fd, fdmap_word(fd));
        track_forget(fd);
    }
    return real_fclose(stream);
}
HOOKED_ALIAS(_IO_fclose, fclose);
