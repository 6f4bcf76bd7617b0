/*
 * COLD marks functions outside the hot path, which is a connection that is checked out, used
 * and checked in again. The compiler places these functions, and the branches that call them,
 * away from the hot path: the instruction cache is cold after each system call, so fewer lines
 * of it must be loaded. They are not inlined, for a caller would save registers for them.
 */
#ifndef MCPOOL_COMPILER_H
#define MCPOOL_COMPILER_H

#define COLD __attribute__((cold, noinline))

/* INLINED marks the functions of the hot path itself. The linker puts them into their callers,
 * also those in another file: a call and the registers saved for it would cost more than most
 * of them do. */
#define INLINED __attribute__((always_inline)) inline

#endif
