/*
 * Included by the compiler before every file of the library and the command, so that what was
 * built with a newer glibc runs with glibc 2.28 too: the names that newer headers give to old
 * functions are avoided. `tests/symbols` holds the versions that are needed.
 */
#ifndef MCPOOL_OLDER_H
#define MCPOOL_OLDER_H

#ifndef __ASSEMBLER__

#include <fcntl.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* Functions of libc since 2.33; before, the headers had them call others. */
static inline int older_fstatat(int at, const char *path, struct stat *found, int flags)
{
    return (int)syscall(SYS_newfstatat, at, path, found, flags);
}

#define fstatat(at, path, found, flags) older_fstatat(at, path, found, flags)
#define stat(path, found)               older_fstatat(AT_FDCWD, path, found, 0)
#define lstat(path, found)              older_fstatat(AT_FDCWD, path, found, AT_SYMLINK_NOFOLLOW)
#define fstat(fd, found)                older_fstatat(fd, "", found, AT_EMPTY_PATH)

/* Since 2.38 the headers have these call others, which also read binary numbers. */
long older_strtol(const char *text, char **end, int base) __asm__("strtol");
unsigned long older_strtoul(const char *text, char **end, int base) __asm__("strtoul");

#define strtol(text, end, base)  older_strtol(text, end, base)
#define strtoul(text, end, base) older_strtoul(text, end, base)

#endif
#endif
