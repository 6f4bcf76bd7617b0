/*
 * Which quits may be kept from the server, and the tombstone.
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

/* What the server would have answered to a quit, if it answers it. */
struct quit_answer {
    uint8_t bytes[WIRE_QUIT_ANSWER];
    bool is_due;
};

/* Whether the quit may be kept from the server; ANSWER is what the server would have answered.
 * The end of file after a quit tells the program that the server has done everything it was
 * sent and has sent all replies. The tombstone may say so only if the server's replies have
 * shown it already. */
static bool may_intercept(int fd, uint32_t word, const void *quit, size_t n,
                          struct quit_answer *answer)
{
    struct conn *conn = conn_get_at(fd, word, CONN_CALL_OTHER);
    bool may = false;

    if (!conn)
        return false;
    if (owner_is_this_process() && conn_state(conn) == CONN_IN_USE &&
        conn_refusal(conn) == REASON_NONE && !conn_is_shared(conn) && conn_trylock(conn)) {
        may = wire_verdict(&conn->wire) == WIRE_CLEAN &&
              (!quit || wire_quit(&conn->wire, quit, n));
        answer->is_due = quit && wire_quit_answer(&conn->wire, quit, answer->bytes);
        conn_unlock(conn);
    }
    may = may && !discard_if_elsewhere(conn, fd);
    conn_put(conn, CONN_CALL_OTHER);
    return may;
}

/* A tombstone with the file status FLAGS, on which ANSWER can be read; -1 if there is none. */
static int make_tombstone(int flags, const struct quit_answer *answer)
{
    int pair[2] = {-1, -1};
    int type = SOCK_STREAM | SOCK_CLOEXEC | (flags & O_NONBLOCK ? SOCK_NONBLOCK : 0);

    if (raw_syscall(SYS_socketpair, AF_UNIX, type, 0, pair) != 0)
        return -1;
    if (answer->is_due)
        raw_syscall(SYS_sendto, pair[1], answer->bytes, sizeof(answer->bytes),
                    MSG_NOSIGNAL | MSG_DONTWAIT, NULL, 0);
    raw_close(pair[1]);
    return pair[0];
}

bool quit_intercept(int fd, uint32_t word, const void *quit, size_t n)
{
    struct quit_answer answer = {.is_due = false};
    int saved = errno;
    bool checked_in;
    int tombstone;

    if (!may_intercept(fd, word, quit, n, &answer))
        return false;
    tombstone = make_tombstone((int)raw_syscall(SYS_fcntl, fd, F_GETFL), &answer);
    if (tombstone < 0)
        return false;
    checked_in = check_in_behind(fd, word, tombstone);
    raw_close(tombstone);
    errno = saved;
    return checked_in;
}
