/*
 * What happens when the account of a call that moves bytes is never written.
 */
#include "hooks/io.h"

void io_abandon_send(void *conn)
{
    conn_refuse(conn, REASON_UNTRACKED_IO);
    conn_put(conn, CONN_CALL_SEND);
}

void io_abandon_receive(void *conn)
{
    conn_refuse(conn, REASON_UNTRACKED_IO);
    conn_put(conn, CONN_CALL_RECEIVE);
}

void io_note_unconnected(struct conn *conn)
{
    conn_refuse(conn, REASON_UNTRACKED_IO);
}
