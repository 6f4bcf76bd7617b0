/*
 * The exported names of libraries other than libc: each under the symbol version it has there,
 * and not as the default one. So only an object that was linked with such a library meets the
 * hook; a function of the same name that a program or a plugin has of its own is never taken for
 * it. In assembly because .symver in C does not survive link-time optimisation.
 */

#define HOOK(ret, name, params, before)
#define HOOK_CHILD(name)
#define ALIAS(name, hook)
#define HOOK_FOREIGN(ret, name, version, params) foreign name, version

.macro foreign name, version
    .globl foreign_\name
    .hidden hook_\name
#if defined(__x86_64__)
    .type foreign_\name, @function
foreign_\name:
    .cfi_startproc
    endbr64
    jmp hook_\name
#elif defined(__aarch64__)
    .type foreign_\name, %function
foreign_\name:
    .cfi_startproc
    hint #34 // bti c
    b hook_\name
#endif
    .cfi_endproc
    .size foreign_\name, . - foreign_\name
    .symver foreign_\name, \name@\version
.endm

    .text
#include "../hooks.def"

    .section .note.GNU-stack, "", %progbits
