/*
 * What a program is, as far as preloading is concerned: its file is found as execvp() does,
 * scripts are followed to their interpreter, and the ELF headers are read.
 */
#ifndef MCPOOL_PROGRAM_H
#define MCPOOL_PROGRAM_H

#include <limits.h>
#include <stdbool.h>

struct program {
    char path[PATH_MAX];   /* of the file that is executed in the end, links resolved */
    char script[PATH_MAX]; /* of the script that names it; empty: there is none */
    bool is_elf;
    bool is_other_machine; /* of another architecture or word size than we are */
    bool is_static;
    bool is_musl;
    bool is_go;
    bool gains_privileges; /* by its set-id bits or file capabilities, for who runs us */
    bool is_confined;      /* of snap or flatpak, which change the environment */
};

/* Fills PROGRAM for NAME. False, with errno, when there is no such program or it cannot be
 * read. */
bool program_find(struct program *program, const char *name);

#endif
