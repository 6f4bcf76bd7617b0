/*
 * Sandboxes that the program enters while it runs: a seccomp filter (seccomp(2)) and a Landlock
 * domain (landlock(7)). After that a pooled connection would lead where connect() is forbidden,
 * and a filter may kill the process for a system call that the program itself would not make.
 * So all idle connections are closed before the call, while that is surely allowed. Afterwards
 * we make no system call at all: the process is not the owner of a pool any more
 * (base/owner.h), like a child that did not run the fork handlers.
 */
#ifndef MCPOOL_SANDBOX_H
#define MCPOOL_SANDBOX_H

#include <stdbool.h>

#include "base/compiler.h"

/* To be called before a call that may put the process or the calling thread into a sandbox.
 * Closes every shadow fd and forgets every connection and ring; until sandbox_end() all hooks
 * are plain calls. Waits for threads that are inside a hook: up to a second for one whose wait
 * is cut (waiter_recall_all()), then 1 ms if there are other threads, and up to 10 ms while one
 * checks a connection in or out or writes counters. True if sandbox_end() must be called; false
 * if this process has no pool. To be called without locks; errno is kept. */
COLD bool sandbox_begin(void);

/* The call has returned. ENTERED: it succeeded. Then all hooks stay plain calls, and no system
 * call is made. Otherwise connections opened from now on are pooled. errno is kept. */
COLD void sandbox_end(bool entered);

#endif
