/*
 * Which code calls connect(). On a socket that does not block, Linux answers EINPROGRESS, never
 * 0, and a program may wait for what follows. For a connection that is there already the wait
 * is a detour: under gevent some ten system calls for each operation. So a caller that is known
 * to understand 0 is told 0. The only one is the socket module of CPython 3:
 * internal_connect() in Modules/socketmodule.c returns at once when connect() has returned 0,
 * and makes no difference between sockets that block and others. PyPy is another program.
 */
#ifndef MCPOOL_CALLERS_H
#define MCPOOL_CALLERS_H

#include <stdbool.h>

/* Whether the code that a call of connect() returns to, at SITE, understands 0 on a socket that
 * does not block. It does if it is mapped from a file that, by its name, is the socket module
 * of CPython 3, or the interpreter or its library, where the module may be built in and nothing
 * else calls connect().
 *
 * The first time for a SITE /proc/self/maps (proc(5)) is read, then the answer is remembered,
 * for good: where an object was unloaded and another one has a call of connect() at the very
 * same address, that one is told 0 too. The answer is remembered for a few sites. For others,
 * and where the file cannot be read, it is no.
 *
 * Takes no lock, allocates nothing, does not block; errno and cancellation are not touched. */
bool callers_take_zero(const void *site);

#endif
