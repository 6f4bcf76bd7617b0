/*
 * The hooks of vfork(), popen() and system(), whose children run no handler of
 * pthread_atfork(). Each hook counts the child and jumps to the real function. The count keeps
 * connections that are open now out of the pool, as the child may inherit them. The child of
 * vfork() may also run our code in our memory, and is counted as such; those of popen() and
 * system() run only libc's code. All of them are about to exec, which closes their copies of
 * shadow fds.
 *
 * In assembly because a C function cannot call vfork() and then return: the child would return
 * first and overwrite the frame. A jump leaves the caller's stack and return address as they
 * are.
 */
#include "hooks/arguments.def"

#if defined(__x86_64__)

.macro child name, shares=0
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc
    endbr64
    lock incl fork_epoch(%rip)
.if \shares
    lock incl memory_sharers(%rip)
.endif
    cmpq $0, real_\name(%rip)
    je 1f
    jmp *real_\name(%rip)
1:
    save_arguments
    call libc_bind_children
    restore_arguments
    jmp *real_\name(%rip)
    .cfi_endproc
    .size \name, . - \name
.endm

#elif defined(__aarch64__)

.macro count what
    adrp x9, \what
    add x9, x9, :lo12:\what
0:
    ldxr w10, [x9]
    add w10, w10, #1
    stxr w11, w10, [x9]
    cbnz w11, 0b
.endm

.macro child name, shares=0
    .globl \name
    .type \name, %function
\name:
    .cfi_startproc
    hint #34 // bti c
    count fork_epoch
.if \shares
    count memory_sharers
.endif
    adrp x9, real_\name
    ldr x9, [x9, :lo12:real_\name]
    cbz x9, 1f
    br x9
1:
    save_arguments
    bl libc_bind_children
    restore_arguments
    adrp x9, real_\name
    ldr x9, [x9, :lo12:real_\name]
    br x9
    .cfi_endproc
    .size \name, . - \name
.endm

#endif

.macro same name, hook
    .globl \name
    .set \name, \hook
    .type \name, STT_FUNC
.endm

    .hidden fork_epoch
    .hidden memory_sharers
    .hidden real_vfork
    .hidden real_popen
    .hidden real_system
    .hidden libc_bind_children

    .text
    child vfork, shares=1
    child popen
    child system
    same __vfork, vfork
    same _IO_popen, popen

    .section .note.GNU-stack, "", %progbits
