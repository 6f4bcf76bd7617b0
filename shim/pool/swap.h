/*
 * Which protocol will the next user speak? A server fixes text or binary by the first byte of a
 * connection, and connect() does not say what that will be. It is guessed from what users with
 * the same kind of socket said before; when the first byte shows that the guess was wrong, the
 * connection goes back and a new one to the same server takes the fd before that byte is
 * sent, or the call fails with ECONNRESET.
 *
 * A byte that no hook sees may be the first as well: written by a call that is not parsed,
 * through a second fd or a stdio stream, by another process. So before anything that lets bytes
 * move unseen, a lent connection whose user has not spoken yet is renewed: a newly opened one
 * takes its fd, on which that user's first byte decides.
 *
 * Called without the pool's lock.
 */
#ifndef MCPOOL_SWAP_H
#define MCPOOL_SWAP_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/uio.h>

#include "base/compiler.h"
#include "conn/conn.h"

/* What the user of FRESH, bound to its endpoint and with its flags noted, will probably speak;
 * WIRE_UNDECIDED when it cannot be told. */
enum wire_protocol protocol_guess(struct conn *fresh);

/* What is about to be sent. */
struct pieces {
    const struct iovec *iov;
    size_t count;
    bool readable; /* they and the first byte are known to be */
};

/* PIECES are about to be sent on CONN, on which the caller has a call under way; takes note of
 * what is spoken. False when CONN does not speak that: then the caller ends its call and has it
 * repaired. */
bool protocol_fits(struct conn *conn, const struct pieces *pieces);

/* Puts something that speaks it at FD. False, with errno set, when there is nothing. */
COLD bool protocol_repair(int fd, const struct pieces *pieces);

/* Bytes may move unseen on FD from now on. If a connection is there that was lent and has not
 * been spoken on, a new one to the same server takes the fd, which is set up as the old one is,
 * and the old one goes back to the pool. Does not wait: the first call that sends waits for the
 * new one, or says that it must be waited for. False, with errno set to ECONNRESET and FD shut
 * down, when there is no new one; else errno is kept. What another thread is in a call on is
 * left as it is. Called before the call that lets bytes move. */
COLD bool protocol_renew(int fd);

/* The same before something that a new connection could not be given afterwards, as an unusual
 * option: the bytes will be seen. Where there is no new one FD is left as it is; errno is kept.
 */
COLD void protocol_renew_if_possible(int fd);

/* A duplicate of FD is about to be made by F_DUPFD_CLOEXEC, as socket libraries do it for
 * themselves: it is no redirection of a stdio stream, and bytes are seen through it as through
 * FD. The same, unless the connection speaks what users with the same kind of socket said
 * before and nothing else was ever spoken to its server: then it stays. So it does where there
 * is no new one, as its first byte is seen. Should the guess be wrong all the same, all fds of
 * the connection are given another one together, if no thread is in a call on it. */
COLD void protocol_renew_unless_sure(int fd);

/* The same as protocol_renew() for all fds, before they are inherited or can be used past libc.
 * What there is no new one for is left as it is: most likely its first byte will be seen. Only
 * in a process with one thread: another one might be sending, and nothing could tell on which
 * connection. */
COLD void protocol_renew_all(void);

#endif
