/*
 * Writing the log. The file is opened for every line: a descriptor that stayed open would not
 * survive the program's close loops, and would keep a rotated file.
 */
#include "log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "raw.h"
#include "text.h"

#define SECOND ((msec_t)1000)

static const struct config *settings;

int log_level = -1;

void log_start(const struct config *config)
{
    settings = config;
    log_level = config->log_path[0] != '\0' ? (int)config->log_level : -1;
}

static struct {
    _Atomic msec_t written;  /* when the last line was; 0 before the first */
    _Atomic uint32_t others; /* that were not written since */
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
        text_format(others, room, "; %u more like this before", n);
    return true;
}

void log_after_fork_in_child(void)
{
    for (unsigned int i = 0; i < LOG_KINDS; i++)
        kinds[i].others = 0;
}

/* A file that grows beyond its limit would be a signal to the program. */
static bool may_grow(long fd, size_t n)
{
    struct rlimit limit = {0};
    struct stat found = {0};

    if (raw_syscall(SYS_prlimit64, 0, RLIMIT_FSIZE, NULL, &limit) != 0)
        return false;
    return limit.rlim_cur == RLIM_INFINITY ||
           (raw_syscall(SYS_newfstatat, fd, "", &found, AT_EMPTY_PATH) == 0 &&
            (!S_ISREG(found.st_mode) || (size_t)found.st_size + n <= limit.rlim_cur));
}

static void write_line(const char *line, size_t n)
{
    bool to_stderr = strcmp(settings->log_path, "stderr") == 0;
    long fd = STDERR_FILENO;

    if (!to_stderr)
        fd = raw_syscall(SYS_openat, AT_FDCWD, settings->log_path,
                         O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK |
                             O_NOCTTY,
                         0600);
    if (fd < 0)
        return;
    if (may_grow(fd, n))
        raw_syscall(SYS_write, fd, line, n);
    if (!to_stderr)
        raw_syscall(SYS_close, fd);
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const names[] = {"error", "warning", "info", "debug"};
    char line[512];
    struct timespec now = {0, 0};
    size_t n;
    va_list args;

    /* Not another library's idea of the time: its destructor may have run already. */
    raw_syscall(SYS_clock_gettime, CLOCK_REALTIME, &now);
    n = text_format(
        line, sizeof(line) - 1, "%lu.%u%u%u libmcpool[%d] %s: ", (unsigned long)now.tv_sec,
        (unsigned int)(now.tv_nsec / 100000000), (unsigned int)(now.tv_nsec / 10000000 % 10),
        (unsigned int)(now.tv_nsec / 1000000 % 10), (int)getpid(), names[level]);
    va_start(args, format);
    n += text_vformat(line + n, sizeof(line) - 1 - n, format, args);
    va_end(args);
    line[n++] = '\n';
    write_line(line, n);
}
