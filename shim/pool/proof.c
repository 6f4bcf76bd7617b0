/*
 * The kernel's signs of life.
 */
#include "pool/proof.h"

/* Probes in a row without an answer that are a verdict. One may be on its way. */
#define PROBES_VERDICT 2

/* For how many milliseconds the peer has been silent. An answered probe is an acknowledgement.
 * Data may come without one that the kernel counts. */
static msec_t silent_for(const struct tcp_info *info)
{
    return info->tcpi_last_ack_recv < info->tcpi_last_data_recv ? info->tcpi_last_ack_recv
                                                                : info->tcpi_last_data_recv;
}

enum proof proof_in_detail(const struct conn *conn, const struct tcp_info *info)
{
    msec_t keep_idle = (msec_t)1000 * conn->options.keep_idle;

    if (info->tcpi_probes >= PROBES_VERDICT)
        return PROOF_OF_DEATH;
    if ((info->tcpi_probes | info->tcpi_retransmits) != 0 || proof_is_doubted(conn) ||
        (keep_idle != 0 && silent_for(info) > keep_idle + (msec_t)1000 * KEEPALIVE_INTERVAL))
        return PROOF_NONE;
    return PROOF_OF_LIFE;
}
