/*
 * Cleanup handlers that run also when a call never returns: because its thread is cancelled, or
 * because a signal handler leaves it by siglongjmp(). The jump is allowed out of every
 * async-signal-safe function (signal-safety(7)).
 *
 * pthread_cleanup_push(3) is of no use here: in C it saves a setjmp() environment that is
 * invalid once a jump has left its frame. The two functions below are its older form. glibc
 * exports them since 2.2.5 without a declaration. It runs their handlers after a cancellation
 * and after a jump, and keeps the list of them in the frames themselves.
 */
#ifndef MCPOOL_UNWIND_H
#define MCPOOL_UNWIND_H

#include <pthread.h>

/* Between push and pop, ROUTINE(ARGUMENT) is called when the caller's frame is left for good.
 * BUFFER must be a local variable of the caller. If EXECUTE is not 0, the pop calls it too. */
/* NOLINTBEGIN(cert-dcl*): the names are glibc's. */
void _pthread_cleanup_push(struct _pthread_cleanup_buffer *buffer, void (*routine)(void *),
                           void *argument);
void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *buffer, int execute);
/* NOLINTEND(cert-dcl*) */

#endif
