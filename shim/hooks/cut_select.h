/*
 * select() and pselect(), cut into pieces (hooks/pieces.h).
 */
#ifndef MCPOOL_CUT_SELECT_H
#define MCPOOL_CUT_SELECT_H

#include "hooks/libc.h"
#include "hooks/pieces.h"

/* Each does what the function of that name does, errors included. No lock may be held. */
IN_PIECES int cut_select(int n, fd_set *readable, fd_set *writable, fd_set *except,
                         struct timeval *timeout);
IN_PIECES int cut_pselect(int n, fd_set *readable, fd_set *writable, fd_set *except,
                          const struct timespec *timeout, const sigset_t *mask);

#endif
