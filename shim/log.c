/*
 * Writing the log. The file is opened for every line: a descriptor that stayed open would not
 * survive the program's close loops, and would keep a rotated file.
 */
#include "log.h"

#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "raw.h"
#include "text.h"

static const struct config *settings;

int log_level = -1;

void log_start(const struct config *config)
{
    settings = config;
    log_level = config->log_path[0] != '\0' ? (int)config->log_level : -1;
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
