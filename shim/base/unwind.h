/*
 * What has to be done also when a call never returns: its thread is cancelled in it, or a
 * signal handler jumps out of it with siglongjmp(), which is allowed for every function that
 * may be called from a handler (signal-safety(7)).
 *
 * pthread_cleanup_push(3) is not for that: in C it saves an environment of setjmp() which
 * outlives the frame that a jump has left. These are what it was made of before; glibc exports
 * them since 2.2.5, without a declaration, runs the handlers on both occasions, and keeps the
 * list in the frames themselves.
 */
#ifndef MCPOOL_UNWIND_H
#define MCPOOL_UNWIND_H

#include <pthread.h>

/* Until the pop, ROUTINE(ARGUMENT) is called when the caller's frame is left for good. BUFFER
 * is in that frame. With EXECUTE the pop calls it, too. */
/* NOLINTBEGIN(cert-dcl*): the names are glibc's. */
void _pthread_cleanup_push(struct _pthread_cleanup_buffer *buffer, void (*routine)(void *),
                           void *argument);
void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *buffer, int execute);
/* NOLINTEND(cert-dcl*) */

#endif
