/*
 * Swaps: another connection takes the fd of a reused one on which the program has not sent
 * anything yet. There are two causes.
 *
 * The guess of the protocol was wrong (pool/guess.h), as the first byte shows. Before that byte
 * is sent, a connection that speaks the other protocol, or a new one, takes the fd, and the
 * reused one goes back to the pool. If there is none, the call fails with ECONNRESET.
 *
 * Bytes may move where no hook sees them: by a call that is not parsed, through a duplicate or
 * a stdio stream, in another process. The unseen first byte may be of the other protocol. So
 * before anything that lets bytes move unseen, a newly opened connection takes the fd: the
 * server decides on that one's first byte.
 *
 * Called without the pool's lock.
 */
#ifndef MCPOOL_SWAP_H
#define MCPOOL_SWAP_H

#include <stdbool.h>

#include "base/compiler.h"
#include "pool/guess.h"

/* PIECES are about to be sent on FD, and guess_fits() has said that the connection there does
 * not speak their protocol: puts one at FD that does. False, with errno set to ECONNRESET and
 * FD shut down, if there is none. */
COLD bool swap_to_fit(int fd, const struct pieces *pieces);

/* Bytes may move unseen on FD from now on; to be called before the call that lets them. If FD
 * is a reused connection on which the program has not sent anything, a new connection to the
 * same server takes FD, with the same options, and the old one goes back to the pool. Does not
 * wait for the handshake: the first call that sends on FD does, as on any socket that is
 * connecting. Where guess_is_sure(), the old one stays unless the new one is connected at once.
 * Else, if there is no new one: false, with errno set to ECONNRESET and FD shut down. Otherwise
 * errno is kept. If another thread is in a call on FD, nothing changes. */
COLD bool swap_for_new(int fd);

/* As swap_for_new(), before a call that we cannot repeat on a new connection, such as an
 * unusual socket option. Bytes on FD stay visible, so without a new connection FD is left as it
 * is. errno is kept. */
COLD void swap_for_new_if_possible(int fd);

/* F_DUPFD_CLOEXEC is about to duplicate FD. Socket libraries do that for themselves: it
 * redirects no stdio stream, and the hooks see the bytes on the duplicate as well. So this
 * swaps as swap_for_new_if_possible(), but keeps the connection if guess_is_sure(). If the
 * guess is wrong all the same, swap_to_fit() later swaps all fds of the connection together,
 * unless a thread is in a call on it. */
COLD void swap_for_new_unless_sure(int fd);

/* As swap_for_new_if_possible(), for all fds, before a child inherits them or calls past libc
 * can use them. Without a new connection an fd is left as it is: most likely a hook will see
 * its first byte. Does nothing if the process has several threads: another one might be
 * sending, and we could not tell on which connection. */
COLD void swap_all_for_new(void);

#endif
