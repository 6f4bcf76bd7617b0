/*
 * Which goodbyes may be kept from the server, and the tombstone.
 */
#include "pool/quit.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/socket.h>

#include "pool/checkin.h"
#include "conn/conn.h"
#include "pool/discard.h"
#include "base/owner.h"
#include "base/rawsys.h"

struct farewell {
    uint8_t answer[WIRE_QUIT_ANSWER];
    bool answered;
};

/* The end of file that follows a goodbye tells the program that the server has done everything
 * it was sent, and has sent all answers. The tombstone may say so only when the server's
 * answers have shown it already. */
static bool may_intercept(int fd, uint32_t word, const void *goodbye, size_t n,
                          struct farewell *farewell)
{
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    bool may = false;

    if (!conn)
        return false;
    if (owner_is_this_process() && conn_state(conn) == CONN_IN_USE &&
        conn_refusal(conn) == REASON_NONE && !conn_is_shared(conn) && conn_trylock(conn)) {
        may = wire_verdict(&conn->wire) == WIRE_CLEAN &&
              (!goodbye || wire_quit(&conn->wire, goodbye, n));
        farewell->answered =
            goodbye && wire_quit_answer(&conn->wire, goodbye, farewell->answer);
        conn_unlock(conn);
    }
    may = may && !discard_if_elsewhere(conn, fd);
    conn_put(conn, CONN_CALL_OTHER);
    return may;
}

static int make_tombstone(int flags, const struct farewell *farewell)
{
    int pair[2] = {-1, -1};
    int type = SOCK_STREAM | SOCK_CLOEXEC | (flags & O_NONBLOCK ? SOCK_NONBLOCK : 0);

    if (raw_syscall(SYS_socketpair, AF_UNIX, type, 0, pair) != 0)
        return -1;
    if (farewell->answered)
        raw_syscall(SYS_sendto, pair[1], farewell->answer, sizeof(farewell->answer),
                    MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
    raw_close(pair[1]);
    return pair[0];
}

bool quit_intercept(int fd, uint32_t word, const void *goodbye, size_t n)
{
    struct farewell farewell = {.answered = false};
    int saved = errno;
    bool buried;
    int tombstone;

    if (!may_intercept(fd, word, goodbye, n, &farewell))
        return false;
    tombstone = make_tombstone((int)raw_syscall(SYS_fcntl, fd, F_GETFL), &farewell);
    if (tombstone < 0)
        return false;
    buried = check_in_behind(fd, word, tombstone);
    raw_close(tombstone);
    errno = saved;
    return buried;
}
