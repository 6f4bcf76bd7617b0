/*
 * Following what an operator wishes.
 */
#include "pool/switch.h"

#include <errno.h>
#include <string.h>

#include "conn/conn.h"
#include "conn/endpoint.h"
#include "conn/shadow.h"
#include "pool/discard.h"
#include "pool/mode.h"
#include "pool/pool.h"
#include "stats/log.h"
#include "stats/stats.h"

static const char *const names[WISHES] = {
    [WISH_ON] = "on", [WISH_DRY] = "dry run", [WISH_OFF] = "off", [WISH_FLUSH] = "flush"};

static atomic_bool following;    /* a trylock: one thread at a time */
static struct endpoint *flushed; /* by the thread that has it */

static void refuse(struct conn *conn, int reason)
{
    conn_refuse(conn, (enum reason)reason);
    shadow_drop(conn);
}

/* Only in this order: see may_be_idle() in pool/pool.c. */
static void change_mode(enum mode to)
{
    if (mode_now() == to)
        return;
    atomic_store(&pool_mode, to);
    conn_for_each_open(refuse, REASON_SWITCHED);
    discard_idle(REASON_SWITCHED);
}

static void refuse_flushed(struct conn *conn, int unused)
{
    (void)unused;
    if (conn_state(conn) == CONN_IN_USE && conn->endpoint == flushed)
        refuse(conn, REASON_FLUSHED);
}

/* False if the lock of the pool was refused. */
static bool flush_one(struct endpoint *endpoint, msec_t now)
{
    struct evicted evicted;
    bool full;

    flushed = endpoint;
    conn_for_each_open(refuse_flushed, 0);
    do {
        evicted.count = 0;
        if (!pool_flush_endpoint(endpoint, now, &evicted))
            return false;
        full = evicted.count == POOL_EVICTED_MAX;
        discard_evicted(&evicted);
    } while (full);
    return true;
}

static bool flush(const char *name, msec_t now)
{
    bool done = true;

    for (struct endpoint *at = endpoint_next(NULL); at; at = endpoint_next(at)) {
        if (name[0] == '\0' || strcmp(at->text, name) == 0)
            done &= flush_one(at, now);
    }
    return done;
}

/* False when it is to be tried again. */
static bool follow(const struct switch_file *wish, msec_t now)
{
    log_line(LOG_INFO, "mcpool: %s %s", names[wish->wish], wish->endpoint);
    if (wish->wish == WISH_FLUSH)
        return flush(wish->endpoint, now);
    change_mode((enum mode)wish->wish);
    return true;
}

void switch_follow(msec_t now)
{
    struct switch_file wish;
    int saved = errno;

    if (atomic_exchange(&following, true))
        return;
    if (stats_read_wish(&wish) && follow(&wish, now))
        stats_follow(mode_now(), wish.generation);
    atomic_store(&following, false);
    errno = saved;
}

void switch_after_fork_in_child(void)
{
    atomic_store(&following, false);
}
