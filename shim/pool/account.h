/*
 * The account of an idle connection: what the next process must know of it. It travels with the
 * fd through the queue of the family (pool/sharing.h).
 *
 * A process that has the queue can put anything into it, so what an account says is believed
 * only as far as the kernel confirms it of the socket (verify.h).
 */
#ifndef MCPOOL_ACCOUNT_H
#define MCPOOL_ACCOUNT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "config/address.h"
#include "conn/conn.h"
#include "pool/family.h"
#include "wire/wire.h"

/* Who a process is, as the kernel has it. */
struct identity {
    uid_t uid; /* the effective one, as is the group */
    gid_t gid;
    uint64_t groups; /* a hash of the others */
};

/* Without padding, as it is compared and sent as bytes. Times are in milliseconds. */
struct account {
    uint32_t magic;
    uint32_t size;
    struct identity identity; /* of the process that gave it */
    struct address address;   /* of the peer */
    uint64_t cookie;
    uint64_t sent, received; /* bytes, since the connection was opened */
    int64_t given_at;        /* on CLOCK_BOOTTIME, which is the same in all processes */
    int64_t idle_for;        /* at that moment, as are the next two */
    int64_t age;
    int64_t expires_in;
    int32_t domain;
    uint16_t keep_idle; /* as in struct sockopts */
    uint8_t forced_nodelay;
    struct wire_saved wire;
    uint8_t unused[3];
};

_Static_assert(sizeof(struct account) <= FAMILY_MESSAGE_MOST, "it has to be small");

/* Fills ACCOUNT with that of CONN, which is clean and idle. False when the identity of the
 * process is not known: it has very many groups. In a turn (pool/family.h). */
COLD bool account_fill(struct account *account, const struct conn *conn, msec_t now);

/* Whether the N bytes at ACCOUNT are an account, and of a process with the identity of this
 * one. */
COLD bool account_is_ours(const struct account *account, size_t n);

/* How long the connection has been idle by now; negative when the account is from the future,
 * or its times cannot be. */
COLD msec_t account_idle_for(const struct account *account);

/* Whether the connection has idled for longer than MOST, or has reached its lifetime. */
COLD bool account_is_stale(const struct account *account, msec_t most);

/* Gives CONN, which is new, what ACCOUNT says. False when it says what cannot be: CONN gets the
 * cookie only, by which it is closed. */
COLD bool account_apply(const struct account *account, struct conn *conn, msec_t now);

#endif
