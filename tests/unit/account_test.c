/*
 * The account of a connection that goes to another process: what is written is read, and what
 * cannot be is refused.
 */
#include "pool/account.h"

#include <arpa/inet.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <criterion/criterion.h>

#include "base/owner.h"
#include "conn/endpoint.h"

#define NOW ((msec_t)10 * 1000 * 1000)

static struct endpoint endpoint;
static struct conn conn;
static struct account account;

/* An idle connection, and its account. */
static void write_account(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(11211)};

    cr_assert(address_from(&endpoint.address, (struct sockaddr *)&addr, sizeof(addr)));
    memset(&conn, 0, sizeof(conn));
    conn.endpoint = &endpoint;
    conn.domain = AF_INET;
    conn.cookie = 77;
    conn.sent = 1234;
    conn.received = 56789;
    conn.connected_at = NOW - 60 * 1000;
    conn.idle_since = NOW - 2000;
    conn.expires_at = NOW + 600 * 1000;
    conn.options.keep_idle = 15;
    conn.options.forced_nodelay = true;
    wire_init(&conn.wire);
    wire_sent(&conn.wire, "get a\r\n", 7);
    wire_received(&conn.wire, "END\r\n", 5);
    cr_assert(account_fill(&account, &conn, NOW));
}

TestSuite(account, .init = write_account);

static bool near(msec_t a, msec_t b)
{
    return a - b < 1000 && b - a < 1000;
}

Test(account, is_read_as_it_was_written)
{
    struct conn read = {.endpoint = &endpoint};

    cr_assert(account_is_ours(&account, sizeof(account)));
    cr_assert(account_apply(&account, &read, NOW));
    cr_expect(read.cookie == 77 && read.sent == 1234 && read.received == 56789);
    cr_expect(read.options.keep_idle == 15 && read.options.forced_nodelay);
    cr_expect(near(read.connected_at, conn.connected_at));
    cr_expect(near(read.idle_since, conn.idle_since));
    cr_expect(near(read.expires_at, conn.expires_at));
    cr_expect(wire_verdict(&read.wire) == WIRE_CLEAN);
    cr_expect(wire_protocol(&read.wire) == WIRE_TEXT);
    cr_expect(!account_is_stale(&account, 5000));
}

/* The clock of the other process may have another value. */
Test(account, times_are_those_of_the_reader)
{
    struct conn read = {.endpoint = &endpoint};

    account.given_at -= 3000;
    cr_assert(account_apply(&account, &read, 2 * NOW));
    cr_expect(near(read.idle_since, 2 * NOW - 5000));
    cr_expect(near(read.connected_at, 2 * NOW - 63 * 1000));
    cr_expect(near(read.expires_at, 2 * NOW + 597 * 1000));
    cr_expect(near(account_idle_for(&account), 5000));
}

Test(account, endless_life)
{
    struct conn read = {.endpoint = &endpoint};

    conn.expires_at = INT64_MAX;
    cr_assert(account_fill(&account, &conn, NOW));
    cr_assert(account_apply(&account, &read, NOW + 5));
    cr_expect(read.expires_at > NOW + INT64_C(1000) * 365 * 24 * 3600 * 1000);
}

Test(account, stale)
{
    cr_expect(account_is_stale(&account, 1999));
    account.given_at -= 4000;
    cr_expect(account_is_stale(&account, 5000));
    cr_expect(!account_is_stale(&account, 7000));
    account.given_at -= 600 * 1000;
    cr_expect(account_is_stale(&account, INT64_MAX), "its life is over");
}

Test(account, from_the_future)
{
    struct conn read = {.endpoint = &endpoint};

    account.given_at += 3000;
    cr_expect(account_idle_for(&account) < 0);
    cr_expect(account_is_stale(&account, INT64_MAX));
    cr_expect(!account_apply(&account, &read, NOW));
    cr_expect(read.cookie == 77, "by which it is closed");
}

/* The sanitizer of this test sees an overflow. */
Test(account, times_that_cannot_be)
{
    static const int64_t odd[] = {-1, INT64_MAX, INT64_MIN, INT64_MAX / 2};
    int64_t *const times[] = {&account.given_at, &account.idle_for, &account.age,
                              &account.expires_in};

    for (size_t t = 0; t < sizeof(times) / sizeof(times[0]); t++) {
        for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
            struct conn read = {.endpoint = &endpoint};
            int64_t good = *times[t];

            *times[t] = odd[i];
            cr_expect(account_is_stale(&account, 5000), "%zu %zu", t, i);
            cr_expect(!account_apply(&account, &read, NOW), "%zu %zu", t, i);
            *times[t] = good;
        }
    }
}

Test(account, of_another_size_or_layout)
{
    cr_expect(!account_is_ours(&account, sizeof(account) - 1));
    cr_expect(!account_is_ours(&account, sizeof(account) + 1));
    cr_expect(!account_is_ours(&account, 0));
    account.magic++;
    cr_expect(!account_is_ours(&account, sizeof(account)));
    account.magic--;
    account.size--;
    cr_expect(!account_is_ours(&account, sizeof(account)));
}

Test(account, of_another_identity)
{
    account.identity.uid++;
    cr_expect(!account_is_ours(&account, sizeof(account)));
    account.identity.uid--;
    account.identity.gid++;
    cr_expect(!account_is_ours(&account, sizeof(account)));
    account.identity.gid--;
    account.identity.groups++;
    cr_expect(!account_is_ours(&account, sizeof(account)));
}

/* A process that has changed its user does not take what it gave before. */
Test(account, of_a_former_identity)
{
    if (seteuid(54321) != 0)
        cr_skip_test("it needs root");
    cr_expect(account_is_ours(&account, sizeof(account)), "it is asked once");
    atomic_fetch_add(&cred_epoch, 1);
    cr_expect(!account_is_ours(&account, sizeof(account)));
    cr_assert(seteuid(0) == 0); /* the sanitizer of leaks needs it */
}

Test(account, of_no_protocol)
{
    struct conn read = {.endpoint = &endpoint};

    account.wire.protocol = WIRE_UNDECIDED;
    cr_expect(!account_apply(&account, &read, NOW));
    account.wire.protocol = 77;
    cr_expect(!account_apply(&account, &read, NOW));
}
