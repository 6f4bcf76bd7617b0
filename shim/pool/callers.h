/*
 * Which callers of connect() accept 0 on a non-blocking socket. Linux answers EINPROGRESS
 * there, never 0, and a program may wait for what follows. For a pooled connection that wait is
 * a detour: under gevent some ten system calls for each operation. So a caller that is known to
 * accept 0 gets 0.
 *
 * The only one is the socket module of CPython 3: internal_connect() in Modules/socketmodule.c
 * returns at once if connect() has returned 0, and does not distinguish blocking from
 * non-blocking sockets. PyPy is another program.
 */
#ifndef MCPOOL_CALLERS_H
#define MCPOOL_CALLERS_H

#include <stdbool.h>

/* Whether the code at SITE, to which a call of connect() returns, accepts 0 on a non-blocking
 * socket. It does if it is mapped from a file whose name is that of the socket module of
 * CPython 3, or of the interpreter or its library: the module may be built in there, and
 * nothing else in them calls connect().
 *
 * The first call for a SITE reads /proc/self/maps (proc(5)). The answer is then remembered for
 * good. So if an object is unloaded and another one calls connect() from the very same address,
 * that one gets 0 too. Only a few sites are remembered: for others, and if the file cannot be
 * read, the answer is no.
 *
 * Takes no lock, allocates nothing, does not block; errno and cancellation are not touched. */
bool callers_accept_zero(const void *site);

#endif
