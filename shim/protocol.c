/*
 * Guess, lesson and repair.
 */
#include "protocol.h"

#include <errno.h>
#include <fcntl.h>

#include "checkin.h"
#include "endpoint.h"
#include "fdmap.h"
#include "lending.h"
#include "libc.h"
#include "log.h"
#include "process.h"
#include "proof.h"
#include "raw.h"
#include "readable.h"

/* Client libraries prepare their sockets each in their own way. */
static uint8_t habit_of(const struct conn *fresh)
{
    uint32_t looks = fresh->options.given * 2u + ((fresh->flags & O_NONBLOCK) != 0);

    return (uint8_t)(looks * UINT32_C(0x9e3779b1) >> 16) % POOL_HABITS;
}

enum wire_protocol protocol_guess(struct conn *fresh)
{
    fresh->habit = habit_of(fresh);
    return (enum wire_protocol)atomic_load(&fresh->endpoint->habits[fresh->habit]);
}

static void learn(struct conn *conn, enum wire_protocol protocol)
{
    conn->spoke = true;
    atomic_store(&conn->endpoint->habits[conn->habit], (uint8_t)protocol);
}

/* The first byte of the first piece that has one; NULL when it cannot be read. */
static const uint8_t *first_byte(const struct iovec *iov, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        if (!is_readable(&iov[i], sizeof(iov[i])))
            return NULL;
        if (iov[i].iov_len > 0)
            return is_readable(iov[i].iov_base, 1) ? iov[i].iov_base : NULL;
    }
    return NULL;
}

/* A socket on its way to the same peer as FD, prepared as that is; -1 when there is none. */
static int dial_again(int fd, const struct conn *conn)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    long flags = raw_syscall(SYS_fcntl, fd, F_GETFL);
    long to, result = -EINVAL;

    if (flags < 0 || raw_syscall(SYS_getpeername, fd, &peer, &len) != 0)
        return -1;
    to = raw_syscall(SYS_socket, conn->domain, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (to < 0)
        return -1;
    if (options_give((int)to, &conn->options))
        result = raw_syscall(SYS_connect, to, &peer, len);
    if ((result == 0 || result == -EINPROGRESS) &&
        raw_syscall(SYS_fcntl, to, F_SETFL, flags) == 0)
        return (int)to;
    libc_close_quietly((int)to);
    return -1;
}

/* A record for SOCKET_FD, which is going to be at FD: like CONN's in all that its user did. */
static struct conn *record_of(int socket_fd, int fd, const struct conn *conn)
{
    struct conn *record = conn_new(fd, conn->domain);

    if (!record)
        return NULL;
    record->options = conn->options;
    record->watches = conn->watches;
    record->habit = conn->habit;
    record->children = atomic_load(&process_children);
    record->identities = atomic_load(&process_identities);
    if (proof_cookie(socket_fd, &record->cookie) &&
        lending_enlist(record, &conn->endpoint->address, clock_now())) {
        record->spoke = true;
        return record;
    }
    conn_move(record, CONN_CLOSED);
    return NULL;
}

struct substitute {
    int fd;
    struct conn *record;
};

/* Only once for each user; and not when bytes may have moved that were not seen. */
static bool is_wrong(struct conn *conn, const struct iovec *iov, size_t count)
{
    enum wire_protocol spoken = wire_protocol(&conn->wire);
    enum wire_protocol wanted;
    const uint8_t *first;

    if (conn->spoke || conn_state(conn) != CONN_IN_USE || conn_refusal(conn) != REASON_NONE ||
        !process_is_owner())
        return false;
    first = first_byte(iov, count);
    if (!first)
        return false;
    wanted = wire_protocol_of(*first);
    learn(conn, wanted);
    return spoken != WIRE_UNDECIDED && spoken != wanted;
}

static void find_substitute(struct substitute *substitute, int fd, const struct conn *conn)
{
    *substitute = (struct substitute){.fd = dial_again(fd, conn)};
    if (substitute->fd >= 0)
        substitute->record = record_of(substitute->fd, fd, conn);
}

static bool put_in_place(struct substitute *substitute, int fd)
{
    struct conn *record = substitute->record;
    bool done = record && check_in_behind(fd, substitute->fd);

    if (record && !(done && fdmap_replace(fd, FDMAP_NONE, conn_slot(record))))
        conn_move(record, CONN_CLOSED);
    if (substitute->fd >= 0)
        libc_close_quietly(substitute->fd);
    return done;
}

/* The send that made us look waits for the new connection, or says that it must be waited for,
 * as on any socket that is connecting: nothing here blocks. */
bool protocol_fits(int fd, const struct iovec *iov, size_t count)
{
    struct conn *conn = conn_enter(fd, CONN_CALL_OTHER);
    struct substitute substitute;
    struct endpoint *endpoint;
    bool wrong, repaired;

    if (!conn)
        return true;
    wrong = is_wrong(conn, iov, count);
    endpoint = conn->endpoint;
    if (wrong)
        find_substitute(&substitute, fd, conn);
    conn_leave(conn, CONN_CALL_OTHER);
    if (!wrong)
        return true;
    repaired = put_in_place(&substitute, fd);
    stats_count(repaired ? &endpoint->stats.repaired : &endpoint->stats.misled);
    log_line(LOG_DEBUG, "%s: %s at %d, whose user speaks another protocol", endpoint->text,
             repaired ? "exchanged" : "cut off", fd);
    if (repaired)
        return true;
    raw_syscall(SYS_shutdown, fd, SHUT_RDWR);
    errno = ECONNRESET;
    return false;
}
