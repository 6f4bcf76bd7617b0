/*
 * Finds the file of a program, follows scripts to their interpreter, and reads the ELF headers.
 */
#include "cli/program.h"

#include <elf.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

/* How many files are followed: the interpreter of a script may be a script too. */
#define DEPTH 4

#if defined(__x86_64__)
#define MACHINE EM_X86_64
#else
#define MACHINE EM_AARCH64
#endif

/* Fills PATH with the file that execvp(NAME) runs. False, with errno, when there is none. */
static bool search_path(const char *name, char *path)
{
    const char *directories = getenv("PATH");
    size_t n;

    if (strchr(name, '/'))
        return realpath(name, path) != NULL;
    for (; directories && *directories; directories += n + (directories[n] == ':')) {
        char candidate[PATH_MAX];
        struct stat found;

        n = strcspn(directories, ":");
        if (snprintf(candidate, sizeof(candidate), "%.*s/%s", (int)n, directories, name) <
                PATH_MAX &&
            stat(candidate, &found) == 0 && S_ISREG(found.st_mode) &&
            access(candidate, X_OK) == 0)
            return realpath(candidate, path) != NULL;
    }
    errno = ENOENT;
    return false;
}

static ssize_t read_at(int fd, void *bytes, size_t n, uint64_t offset)
{
    return pread(fd, bytes, n, (off_t)offset);
}

/* Fills NAME with the interpreter that LINE, the text behind "#!", names. For env it is the
 * program that env runs: options and assignments before it are skipped. Writes to LINE. */
static bool interpreter(char *line, char *name, size_t room)
{
    char *rest = line;
    char *word;
    bool is_env = false;

    line[strcspn(line, "\n")] = '\0';
    while ((word = strsep(&rest, " \t"))) {
        const char *base = strrchr(word, '/');

        if (*word == '\0' || (is_env && (*word == '-' || strchr(word, '='))))
            continue;
        if (!is_env && base && strcmp(base, "/env") == 0) {
            is_env = true;
            continue;
        }
        snprintf(name, room, "%s", word);
        return true;
    }
    return false;
}

static bool is_named(int fd, const Elf64_Shdr *names, uint32_t index, const char *name)
{
    char found[64] = "";

    return read_at(fd, found, sizeof(found) - 1, names->sh_offset + index) > 0 &&
           strcmp(found, name) == 0;
}

/* Whether the file has a section NAME. */
static bool has_section(int fd, const Elf64_Ehdr *header, const char *name)
{
    Elf64_Shdr names, section;

    if (header->e_shentsize != sizeof(section) ||
        read_at(fd, &names, sizeof(names),
                header->e_shoff + (uint64_t)header->e_shstrndx * sizeof(section)) !=
            sizeof(names))
        return false;
    for (unsigned int i = 0; i < header->e_shnum; i++) {
        if (read_at(fd, &section, sizeof(section), header->e_shoff + i * sizeof(section)) ==
                sizeof(section) &&
            is_named(fd, &names, section.sh_name, name))
            return true;
    }
    return false;
}

static void read_elf(struct program *program, int fd, const Elf64_Ehdr *header)
{
    Elf64_Phdr segment;

    program->is_elf = true;
    program->is_other_machine =
        header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_machine != MACHINE;
    if (program->is_other_machine)
        return;
    program->is_static = true;
    for (unsigned int i = 0; i < header->e_phnum; i++) {
        char loader[256] = "";

        if (read_at(fd, &segment, sizeof(segment),
                    header->e_phoff + (uint64_t)i * header->e_phentsize) != sizeof(segment) ||
            segment.p_type != PT_INTERP)
            continue;
        program->is_static = false;
        if (read_at(fd, loader, sizeof(loader) - 1, segment.p_offset) > 0)
            program->is_musl = strstr(loader, "ld-musl") != NULL;
    }
    /* Go's linker puts this section in each program. */
    program->is_go = has_section(fd, header, ".go.buildinfo");
}

static void read_privileges(struct program *program, int fd)
{
    struct stat found;
    bool sets_uid, sets_gid, is_capable;

    if (fstat(fd, &found) != 0)
        return;
    sets_uid = found.st_mode & S_ISUID;
    sets_gid = found.st_mode & S_ISGID && found.st_mode & S_IXGRP;
    is_capable = fgetxattr(fd, "security.capability", NULL, 0) > 0;
    program->is_privileged = sets_uid || sets_gid || is_capable;
    program->gains_privileges = (sets_uid && found.st_uid != geteuid()) ||
                                (sets_gid && found.st_gid != getegid()) ||
                                (is_capable && geteuid() != 0);
}

static bool is_below(const char *path, const char *directory)
{
    return strncmp(path, directory, strlen(directory)) == 0;
}

static bool is_confined(const char *name, const char *path)
{
    return is_below(path, "/snap/") || is_below(path, "/var/lib/snapd/") ||
           is_below(name, "/snap/") || strcmp(path, "/usr/bin/snap") == 0 ||
           strcmp(path, "/usr/bin/flatpak") == 0 || is_below(path, "/var/lib/flatpak/");
}

/* Reads the file at FD. True if it is a script; then NAME is filled with its interpreter. */
static bool step(struct program *program, int fd, char *name, size_t room)
{
    union {
        Elf64_Ehdr header;
        char text[512];
    } start = {.text = ""};
    ssize_t n = read_at(fd, &start, sizeof(start) - 1, 0);

    if (n >= (ssize_t)sizeof(start.header) &&
        memcmp(start.header.e_ident, ELFMAG, SELFMAG) == 0)
        read_elf(program, fd, &start.header);
    else if (n > 2 && start.text[0] == '#' && start.text[1] == '!' &&
             interpreter(start.text + 2, name, room)) {
        if (program->script[0] == '\0')
            snprintf(program->script, sizeof(program->script), "%s", program->path);
        return true;
    }
    read_privileges(program, fd);
    return false;
}

/* Reads the file at PATH, which was found for NAME. Returns whether it is a script; then NAME
 * is filled with its interpreter. -1, with errno, when it cannot be read. */
static int read_file(struct program *program, const char *path, char *name, size_t room)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    bool is_script;

    if (fd < 0)
        return -1;
    program->is_confined |= is_confined(name, program->path);
    is_script = step(program, fd, name, room);
    close(fd);
    return is_script;
}

bool program_find(struct program *program, const char *name)
{
    char next[PATH_MAX];
    int is_script = true;

    memset(program, 0, sizeof(*program));
    snprintf(next, sizeof(next), "%s", name);
    for (int i = 0; i < DEPTH && is_script == true; i++) {
        if (!search_path(next, program->path))
            return false;
        is_script = read_file(program, program->path, next, sizeof(next));
    }
    return is_script >= 0;
}

/* The path may lead to another file here, or to none: it is that in the mount namespace of the
 * process. */
bool program_find_executed(struct program *program, int pid)
{
    char link[64], interpreter_name[PATH_MAX] = "";
    ssize_t n;

    memset(program, 0, sizeof(*program));
    snprintf(link, sizeof(link), "/proc/%d/exe", pid);
    n = readlink(link, program->path, sizeof(program->path) - 1);
    if (n < 0)
        return false;
    program->path[n] = '\0';
    return read_file(program, link, interpreter_name, sizeof(interpreter_name)) >= 0;
}
