/*
 * The addresses of call sites, and the names of the files they are mapped from (proc(5),
 * /proc/PID/maps).
 */
#include "pool/callers.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/compiler.h"
#include "base/rawsys.h"

#define SITES 16

/* Small, as connect() may be called on a small signal stack. */
#define CHUNK     512
#define NAME_SIZE 64

/* Each is the address of a call site, shifted by one bit, with the answer in the lowest bit; 0
 * for a free place. */
static _Atomic uint64_t sites[SITES];

enum field { FROM, TO, REST };

/* A line of the file, as far as it was read: its address range FROM-TO, and the last part of
 * its path. */
struct line {
    enum field field;
    uint64_t from, to;
    bool named;
    size_t length;
    char name[NAME_SIZE];
};

static unsigned int hex_digit(char c)
{
    return (unsigned int)(c <= '9' ? c - '0' : c - 'a' + 10);
}

/* Parses the next character C; true at the end of the line. */
static bool parse_char(struct line *line, char c)
{
    if (c == '\n') {
        line->name[line->length] = '\0';
        return true;
    }
    if (line->field == FROM && c == '-') {
        line->field = TO;
    } else if (line->field == FROM) {
        line->from = line->from << 4 | hex_digit(c);
    } else if (line->field == TO && c == ' ') {
        line->field = REST;
    } else if (line->field == TO) {
        line->to = line->to << 4 | hex_digit(c);
    } else if (c == '/') {
        line->named = true;
        line->length = 0;
    } else if (line->named && line->length < NAME_SIZE - 1) {
        line->name[line->length++] = c;
    }
    return false;
}

static bool begins(const char *name, const char *with)
{
    return strncmp(name, with, strlen(with)) == 0;
}

/* python3, python3.11, python3.13t: a version, and letters for how it was built. If the file
 * was removed, " (deleted)" follows the name. */
static bool is_interpreter(const char *name)
{
    size_t n = strlen("python3");

    if (!begins(name, "python3"))
        return false;
    n += strspn(name + n, ".0123456789");
    n += strspn(name + n, "dmt");
    return name[n] == '\0' || name[n] == ' ';
}

static bool is_python(const char *name)
{
    return begins(name, "_socket.cpython-3") || begins(name, "libpython3") ||
           is_interpreter(name);
}

static COLD bool is_in_python(uint64_t site)
{
    long fd = raw_syscall(SYS_openat, AT_FDCWD, "/proc/self/maps", O_RDONLY | O_CLOEXEC);
    struct line line = {.field = FROM};
    char bytes[CHUNK] = {0};
    bool found = false;
    long n;

    if (fd < 0)
        return false;
    while (!found && (n = raw_syscall(SYS_read, fd, bytes, sizeof(bytes))) > 0) {
        for (long i = 0; i < n && !found; i++) {
            if (!parse_char(&line, bytes[i]))
                continue;
            found = site >= line.from && site < line.to;
            if (!found)
                line = (struct line){.field = FROM};
        }
    }
    raw_syscall(SYS_close, fd);
    return found && line.named && is_python(line.name);
}

bool callers_accept_zero(const void *site)
{
    uint64_t key = (uint64_t)(uintptr_t)site << 1;

    for (size_t i = 0; i < SITES; i++) {
        /* relaxed: a hint, the swap decides; a word is complete by itself */
        uint64_t known = atomic_load_explicit(&sites[i], memory_order_relaxed);

        if (known == 0) {
            uint64_t found = key | is_in_python(key >> 1);

            if (atomic_compare_exchange_strong(&sites[i], &known, found))
                return found & 1;
        }
        if ((known & ~UINT64_C(1)) == key)
            return known & 1;
    }
    return false;
}
