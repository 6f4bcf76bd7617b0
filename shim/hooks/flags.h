/*
 * The flags of a connection, while the program changes them. A client that sets its socket to
 * non-blocking does so for each connection, so the kernel must not be asked each time what the
 * flags are now.
 *
 * From the begin of a change to its end the flags count as unknown. Afterwards they are known
 * if they were known before, the call tells what has become of them, and no other call was made
 * on the connection meanwhile: that could be another change.
 */
#ifndef MCPOOL_FLAGS_H
#define MCPOOL_FLAGS_H

#include <stdint.h>

#include "conn/conn.h"

struct flags_change {
    struct conn *conn; /* NULL: there is no connection */
    uint64_t begun;    /* conn_calls_begun() */
    int flags;         /* from before; the caller sets them to what they are after the call, */
    int fd_flags;      /* or to CONN_UNKNOWN */
};

/* Before the call. */
void flags_change_begin(struct flags_change *change, int fd);

/* After it. */
void flags_change_end(struct flags_change *change);

#endif
