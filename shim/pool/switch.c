/*
 * Following what an operator wishes.
 */
#include "pool/switch.h"

#include <errno.h>

#include "base/clock.h"
#include "base/owner.h"
#include "base/ownfile.h"
#include "conn/conn.h"
#include "conn/shadow.h"
#include "pool/discard.h"
#include "pool/pool.h"
#include "pool/sharing.h"
#include "pool/tending.h"
#include "stats/log.h"
#include "stats/stats.h"
#include "stats/switch_file.h"

static const char *const names[WISHES] = {
    [WISH_ON] = "on", [WISH_DRY] = "dry", [WISH_OFF] = "off", [WISH_FLUSH] = "flush"};

/* A trylock: a thread that is late must not follow an older wish than another thread. */
static atomic_bool following;

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
    atomic_store(&mode_word, to | MODE_CHANGED);
    conn_for_each_open(refuse, REASON_SWITCHED);
    discard_idle(REASON_SWITCHED);
    if (to != MODE_ON)
        sharing_when_switched_off();
}

/* False if the pool's lock was refused: it is tried again at the next look. */
static bool flush(const char *endpoint)
{
    struct evicted evicted;
    bool full;

    atomic_fetch_or(&mode_word, MODE_CHANGED);
    do {
        evicted.count = 0;
        if (!pool_flush_older(endpoint, clock_now(), &evicted))
            return false;
        full = evicted.count == POOL_EVICTED_MAX;
        discard_evicted(&evicted);
    } while (full);
    tending_flush(endpoint);
    return true;
}

static bool follow(const struct switch_file *wish)
{
    bool done = true;

    log_line(LOG_INFO, "mcpool %s%s%s", names[wish->wish], wish->endpoint[0] ? " " : "",
             wish->endpoint);
    if (wish->wish == WISH_FLUSH)
        done = flush(wish->endpoint);
    else
        change_mode((enum mode)wish->wish);
    if (done)
        stats_followed(wish->generation);
    return done;
}

bool switch_follow(void)
{
    struct switch_file wish;
    struct ownfile own;
    bool done = false;
    int saved = errno;

    if (!owner_is_this_process() || !ownfile_begin(&own))
        return false;
    if (!atomic_exchange(&following, true)) {
        done = stats_read_wish(&wish) && follow(&wish);
        atomic_store(&following, false);
    }
    ownfile_end(&own, 0, 0);
    errno = saved;
    return done;
}

void switch_after_fork_in_child(void)
{
    atomic_store(&following, false);
}
