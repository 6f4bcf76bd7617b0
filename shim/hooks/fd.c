/*
 * How a number ends, or gets a twin.
 */
#include "hooks/hooks.h"

#include "pool/swap.h"
#include "base/rawsys.h"

#include <linux/close_range.h>
#include <pthread.h>
#include <sys/resource.h>
#include <unistd.h>

#include "base/unwind.h"

static int close_tracked(int fd, uint32_t word, int (*real)(int fd))
{
    struct check_in check_in;
    int result;

    if (word & FDMAP_SHADOW && owner_is_this_process() && track_close_shadow(fd)) {
        errno = EBADF;
        return -1;
    }
    pthread_testcancel();
    if (check_in_begin(&check_in, fd, word)) {
        result = real(fd);
        check_in_end(&check_in);
        return result;
    }
    if (!check_in.forgotten)
        track_forget(fd);
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

static struct conn *about_to_duplicate(int fd)
{
    swap_for_new(fd);
    return track_share(fd);
}

HOOKED int dup(int fd)
{
    struct conn *conn = PLAIN(fd) ? NULL : about_to_duplicate(fd);
    int result;

    result = real_dup(fd);
    if (hook_should_retry(result))
        result = real_dup(fd);
    track_lowest_fd(result);
    return hook_duplicated(fd, conn, result);
}

/* Whether the kernel will put a duplicate of FD at TO, which is open, and with these FLAGS. */
static bool will_replace(int fd, int to, int flags)
{
    struct rlimit limit;
    int saved = errno;
    bool will = fd != to && (flags & ~O_CLOEXEC) == 0 && real_fcntl(fd, F_GETFD) >= 0 &&
                getrlimit(RLIMIT_NOFILE, &limit) == 0 && (rlim_t)to < limit.rlim_cur;

    errno = saved;
    return will;
}

/* A duplicate over a number closes what was there, so that is a check-in; but only if there
 * will be a duplicate. */
int hook_replace(int fd, int to, int flags, int (*real)(int fd, int to, int flags))
{
    struct check_in check_in;
    bool forgotten = false, kept = false, is_shadow = false;
    struct conn *conn = fd == to || PLAIN(fd) ? NULL : about_to_duplicate(fd);
    uint32_t word = fdmap_word(to);
    int result;

    if (word != FDMAP_NONE && will_replace(fd, to, flags)) {
        kept = check_in_begin(&check_in, to, word);
        forgotten = !kept;
        is_shadow = forgotten && !check_in.forgotten && track_forget(to);
    }
    result = real(fd, to, flags);
    if (kept && result == to)
        check_in_end(&check_in);
    else if (kept)
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

/* Before commands that fcntl_done() refuses or counts. Returns the connection that is about to
 * be duplicated. */
static struct conn *before_fcntl(int fd, int command)
{
    if (command == F_DUPFD)
        return about_to_duplicate(fd);
    if (command == F_DUPFD_CLOEXEC) {
        swap_for_new_unless_sure(fd);
        return track_share(fd);
    }
    if (command == F_SETOWN || command == F_SETOWN_EX || command == F_SETSIG)
        swap_for_new_if_possible(fd);
    return NULL;
}

/* Commands that make signals come cannot be undone by us. The streams of stdio are at the
 * lowest fds, and may speak unseen. */
static int fcntl_done(int fd, int command, struct conn *conn, int result)
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
        if (result != -1 && !PLAIN(fd))
            track_refuse(fd, REASON_ODD_FLAGS);
        return result;
    default:
        return result;
    }
}

/* The flags of a connection, which are ours to keep. */
static int set_flags(int fd, int command, void *argument, int (*real)(int, int, ...))
{
    bool asynchronous = command == F_SETFL && (long)argument & O_ASYNC;
    struct conn *conn;
    int result;

    if (asynchronous)
        swap_for_new_if_possible(fd);
    conn = track_flags_begin(fd);
    result = real(fd, command, argument);
    if (!conn)
        return result;
    if (result == 0 && asynchronous)
        track_refuse(fd, REASON_ODD_FLAGS);
    conn_put(conn, CONN_CALL_OTHER);
    return result;
}

