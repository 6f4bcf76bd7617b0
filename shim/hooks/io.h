/*
 * What the hooks that receive (hooks/receive.c) and those that send (hooks/send.c) share: one
 * call that moves bytes on a connection, from before the real call until its bytes are
 * accounted.
 *
 * io_conn() looks the connection up. io_guard() comes right before the real call, io_end() when
 * the moved bytes are accounted. A hook asks whether its fd is tracked. If so, it calls
 * tracked_NAME(), which is not inlined, so that a call on any other fd needs no frame. The
 * connection is its last argument, so that the others stay in their registers.
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

/* What io_guard() notes. It lives in the frame of the hook, apart from what the hook knows of
 * the call: that can stay in registers. */
typedef struct _pthread_cleanup_buffer io_guard_t;

/* The connection at FD; NULL when there is none, or when it is refused: its bytes need no
 * account, and the hook only makes the real call. The caller has no call on the record, which
 * may be that of another connection by now; that one was opened at FD during this call. */
static inline struct conn *io_conn(int fd)
{
    uint32_t word = fdmap_word(fd);
    struct conn *conn;

    if (UNTRACKED(word))
        return NULL;
    conn = conn_of_fd_word(word);
    return conn && __builtin_expect(conn_refusal(conn) == REASON_NONE, 1) ? conn : NULL;
}

/* Cleanup handlers; CONN is the connection. The thread left the real call for good, so how many
 * bytes moved is not known: they refuse the connection, and put it. */
void io_abandon_send(void *conn);
void io_abandon_receive(void *conn);

/* The real call, of this KIND, is next. UNTRACKABLE: its flags say that the tracker cannot
 * follow its bytes, so the connection is refused. If the thread is cancelled in the call, or a
 * signal handler jumps out of it, a handler above runs. */
static inline void io_guard(io_guard_t *guard, struct conn *conn, enum conn_call kind,
                            bool untrackable)
{
    if (__builtin_expect(untrackable, 0))
        conn_refuse(conn, REASON_UNTRACKED_IO);
    _pthread_cleanup_push(guard, kind == CONN_CALL_SEND ? io_abandon_send : io_abandon_receive,
                          conn);
}

/* The call has returned MOVED, and its bytes are accounted. errno is the call's. */
static inline void io_end(io_guard_t *guard, struct conn *conn, enum conn_call kind,
                          ssize_t moved)
{
    _pthread_cleanup_pop(guard, 0);
    if (__builtin_expect(moved <= 0, 0))
        life_note_failure(conn, moved);
    conn_put(conn, kind);
}

/* Bytes moved on CONN, which was connected by a call that check-out has not seen. */
COLD void io_note_unconnected(struct conn *conn);

/* MOVED bytes were sent or received: counts them. When true, the connection is locked: the
 * caller passes the bytes to the wire tracker and calls conn_unlock(). False when another
 * thread has the lock, and for a refused connection. The bytes of a refused one must not be
 * looked at: with some flags they are not where the arguments say. */
static inline bool io_account_begin(struct conn *conn, enum conn_call kind, size_t moved)
{
    if (__builtin_expect(conn_state(conn) == CONN_FRESH, 0))
        io_note_unconnected(conn);
    if (__builtin_expect(conn_refusal(conn) != REASON_NONE, 0) || !conn_trylock(conn))
        return false;
    if (kind == CONN_CALL_SEND)
        conn->sent += moved;
    else
        conn->received += moved;
    return true;
}

#endif
