/*
 * The first call of a real function: first_NAME() asks libc_first() for the function and jumps to
 * it. Later calls go there at once, as libc_first() changes the pointer real_NAME.
 *
 * In assembly, so that one body does for functions of any parameters. Parameters that are no
 * integers or pointers would be lost; none has such.
 */

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
.irp register, %rdi, %rsi, %rdx, %rcx, %r8, %r9, %rbx
    push \register
    .cfi_adjust_cfa_offset 8
.endr
    mov %rax, %rdi
    mov %r10, %rsi
    mov %r11, %rdx
    call libc_first
.irp register, %rbx, %r9, %r8, %rcx, %rdx, %rsi, %rdi
    pop \register
    .cfi_adjust_cfa_offset -8
.endr
    jmp *%rax
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
    stp x29, x30, [sp, #-96]!
    .cfi_def_cfa_offset 96
    .cfi_offset 29, -96
    .cfi_offset 30, -88
    stp x0, x1, [sp, #16]
    stp x2, x3, [sp, #32]
    stp x4, x5, [sp, #48]
    stp x6, x7, [sp, #64]
    str x8, [sp, #80]
    mov x0, x9
    mov x1, x10
    mov x2, x11
    bl libc_first
    mov x16, x0
    ldr x8, [sp, #80]
    ldp x6, x7, [sp, #64]
    ldp x4, x5, [sp, #48]
    ldp x2, x3, [sp, #32]
    ldp x0, x1, [sp, #16]
    ldp x29, x30, [sp], #96
    .cfi_def_cfa_offset 0
    .cfi_restore 29
    .cfi_restore 30
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
