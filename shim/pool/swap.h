/*
 * Another connection at the fd of one that was lent: when the first byte shows that the guess
 * of its protocol was wrong (pool/guess.h), the connection goes back and a new one to the same
 * server takes the fd before that byte is sent, or the call fails with ECONNRESET.
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

#include "base/compiler.h"
#include "pool/guess.h"

/* PIECES are about to be sent on FD, and guess_fits() has said that the connection there
 * does not speak that: puts one that does at FD. False, with errno set, when there is nothing.
 */
COLD bool swap_to_fit(int fd, const struct pieces *pieces);

/* Bytes may move unseen on FD from now on. If a connection is there that was lent and has not
 * been spoken on, a new one to the same server takes the fd, which is set up as the old one is,
 * and the old one goes back to the pool. Does not wait: the first call that sends waits for the
 * new one, or says that it must be waited for. False, with errno set to ECONNRESET and FD shut
 * down, when there is no new one; else errno is kept. What another thread is in a call on is
 * left as it is. Called before the call that lets bytes move. */
COLD bool swap_for_new(int fd);

/* The same before something that a new connection could not be given afterwards, as an unusual
 * option: the bytes will be seen. Where there is no new one FD is left as it is; errno is kept.
 */
COLD void swap_for_new_if_possible(int fd);

/* A duplicate of FD is about to be made by F_DUPFD_CLOEXEC, as socket libraries do it for
 * themselves: it is no redirection of a stdio stream, and bytes are seen through it as through
 * FD. The same, unless the connection speaks what users with the same kind of socket said
 * before and nothing else was ever spoken to its server: then it stays. So it does where there
 * is no new one, as its first byte is seen. Should the guess be wrong all the same, all fds of
 * the connection are given another one together, if no thread is in a call on it. */
COLD void swap_for_new_unless_sure(int fd);

/* The same as swap_for_new() for all fds, before they are inherited or can be used past libc.
 * What there is no new one for is left as it is: most likely its first byte will be seen. Only
 * in a process with one thread: another one might be sending, and nothing could tell on which
 * connection. */
COLD void swap_all_for_new(void);

#endif
