/*
 * Closing idle connections that were not needed, and learning from those that ended.
 */
#include "pool/custody.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <poll.h>

#include "base/owner.h"
#include "base/rawsys.h"
#include "pool/discard.h"
#include "pool/request.h"
#include "pool/sharing.h"

#define TCP_STATE_CLOSE_WAIT 8 /* linux/tcp_states.h is not for user space */

/* Takes a few connections out at a time, so that the lock is held shortly. */
static void close_due(msec_t now, bool all)
{
    struct evicted evicted;
    int saved = errno;
    bool more;

    do {
        evicted.count = 0;
        /* If another thread has the lock, the work is left for a later call. */
        if (!pool_evict_due(now, all, &evicted))
            break;
        more = evicted.count == POOL_EVICTED_MAX;
        sharing_release(&evicted);
    } while (more);
    errno = saved;
}

void custody_do_due(msec_t now)
{
    close_due(now, false);
}

msec_t custody_in(msec_t now)
{
    msec_t at = custody_due_at();

    if (at == POOL_NEVER)
        return POOL_NEVER;
    return (at > now ? at - now : 0) + CLOCK_LAG;
}

/* Whether accept(FD) waits when there is nothing to accept. */
static bool blocks(int fd)
{
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFL);

    return flags >= 0 && !(flags & O_NONBLOCK);
}

static bool is_ready(int fd)
{
    struct pollfd listener = {.fd = fd, .events = POLLIN};
    const struct timespec none = {0};

    return raw_syscall(SYS_ppoll, &listener, 1, &none, NULL, 0) != 0;
}

/* Whether the family is to hear that this process, which has none in use, blocks. */
static bool is_family_concerned(void)
{
    bool has_given;

    if (!family_get())
        return false;
    has_given = request_end();
    return (has_given || limits_idle() > 0 || members_self_is(MEMBER_AT_WORK)) &&
           !endpoint_any_in_use();
}

void custody_before_accept(int fd, msec_t now)
{
    bool shares = is_family_concerned();

    /* relaxed: a hint */
    if (!shares && atomic_load_explicit(&pool_surplus, memory_order_relaxed) == 0)
        return;
    if (!owner_has_one_thread() || !blocks(fd))
        return;
    /* Also where there is something to accept: another process may be faster. That one is at
     * work, and blocks later, so this one need not tidy up. */
    if (shares)
        sharing_note_block();
    if (is_ready(fd))
        return;
    if (shares)
        sharing_before_block(now);
    close_due(now, true);
}

void custody_before_sleep(msec_t now, msec_t length)
{
    if (custody_due_at() == POOL_NEVER || !owner_has_one_thread())
        return;
    if (length >= SHARING_QUIET && !endpoint_any_in_use())
        sharing_give_idle(now, 0);
    if (custody_due_at() <= now + length)
        close_due(now + length, false);
}

/* The server's FIN has renewed the time of the last acknowledgement. */
void custody_note_end(const struct conn *conn, const struct tcp_info *info, msec_t now)
{
    msec_t at = now - (msec_t)info->tcpi_last_ack_recv;

    if (info->tcpi_state == TCP_STATE_CLOSE_WAIT && at > conn->idle_since)
        pool_note_close(conn->endpoint, at - conn->idle_since, at);
}
