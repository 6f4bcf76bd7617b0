/*
 * The C library's start-up code calls __libc_start_main(), which has a new version since glibc
 * 2.34. The linker has it call this instead (--wrap), which jumps to the first version: every
 * glibc has that. Where the new start-up code meets an old glibc, constructors do not run; the
 * command has none.
 */
    .text
    .globl __wrap___libc_start_main
#if defined(__x86_64__)
    .symver first_start_main, __libc_start_main@GLIBC_2.2.5
    .type __wrap___libc_start_main, @function
__wrap___libc_start_main:
    .cfi_startproc
    endbr64
    jmp *first_start_main@GOTPCREL(%rip)
    .cfi_endproc
#elif defined(__aarch64__)
    .symver first_start_main, __libc_start_main@GLIBC_2.17
    .type __wrap___libc_start_main, %function
__wrap___libc_start_main:
    .cfi_startproc
    hint #34 // bti c
    b first_start_main
    .cfi_endproc
#endif
    .size __wrap___libc_start_main, . - __wrap___libc_start_main

    .section .note.GNU-stack, "", %progbits
