/*
 * Writing and reading accounts.
 */
#include "pool/account.h"

#include <string.h>

#include "base/hash.h"
#include "base/owner.h"
#include "base/rawsys.h"
#include "conn/endpoint.h"

#define MAGIC UINT32_C(0x6d637031) /* "mcp1": another layout has another one */

/* No time in an account is longer: so sums of them can be calculated. */
#define TIME_MOST (INT64_C(1) << 52)

/* A process with more groups shares nothing. */
#define GROUPS_MOST 64

static bool ask_identity(struct identity *identity)
{
    gid_t groups[GROUPS_MOST] = {0};
    long count = raw_syscall(SYS_getgroups, GROUPS_MOST, groups);

    if (count < 0)
        return false;
    identity->uid = (uid_t)raw_syscall(SYS_geteuid);
    identity->gid = (gid_t)raw_syscall(SYS_getegid);
    identity->groups = (uint64_t)count;
    for (long i = 0; i < count; i++) {
        identity->groups = hash_mix(identity->groups ^ groups[i]);
        identity->groups ^= identity->groups >> 32;
    }
    return true;
}

/* Asked again when the process has changed it. Called in turns only, so by one thread. */
static const struct identity *identity_now(void)
{
    static struct identity identity;
    static uint32_t asked_at;
    static bool known;
    uint32_t now = atomic_load(&cred_epoch);

    if (!known || asked_at != now) {
        known = ask_identity(&identity);
        asked_at = now;
    }
    return known ? &identity : NULL;
}

static bool is_time(int64_t time)
{
    return time >= 0 && time <= TIME_MOST;
}

/* A process that has the queue may have written anything. */
static bool has_times(const struct account *account)
{
    return is_time(account->given_at) && is_time(account->idle_for) && is_time(account->age) &&
           is_time(account->expires_in);
}

static msec_t boot_time(void)
{
    return clock_of_kernel(CLOCK_BOOTTIME);
}

bool account_fill(struct account *account, const struct conn *conn, msec_t now)
{
    const struct identity *identity = identity_now();

    memset(account, 0, sizeof(*account));
    account->magic = MAGIC;
    account->size = sizeof(*account);
    account->address = conn->endpoint->address;
    account->cookie = conn->cookie;
    account->sent = conn->sent;
    account->received = conn->received;
    account->given_at = boot_time();
    account->idle_for = now - conn->idle_since;
    account->age = now - conn->connected_at;
    account->expires_in = conn->expires_at - now;
    if (account->expires_in > TIME_MOST)
        account->expires_in = TIME_MOST;
    account->domain = conn->domain;
    account->keep_idle = conn->options.keep_idle;
    account->forced_nodelay = conn->options.forced_nodelay;
    wire_save(&conn->wire, &account->wire);
    if (!identity)
        return false;
    account->identity = *identity;
    return true;
}

bool account_is_ours(const struct account *account, size_t n)
{
    const struct identity *ours = identity_now();

    return n == sizeof(*account) && account->magic == MAGIC &&
           account->size == sizeof(*account) && ours &&
           memcmp(&account->identity, ours, sizeof(*ours)) == 0;
}

msec_t account_idle_for(const struct account *account)
{
    msec_t queued = has_times(account) ? boot_time() - account->given_at : -1;

    return queued < 0 ? -1 : account->idle_for + queued;
}

bool account_is_stale(const struct account *account, msec_t most)
{
    msec_t idle_for = account_idle_for(account);

    return idle_for < 0 || idle_for > most ||
           idle_for - account->idle_for >= account->expires_in;
}

bool account_apply(const struct account *account, struct conn *conn, msec_t now)
{
    msec_t idle_for = account_idle_for(account);
    msec_t queued;

    conn->cookie = account->cookie;
    if (idle_for < 0)
        return false;
    queued = idle_for - account->idle_for;
    conn->sent = account->sent;
    conn->received = account->received;
    conn->idle_since = now - idle_for;
    conn->connected_at = now - account->age - queued;
    conn->expires_at = now + account->expires_in - queued;
    conn->options.keep_idle = account->keep_idle;
    conn->options.forced_nodelay = account->forced_nodelay != 0;
    return wire_restore(&conn->wire, &account->wire);
}
