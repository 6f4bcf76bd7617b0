/*
 * Whether a process needs one connection for each of its requests.
 */
#include "pool/request.h"

/* So many requests give nothing at close() after one that needed a second connection. */
#define SECOND_NEEDED 100

atomic_bool request_gives_at_close;

static _Atomic unsigned int keep_for; /* so many requests give nothing at close() */
static atomic_bool has_given;         /* in the present request */

void request_note_given(void)
{
    has_given = true;
}

void request_note_wanted(void)
{
    if (!has_given)
        return;
    keep_for = SECOND_NEEDED;
    request_gives_at_close = false;
}

bool request_end(void)
{
    if (keep_for > 0)
        keep_for--;
    return atomic_exchange(&has_given, false);
}

void request_note_block(void)
{
    request_gives_at_close = keep_for == 0;
}