/* The program asks for the lowest free fd from FROM on. If private fds are in the way, they are
 * given up. This is done before the call: to close a wrong duplicate after it would release the
 * program's record locks on the file (fcntl(2)). */
static void make_way(int from)
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
    if (fd == from)
        discard_idle(REASON_FD_PRESSURE);
}

/* Whether COMMAND has an effect on us also when its fd is not tracked. */
static inline bool matters_everywhere(int command)
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

/* Only duplicates can fail for want of fds. */
static __attribute__((noinline)) int tracked_fcntl(int fd, int command, void *argument,
                                                   int (*real)(int, int, ...))
{
    struct conn *conn = NULL;
    int result;

    if (!PLAIN(fd)) {
        if (command == F_SETFL || command == F_SETFD)
            return set_flags(fd, command, argument, real);
        conn = before_fcntl(fd, command);
    }
    if (command == F_DUPFD || command == F_DUPFD_CLOEXEC)
        make_way((int)(long)argument);
    result = real(fd, command, argument);
    if (hook_should_retry(result))
        result = real(fd, command, argument);
    return fcntl_done(fd, command, conn, result);
}

HOOKED int fcntl(int fd, int command, ...)
{
    void *argument = VARIADIC(command);

    if (PLAIN(fd) && !matters_everywhere(command))
        return real_fcntl(fd, command, argument);
    return tracked_fcntl(fd, command, argument, real_fcntl);
}
HOOKED_ALIAS(__fcntl, fcntl);

HOOKED int fcntl64(int fd, int command, ...)
{
    void *argument = VARIADIC(command);

    if (PLAIN(fd) && !matters_everywhere(command))
        return real_fcntl64(fd, command, argument);
    return tracked_fcntl(fd, command, argument, real_fcntl64);
}

/* Whether the kernel takes such a call, asked with a range in which no fd can be: Linux before
 * 5.9 has no close_range(), before 5.11 no CLOSE_RANGE_CLOEXEC, and a seccomp filter may refuse
 * either. */
static bool can_close_range(int flags,
                            int (*real)(unsigned int first, unsigned int last, int flags))
{
    int saved = errno;
    bool can = real(~0U, ~0U, flags & ~(int)CLOSE_RANGE_UNSHARE) == 0;

    errno = saved;
    return can;
}

/* Idle connections are closed before the table of fds is copied: another thread keeps the old
 * table, in which they could not be closed any more. Whether track_bulk_closed() is due after
 * the call. */
static bool before_close_range(unsigned int first, unsigned int last, int flags)
{
    if (flags & (int)CLOSE_RANGE_UNSHARE)
        discard_idle(REASON_NAMESPACE);
    if (!(flags & (int)CLOSE_RANGE_CLOEXEC))
        return track_forget_range(first, last);
    track_flags_range(first, last);
    return false;
}

/* A signal handler jumped out of the bulk close, which may block in the close of a socket with
 * SO_LINGER: the kernel is done with it all the same. */
static void left_bulk_close(void *closed)
{
    track_bulk_closed(*(const bool *)closed);
}

int hook_close_range(unsigned int first, unsigned int last, int flags,
                     int (*real)(unsigned int first, unsigned int last, int flags))
{
    struct _pthread_cleanup_buffer left;
    bool noted = first <= last && owner_is_this_process() && can_close_range(flags, real);
    bool closed = true;
    int result;

    if (noted && before_close_range(first, last, flags)) {
        _pthread_cleanup_push(&left, left_bulk_close, &closed);
        result = real(first, last, flags);
        closed = result == 0;
        _pthread_cleanup_pop(&left, 1);
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
    struct _pthread_cleanup_buffer left;
    bool closed = true;

    if (!track_forget_range(first < 0 ? 0 : (unsigned int)first, ~0U)) {
        real_closefrom(first);
        return;
    }
    _pthread_cleanup_push(&left, left_bulk_close, &closed);
    real_closefrom(first);
    _pthread_cleanup_pop(&left, 1);
}

/* Stdio reads and writes past us, in pieces the program never sees. */
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
    if (!PLAIN(fd))
        track_forget(fd);
    return real_fclose(stream);
}
HOOKED_ALIAS(_IO_fclose, fclose);
