/*
 * What decides whether the library can be preloaded into a program. The file of the program is
 * found as execvp() does, and a script is followed to its interpreter.
 */
#ifndef MCPOOL_PROGRAM_H
#define MCPOOL_PROGRAM_H

#include <limits.h>
#include <stdbool.h>

struct program {
    char path[PATH_MAX]; /* of the program, or of the interpreter of a script; no links in it */
    char script[PATH_MAX]; /* of the script; empty: it is none */
    bool is_elf;
    bool is_other_machine; /* of another architecture or word size than this command */
    bool is_static;
    bool is_musl;
    bool is_go;
    bool gains_privileges; /* set-id bits or file capabilities give more than our user has */
    bool is_privileged;    /* there are such bits, whatever our user has */
    bool is_confined;      /* started by snap or flatpak, which change the environment */
};

/* Fills PROGRAM for NAME. False, with errno, when no such program can be found and read. */
bool program_find(struct program *program, const char *name);

/* Fills PROGRAM for the file that the process PID executes. False when it cannot be read. */
bool program_find_executed(struct program *program, int pid);

#endif
