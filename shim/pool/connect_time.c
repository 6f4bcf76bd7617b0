/*
 * Timing real connects.
 */
#include "pool/connect_time.h"

#include <linux/tcp.h>
#include <time.h>

#include "base/compiler.h"
#include "conn/endpoint.h"
#include "conn/sockid.h"

uint64_t connect_time_now(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* The usual connect after one that took MICROSECONDS, when it was USUAL before; 0: the first.
 */
static uint64_t move_usual(uint64_t usual, uint64_t microseconds)
{
    uint64_t step = usual / 8 + 1;

    if (usual == 0)
        return microseconds < USUAL_FIRST ? microseconds : USUAL_FIRST;
    if (microseconds > usual + step)
        return usual + step;
    return microseconds + step < usual ? usual - step : microseconds;
}

void connect_time_count(struct endpoint *endpoint, uint64_t microseconds)
{
    struct stats *stats = endpoint->stats;

    stats_add(&stats->connect_us, microseconds);
    stats_count(&stats->connects_timed);
    stats_observe(stats, BUCKET_connect_us_25, microseconds);
    /* Two threads may do this at once. Then one of the two connects is forgotten. */
    stats_set(&stats->usual_connect_us,
              move_usual(stats_read(&stats->usual_connect_us), microseconds));
}

void connect_time_failed_at(struct endpoint *endpoint)
{
    stats_count(&endpoint->stats->connect_failed);
}

void connect_time_failed(struct conn *conn)
{
    if (!conn->rtt_pending)
        return;
    conn->rtt_pending = false;
    connect_time_failed_at(conn->endpoint);
}

INLINED void connect_time_saved(const struct conn *conn, struct stats *stats, msec_t now)
{
    /* The clock of another thread may have been a little ahead. */
    uint64_t age = now > conn->idle_since ? (uint64_t)(now - conn->idle_since) : 0;

    stats_add_quietly(&stats->connect_us_avoided, stats_read(&stats->usual_connect_us));
    if (age > 0)
        stats_add_quietly(&stats->idle_age_ms, age);
    stats_observe(stats, BUCKET_idle_age_ms_10, age);
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
