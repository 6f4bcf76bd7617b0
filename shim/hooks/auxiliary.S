/*
 * libgcc asks __getauxval() which atomic instructions an aarch64 has. Only glibc has that name,
 * and a program linked with another libc could not start with the library in its environment.
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
