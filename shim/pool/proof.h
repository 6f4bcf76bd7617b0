/*
 * Is an idle connection still alive? A path can die without a word: a firewall forgets the
 * connection, a host vanishes. What the kernel tells of the connection proves that it is alive,
 * or does not.
 *
 * A stopped server acknowledges and answers probes, so it looks alive.
 */
#ifndef MCPOOL_PROOF_H
#define MCPOOL_PROOF_H

#include <linux/tcp.h>
#include <stdbool.h>

#include "base/compiler.h"
#include "conn/conn.h"
#include "conn/endpoint.h"

/* The peer was heard within so many milliseconds: less than any keepalive takes to notice
 * that it is silent. */
#define PROOF_HEARD_LATELY (1000u * (1 + KEEPALIVE_INTERVAL))

enum proof {
    PROOF_OF_LIFE,
    PROOF_NONE,     /* the server is to be asked (drain_ask()) */
    PROOF_OF_DEATH, /* keepalive's verdict */
};

/* Whether another connection gave reason to doubt one that has been idle for as long as CONN.
 * Relaxed: an old value costs one request. */
static inline bool proof_is_doubted(const struct conn *conn)
{
    return conn->idle_since <=
           atomic_load_explicit(&conn->endpoint->ask_before, memory_order_relaxed);
}

/* As proof_of(), which is the quick way to the usual result. */
COLD enum proof proof_in_detail(const struct conn *conn, const struct tcp_info *info);

/* What INFO, which the kernel has just told of the idle connection CONN, proves. */
static inline enum proof proof_of(const struct conn *conn, const struct tcp_info *info)
{
    if (!(info->tcpi_probes | info->tcpi_retransmits) && !proof_is_doubted(conn) &&
        info->tcpi_last_ack_recv < PROOF_HEARD_LATELY)
        return PROOF_OF_LIFE;
    return proof_in_detail(conn, info);
}

#endif
