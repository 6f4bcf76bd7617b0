/*
 * Guessing what will be spoken, and learning what is.
 *
 * The atomics here hold what was learned, each independent of the others. An old value costs a
 * wrong guess, that is a refusal or a swap, so relaxed operations are enough.
 */
#include "pool/guess.h"

#include "base/owner.h"
#include "base/usermem.h"
#include "conn/endpoint.h"
#include "pool/connect_time.h"

const uint8_t *guess_first_byte(const struct pieces *pieces)
{
    for (size_t i = 0; i < pieces->count; i++) {
        const struct iovec *piece = &pieces->iov[i];

        if (!pieces->readable && !usermem_readable(piece, sizeof(*piece)))
            return NULL;
        if (piece->iov_len > 0)
            return pieces->readable || usermem_readable(piece->iov_base, 1) ? piece->iov_base
                                                                            : NULL;
    }
    return NULL;
}

/* Notes that PROTOCOL is spoken on CONN. Stores only what is new: a store would take the cache
 * line away from other threads. */
static void learn(struct conn *conn, enum wire_protocol protocol)
{
    _Atomic uint8_t *habit = &conn->endpoint->habits[conn->socket_kind];

    atomic_store_explicit(&conn->has_sent, true, memory_order_relaxed);
    if (conn->rtt_pending)
        connect_time_ask(conn);
    if (atomic_load_explicit(habit, memory_order_relaxed) != protocol)
        atomic_store(habit, (uint8_t)protocol);
    if (!(atomic_load_explicit(&conn->endpoint->spoken, memory_order_relaxed) & 1u << protocol))
        atomic_fetch_or(&conn->endpoint->spoken, (uint8_t)(1u << protocol));
}

bool guess_is_open(const struct conn *conn)
{
    return !guess_is_past(conn) && conn_state(conn) == CONN_IN_USE && owner_is_this_process();
}

bool guess_fits(struct conn *conn, const struct pieces *pieces)
{
    enum wire_protocol spoken, wanted;
    const uint8_t *first;

    if (!guess_is_open(conn))
        return true;
    first = guess_first_byte(pieces);
    if (!first)
        return true;
    spoken = wire_protocol(&conn->wire);
    wanted = wire_protocol_of(*first);
    learn(conn, wanted);
    return spoken == WIRE_UNDECIDED || spoken == wanted;
}

bool guess_is_sure(const struct conn *conn)
{
    unsigned int speaks = wire_protocol(&conn->wire);

    return atomic_load(&conn->endpoint->habits[conn->socket_kind]) == speaks &&
           atomic_load(&conn->endpoint->spoken) == 1u << speaks;
}
