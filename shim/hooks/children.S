/*
 * The hooks of vfork(), popen() and system(), whose children run no handler of
 * pthread_atfork(). Each hook counts the child. The count keeps connections that are open now
 * out of the pool, as the child may inherit them. All of these children are about to exec, which
 * closes their copies of shadow fds.
 *
 * The children of popen() and system() run only libc's code. Their hooks jump to the real
 * function.
 *
 * The child of vfork() may also run our code in our memory, and is counted as such until the
 * call returns in the parent: by then the child has ended or is another program. That hook makes
 * the system call itself, as libc does, with the return address in a register. If it called the
 * real function, the child would return to the hook first and overwrite the frame that the parent
 * still has to return by. For the same reason the hook is no C function.
 */
#include <sys/syscall.h>

#include "hooks/arguments.def"

#if defined(__x86_64__)

.macro child name
    .globl \name
    .type \name, @function
\name:
    .cfi_startproc
    endbr64
    lock incl fork_epoch(%rip)
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

/* The child leaves by a jump: a return would take from the shadow stack (CET), which it shares
 * with the parent. */
.macro child_in_our_memory
    .globl vfork
    .type vfork, @function
vfork:
    .cfi_startproc
    endbr64
    sub $8, %rsp
    .cfi_adjust_cfa_offset 8
    call hook_vfork_begins
    add $8, %rsp
    .cfi_adjust_cfa_offset -8
    pop %rdi
    .cfi_adjust_cfa_offset -8
    .cfi_register %rip, %rdi
    mov $SYS_vfork, %eax
    syscall
    test %rax, %rax
    jnz 1f
    jmp *%rdi
1:
    push %rdi
    .cfi_adjust_cfa_offset 8
    .cfi_restore %rip
    mov %rax, %rdi
    jmp hook_vfork_made
    .cfi_endproc
    .size vfork, . - vfork
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

.macro child name
    .globl \name
    .type \name, %function
\name:
    .cfi_startproc
    hint #34 // bti c
    count fork_epoch
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

#define CLONE_VM_VFORK_SIGCHLD 0x4111

.macro child_in_our_memory
    .globl vfork
    .type vfork, %function
vfork:
    .cfi_startproc
    hint #34 // bti c
    stp x29, x30, [sp, #-16]!
    .cfi_def_cfa_offset 16
    .cfi_offset 29, -16
    .cfi_offset 30, -8
    bl hook_vfork_begins
    ldp x29, x30, [sp], #16
    .cfi_def_cfa_offset 0
    .cfi_restore 29
    .cfi_restore 30
    mov x0, #CLONE_VM_VFORK_SIGCHLD
    mov x1, #0 // on the parent's stack
    mov x8, #SYS_clone
    svc #0
    cbnz x0, 1f
    ret
1:
    b hook_vfork_made
    .cfi_endproc
    .size vfork, . - vfork
.endm

#endif

.macro same name, hook
    .globl \name
    .set \name, \hook
    .type \name, STT_FUNC
.endm

    .hidden fork_epoch
    .hidden real_popen
    .hidden real_system
    .hidden libc_bind_children
    .hidden hook_vfork_begins
    .hidden hook_vfork_made

    .text
    child popen
    child system
    child_in_our_memory
    same __vfork, vfork
    same _IO_popen, popen

    .section .note.GNU-stack, "", %progbits
