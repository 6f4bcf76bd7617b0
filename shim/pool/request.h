/*
 * The requests of a process that blocks in accept() between them, as php-fpm's workers do. If
 * it needs one connection for each, it gives that to its family at close(): the answer that it
 * sends next can make another process begin, before its own next accept().
 *
 * All of it is a guess about the process, and decides only when something is given. No function
 * takes a lock, blocks or makes a system call.
 */
#ifndef MCPOOL_REQUEST_H
#define MCPOOL_REQUEST_H

#include <stdatomic.h>
#include <stdbool.h>

#include "base/compiler.h"

/* Whether the process gives what it closes. */
extern atomic_bool request_gives_at_close __attribute__((visibility("hidden")));

static inline bool request_is_over_at_close(void)
{
    /* relaxed: a hint */
    return __builtin_expect(atomic_load_explicit(&request_gives_at_close, memory_order_relaxed),
                            0);
}

/* It gave at close(). */
COLD void request_note_given(void);

/* It wants a connection that it does not have. If it gave one in this request, it needs a
 * second one, and gives nothing at close() for the next hundred requests. */
COLD void request_note_wanted(void);

/* Before an accept(): the request is over. True if the process gave at a close() in it. */
COLD bool request_end(void);

/* Before an accept() that waits, after a request that used a connection. */
COLD void request_note_block(void);

#endif
