/*
 * __getauxval() for libgcc, which asks it for the atomic instructions of an aarch64. Only glibc
 * has that name. Without a definition of ours, a program with another libc could not start with
 * the library preloaded.
 */
#if defined(__aarch64__)
    .globl __getauxval
    .hidden __getauxval
    .type __getauxval, %function

    .text
__getauxval:
    .cfi_startproc
    hint #34 // bti c
    b getauxval
    .cfi_endproc
    .size __getauxval, . - __getauxval
#endif

    .section .note.GNU-stack, "", %progbits
