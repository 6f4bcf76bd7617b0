/*
 * Begin and end of a change of flags: are they known afterwards?
 */
#include "hooks/flags.h"

#include "conn/conn.h"
#include "hooks/track.h"

/* With duplicates each fd has descriptor flags of its own. */
static bool can_be_known(const struct conn *conn, int fd)
{
    return conn->fd == fd && !conn_is_shared(conn);
}

void flags_change_begin(struct flags_change *change, int fd)
{
    struct conn *conn = conn_get(fd, CONN_CALL_OTHER);

    change->conn = conn;
    if (!conn)
        return;
    change->begun = conn_calls_begun(conn);
    change->flags = change->fd_flags = CONN_UNKNOWN;
    if (conn_is_only_call(conn) && can_be_known(conn, fd)) {
        change->flags = conn_flags(conn);
        change->fd_flags = conn_fd_flags(conn);
    }
    conn_set_flags(conn, CONN_UNKNOWN, CONN_UNKNOWN);
}

/* Another change begins its call and then makes the flags unknown. So if its call is not seen
 * after the flags were set here, its CONN_UNKNOWN comes later. The connection stays with this
 * user meanwhile, as no check-in succeeds while this call is in flight; see concurrency.md, 4.
 */
void flags_change_end(struct flags_change *change)
{
    struct conn *conn = change->conn;

    if (!conn)
        return;
    if (conn_calls_begun(conn) == change->begun) {
        conn_set_flags(conn, change->flags, change->fd_flags);
        atomic_thread_fence(memory_order_seq_cst);
        if (conn_calls_begun(conn) != change->begun)
            conn_set_flags(conn, CONN_UNKNOWN, CONN_UNKNOWN);
    }
    conn_put(conn, CONN_CALL_OTHER);
}
