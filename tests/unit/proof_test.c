/*
 * What the kernel's account of an idle connection says of its life.
 */
#include "pool/proof.h"

#include <linux/tcp.h>

#include <criterion/criterion.h>

#include "conn/endpoint.h"

static struct endpoint endpoint;
static struct conn conn = {.endpoint = &endpoint, .idle_since = 1000};

Test(proof, of_probes_and_retransmissions)
{
    struct tcp_info info = {.tcpi_last_ack_recv = 1000000, .tcpi_last_data_recv = 1000000};

    cr_expect(proof_of(&conn, &info) == PROOF_OF_LIFE,
              "without keepalive silence says nothing");
    info.tcpi_probes = 1;
    cr_expect(proof_of(&conn, &info) == PROOF_NONE);
    info.tcpi_probes = 2;
    cr_expect(proof_of(&conn, &info) == PROOF_OF_DEATH);
    info.tcpi_probes = 0;
    info.tcpi_retransmits = 1;
    cr_expect(proof_of(&conn, &info) == PROOF_NONE);
}

/* 15 s until the first probe, and an interval in which it is answered. */
Test(proof, of_silence)
{
    struct tcp_info info = {.tcpi_last_ack_recv = 20000, .tcpi_last_data_recv = 1000000};

    conn.options.keep_idle = 15;
    cr_expect(proof_of(&conn, &info) == PROOF_OF_LIFE);
    info.tcpi_last_ack_recv++;
    cr_expect(proof_of(&conn, &info) == PROOF_NONE);
    info.tcpi_last_data_recv = 20000;
    cr_expect(proof_of(&conn, &info) == PROOF_OF_LIFE, "data is a sign of life, too");
}

Test(proof, of_a_stall_on_another_connection)
{
    struct tcp_info info = {.tcpi_last_ack_recv = 0};

    atomic_store(&endpoint.ask_before, 999);
    cr_expect(proof_of(&conn, &info) == PROOF_OF_LIFE);
    atomic_store(&endpoint.ask_before, 1000);
    cr_expect(proof_of(&conn, &info) == PROOF_NONE);
}
