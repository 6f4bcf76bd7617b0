/*
 * Timing real connects.
 */
#include "pool/connect_time.h"

#include <linux/tcp.h>
#include <time.h>

#include "conn/endpoint.h"
#include "conn/sockid.h"

uint64_t connect_time_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

void connect_time_count(struct endpoint *endpoint, uint64_t microseconds)
{
    struct stats *stats = endpoint->stats;

    stats_add(&stats->connect_us, microseconds);
    stats_count(&stats->connects_timed);
}

/* Nothing but the handshake has been exchanged so far, so the kernel's round trip is that of
 * the handshake. It is 0 if a packet was lost: then nothing is counted. */
void connect_time_ask(struct conn *conn)
{
    struct tcp_info info = {0};

    conn->rtt_pending = false;
    if (sockid_tcp_info(conn->fd, &info) > 0 && info.tcpi_rtt > 0)
        connect_time_count(conn->endpoint, info.tcpi_rtt);
}
