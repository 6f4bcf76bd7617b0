/*
 * What the hooks that receive (hooks/receive.c) and those that send (hooks/send.c) share: one
 * call that moves bytes on a connection, from before the real call until its bytes are
 * accounted.
 *
 * io_get() looks the connection up. io_guard() comes right before the real call, io_end() when
 * the moved bytes are accounted. A hook asks whether its fd is tracked. If so, it calls
 * tracked_NAME(), which is not inlined, so that a call on any other fd needs no frame.
 */
#ifndef MCPOOL_IO_H
#define MCPOOL_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/unwind.h"
#include "hooks/hooks.h"
#include "pool/life.h"

/* The part of a hook that is for tracked fds. */
#define TRACKED static __attribute__((noinline))

/* One call. It lives in the frame of the hook. */
struct io {
    struct conn *conn; /* NULL: there is nothing to account */
    enum conn_call kind;
    struct _pthread_cleanup_buffer cleanup;
};

/* Puts a connection that is refused: its bytes need no account. */
static inline void io_put_refused(struct io *io)
{
    if (io->conn && conn_refusal(io->conn) != REASON_NONE) {
        conn_put(io->conn, io->kind);
        io->conn = NULL;
    }
}

/* Gets the connection at FD, for which the map has WORD, for a call of this KIND. Leaves
 * io->conn NULL when there is none, or when it is refused. */
static inline void io_get(struct io *io, int fd, uint32_t word, enum conn_call kind)
{
    io->kind = kind;
    io->conn = conn_get_at(fd, word, kind);
    io_put_refused(io);
}

/* Cleanup handler; ARGUMENT is a struct io. The thread left the real call for good, so how many
 * bytes moved is not known: refuses the connection, and puts it. */
void io_abandon(void *argument);

/* The real call is next. UNTRACKABLE: its flags say that the tracker cannot follow its bytes,
 * so the connection is refused. If the thread is cancelled in the call, or a signal handler
 * jumps out of it, io_abandon() runs. */
static inline void io_guard(struct io *io, bool untrackable)
{
    if (untrackable)
        conn_refuse(io->conn, REASON_UNTRACKED_IO);
    _pthread_cleanup_push(&io->cleanup, io_abandon, io);
}

/* The call has returned MOVED, and its bytes are accounted. errno is the call's. */
static inline void io_end(struct io *io, ssize_t moved)
{
    _pthread_cleanup_pop(&io->cleanup, 0);
    if (__builtin_expect(moved <= 0, 0))
        life_note_failure(io->conn, moved);
    conn_put(io->conn, io->kind);
}

/* MOVED bytes were sent or received: counts them. When true, the connection is locked: the
 * caller passes the bytes to the wire tracker and calls conn_unlock(). False when another
 * thread has the lock, and for a refused connection. The bytes of a refused one must not be
 * looked at: with some flags they are not where the arguments say. */
bool io_account_begin(struct io *io, size_t moved);

#endif
