/*
 * COLD marks functions outside the hot path, which is a connection that is checked out, used
 * and checked in again. The compiler places these functions, and the branches that call them,
 * away from the hot path: the instruction cache is cold after each system call, so fewer lines
 * of it must be loaded. They are not inlined, for a caller would save registers for them.
 *
 * ALWAYS_INLINE is for small functions that cold functions call as well: a copy of their own,
 * which those may share with the hot path, would be taken for cold, and so would its callers.
 *
 * AT_START is for variables that start-up writes or reads in every process: they lie beside the
 * pointers that the loader writes, so that fewer pages have to be copied.
 *
 * LARGE is for arrays of a page or more. The other variables lie together then: a fork and its
 * child write to many of them, and the kernel copies each page that they are in.
 */
#ifndef MCPOOL_COMPILER_H
#define MCPOOL_COMPILER_H

#define COLD __attribute__((cold, noinline))

#define AT_START __attribute__((section(".data.start")))

#define LARGE __attribute__((section(".bss.large")))

#define ALWAYS_INLINE static inline __attribute__((always_inline))

/* INLINED: the same for a function that other files call too. The linker puts it into its
 * callers; a compiler that does not optimise at link time leaves calls of it. */
#define INLINED inline __attribute__((always_inline))

#endif
