/*
 * Writes the log. The file is opened for each line: the program may close all its fds in a
 * loop, and logs are rotated.
 */
#include "stats/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "base/ownfile.h"
#include "base/rawsys.h"
#include "base/fmt.h"

#define SECOND ((msec_t)1000)

static const struct config *settings;

/* The file that fd 2 was at start-up. */
static struct stat first_stderr;

int log_level = -1;

static bool is_stderr(const struct config *config)
{
    return strcmp(config->log_path, "stderr") == 0;
}

static bool is_same(const struct stat *one, const struct stat *other)
{
    return one->st_dev == other->st_dev && one->st_ino == other->st_ino &&
           (one->st_mode & S_IFMT) == (other->st_mode & S_IFMT) &&
           one->st_rdev == other->st_rdev;
}

void log_start(const struct config *config)
{
    settings = config;
    if (config->log_path[0] == '\0' ||
        (is_stderr(config) && !ownfile_identify(STDERR_FILENO, &first_stderr)))
        log_level = -1;
    else
        log_level = (int)config->log_level;
}

static LARGE struct {
    _Atomic msec_t written;  /* the time of the last line that was; 0 before the first */
    _Atomic uint32_t others; /* lines that were not written since */
} kinds[LOG_KINDS];

bool log_again(unsigned int kind, char *others, size_t room)
{
    msec_t now = clock_now();
    msec_t last = atomic_load(&kinds[kind].written);
    uint32_t n;

    others[0] = '\0';
    if (settings->log_level == LOG_DEBUG)
        return true;
    if ((last != 0 && now - last < SECOND) ||
        !atomic_compare_exchange_strong(&kinds[kind].written, &last, now)) {
        atomic_fetch_add(&kinds[kind].others, 1);
        return false;
    }
    n = atomic_exchange(&kinds[kind].others, 0);
    if (n > 0)
        fmt_print(others, room, "; %u more like this before", n);
    return true;
}

void log_after_fork_in_child(void)
{
    if (log_level < 0)
        return;
    for (unsigned int i = 0; i < LOG_KINDS; i++)
        kinds[i].others = 0;
}

/* Whether the regular file FOUND has room for a line of N bytes. The kernel would cut the line
 * at the limit of file sizes. */
static bool may_grow(const struct stat *found, size_t n)
{
    return ownfile_may_grow((uint64_t)found->st_size + n);
}

/* Whether a write to FD does not wait. A line is shorter than PIPE_BUF (pipe(7)), so a pipe
 * with room takes all of it. */
static bool has_room(int fd)
{
    struct pollfd poller = {fd, POLLOUT, 0};
    struct timespec at_once = {0, 0};

    return raw_syscall(SYS_ppoll, &poller, 1, &at_once, NULL, sizeof(uint64_t)) == 1 &&
           poller.revents == POLLOUT;
}

/* RWF_NOWAIT, as another thread may fill the pipe after has_room(). Kernels before 6.4 have no
 * RWF_NOWAIT for pipes; there the write may wait in that case. */
static long write_to_pipe(int fd, const char *line, size_t n)
{
    struct iovec piece = {(void *)line, n};
    long result = raw_syscall(SYS_pwritev2, fd, &piece, 1, -1, -1, RWF_NOWAIT);

    return result == -EOPNOTSUPP || result == -ENOSYS ? raw_syscall(SYS_write, fd, line, n)
                                                      : result;
}

static long write_to_stderr(const char *line, size_t n)
{
    const int fd = STDERR_FILENO;
    struct stat found = {0};

    if (!ownfile_identify(fd, &found) || !is_same(&found, &first_stderr))
        return -EBADF;
    if (S_ISSOCK(found.st_mode))
        return raw_syscall(SYS_sendto, fd, line, n, MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
    if (S_ISREG(found.st_mode) ? !may_grow(&found, n) : !has_room(fd))
        return -EAGAIN;
    if (S_ISFIFO(found.st_mode))
        return write_to_pipe(fd, line, n);
    return raw_syscall(SYS_write, fd, line, n);
}

/* Whether something else than a regular file is at PATH. It is not even opened: the reader of a
 * FIFO would see a writer come and go, and some devices do something when they are opened. */
static bool is_other_than_file(const char *path)
{
    struct stat found = {0};

    return raw_syscall(SYS_newfstatat, AT_FDCWD, path, &found, AT_SYMLINK_NOFOLLOW) == 0 &&
           !S_ISREG(found.st_mode);
}

static long write_to_file(const char *line, size_t n)
{
    struct stat found = {0};
    long result = -EINVAL;
    int fd;

    if (is_other_than_file(settings->log_path))
        return result;
    fd = ownfile_open(settings->log_path, O_WRONLY | O_CREAT | O_APPEND);
    if (fd < 0)
        return fd;
    if (ownfile_identify(fd, &found) && S_ISREG(found.st_mode) && may_grow(&found, n))
        result = raw_syscall(SYS_write, fd, line, n);
    ownfile_close(fd);
    return result;
}

static void write_line(const char *line, size_t n)
{
    struct ownfile own;

    if (!ownfile_begin(&own))
        return;
    ownfile_end(&own, is_stderr(settings) ? write_to_stderr(line, n) : write_to_file(line, n),
                n);
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[512];
    struct timespec now = {0, 0};
    size_t n;
    va_list args;

    /* A plain system call, as another preloaded library (libfaketime) may have a hook for
     * clock_gettime() that must not be called after its destructor. */
    raw_syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    n = fmt_print(
        line, sizeof(line) - 1, "%lu.%u%u%u libmcpool[%d] %s: ", (unsigned long)now.tv_sec,
        (unsigned int)(now.tv_nsec / 100000000), (unsigned int)(now.tv_nsec / 10000000 % 10),
        (unsigned int)(now.tv_nsec / 1000000 % 10), (int)getpid(), names[level]);
    va_start(args, format);
    n += fmt_vprint(line + n, sizeof(line) - 1 - n, format, args);
    va_end(args);
    line[n++] = '\n';
    write_line(line, n);
}
