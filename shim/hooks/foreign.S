/*
 * The hooks of functions of libraries other than libc. Each is exported with the symbol version
 * that the function has there, and not as the default version. So only an object that was
 * linked with such a library calls the hook. A program or a plugin with a function of its own
 * by that name does not. In assembly because .symver in C does not survive link-time
 * optimisation.
 */

#define HOOK(ret, name, params, before)
#define HOOK_CHILD(name)
#define ALIAS(name, hook)
#define HOOK_FOREIGN(ret, name, version, body, params) foreign name, version, body

.macro foreign name, version, body
    .globl foreign_\body
    .hidden \body
#if defined(__x86_64__)
    .type foreign_\body, @function
foreign_\body:
    .cfi_startproc
    endbr64
    jmp \body
#elif defined(__aarch64__)
    .type foreign_\body, %function
foreign_\body:
    .cfi_startproc
    hint #34 // bti c
    b \body
#endif
    .cfi_endproc
    .size foreign_\body, . - foreign_\body
    .symver foreign_\body, \name@\version
.endm

    .text
#include "hooks/hooks.def"

    .section .note.GNU-stack, "", %progbits
