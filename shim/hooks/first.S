/*
 * The first call of a real function: first_NAME() asks libc_first() for the function and jumps to
 * it. Later calls go there at once, as libc_first() changes the pointer real_NAME.
 *
 * In assembly, so that one body does for functions of any parameters. Parameters that are no
 * integers or pointers would be lost; none has such.
 */
#include "hooks/arguments.def"

#if defined(__x86_64__)

.macro first name
    .section .rodata.first, "a", %progbits
9:
    .asciz "\name"
    .text
    .globl first_\name
    .hidden first_\name
    .hidden real_\name
    .hidden before_\name
    .type first_\name, @function
first_\name:
    .cfi_startproc
    endbr64
    lea real_\name(%rip), %rax
    lea before_\name(%rip), %r10
    lea 9b(%rip), %r11
    jmp first
    .cfi_endproc
    .size first_\name, . - first_\name
.endm

    .text
    .type first, @function
first:
    .cfi_startproc
    save_arguments
    mov %rax, %rdi
    mov %r10, %rsi
    mov %r11, %rdx
    call libc_first
    mov %rax, %r11
    restore_arguments
    jmp *%r11
    .cfi_endproc
    .size first, . - first

#elif defined(__aarch64__)

.macro first name
    .section .rodata.first, "a", %progbits
9:
    .asciz "\name"
    .text
    .balign 4
    .globl first_\name
    .hidden first_\name
    .hidden real_\name
    .hidden before_\name
    .type first_\name, %function
first_\name:
    .cfi_startproc
    hint #34 // bti c
    adrp x9, real_\name
    add x9, x9, :lo12:real_\name
    adrp x10, before_\name
    add x10, x10, :lo12:before_\name
    adrp x11, 9b
    add x11, x11, :lo12:9b
    b first
    .cfi_endproc
    .size first_\name, . - first_\name
.endm

    .text
    .balign 4
    .type first, %function
first:
    .cfi_startproc
    save_arguments
    mov x0, x9
    mov x1, x10
    mov x2, x11
    bl libc_first
    mov x16, x0
    restore_arguments
    br x16
    .cfi_endproc
    .size first, . - first

#endif

    .hidden libc_first

#define HOOK(ret, name, params, before) first name
#define HOOK_CHILD(name)
#define ALIAS(name, hook)
#define HOOK_FOREIGN(ret, name, version, body, params)
#include "hooks/hooks.def"

    .section .note.GNU-stack, "", %progbits
