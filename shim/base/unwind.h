/*
 * Cleanup handlers that run also when a call never returns: because its thread is cancelled, or
 * because a signal handler leaves it by siglongjmp(). The jump is allowed out of every
 * async-signal-safe function (signal-safety(7)).
 *
 * pthread_cleanup_push(3) is of no use here: in C it saves a setjmp() environment that is
 * invalid once a jump has left its frame. The first two functions below are its older form.
 * glibc exports them since 2.2.5 without a declaration. It runs their handlers after a
 * cancellation and after a jump, and keeps the list of them in the frames themselves.
 *
 * They are called by pointers, which hooks/libc.c fills at start-up, and not imported: until
 * glibc 2.33 they are in libpthread, and since 2.34 in libc with another version. So a library
 * built with either works with both. Where they are missing nothing is pooled, and so nothing
 * is called here.
 */
#ifndef MCPOOL_UNWIND_H
#define MCPOOL_UNWIND_H

#include <pthread.h>

struct unwind {
    void (*push)(struct _pthread_cleanup_buffer *buffer, void (*routine)(void *),
                 void *argument);
    void (*pop)(struct _pthread_cleanup_buffer *buffer, int execute);
    void (*testcancel)(void);
};

/* glibc's functions. */
extern struct unwind unwind __attribute__((visibility("hidden")));

/* Between push and pop, ROUTINE(ARGUMENT) is called when the caller's frame is left for good.
 * BUFFER must be a local variable of the caller. If EXECUTE is not 0, the pop calls it too. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*): the names are glibc's. */
static inline void _pthread_cleanup_push(struct _pthread_cleanup_buffer *buffer,
                                         void (*routine)(void *), void *argument)
{
    unwind.push(buffer, routine, argument);
}

static inline void _pthread_cleanup_pop(struct _pthread_cleanup_buffer *buffer, int execute)
{
    unwind.pop(buffer, execute);
}
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*) */

/* pthread_testcancel(3) */
static inline void unwind_testcancel(void)
{
    unwind.testcancel();
}

#endif
