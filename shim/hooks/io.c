/*
 * The account of a call that moves bytes, and what happens when it is never written.
 */
#include "hooks/io.h"

void io_abandon(void *argument)
{
    struct io *io = argument;

    conn_refuse(io->conn, REASON_UNTRACKED_IO);
    conn_put(io->conn, io->kind);
}

bool io_account_begin(struct io *io, size_t moved)
{
    struct conn *conn = io->conn;

    /* Connected by a call that check-out has not seen. */
    if (conn_state(conn) == CONN_FRESH)
        conn_refuse(conn, REASON_UNTRACKED_IO);
    if (conn_refusal(conn) != REASON_NONE || !conn_trylock(conn))
        return false;
    if (io->kind == CONN_CALL_SEND)
        conn->sent += moved;
    else
        conn->received += moved;
    return true;
}
