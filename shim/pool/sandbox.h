/*
 * Sandboxes that the program enters while it runs: a seccomp filter (seccomp(2)) and a Landlock
 * domain (landlock(7)). A pooled connection would lead where connect() is forbidden by now, and
 * a filter may kill the process for any system call that the program itself would not make. So
 * what is idle is closed before, while that is surely allowed, and afterwards nothing of ours
 * makes a system call: this process owns no pool any more, as a child that did not run the fork
 * handlers owns none.
 */
#ifndef MCPOOL_SANDBOX_H
#define MCPOOL_SANDBOX_H

#include <stdbool.h>

#include "base/compiler.h"

/* A call follows that may put the process or the calling thread into a sandbox. Every private
 * descriptor is closed, every connection and ring forgotten, and until sandbox_end() all hooks
 * are plain calls. Waits for threads that are inside a hook: 1 ms where there are threads, and
 * up to 10 while another thread is being lent one, giving one back or writing counters. True
 * when sandbox_end() is due: not where this process has no pool. Called without locks; errno is
 * kept. */
COLD bool sandbox_begin(void);

/* The call has returned. ENTERED: it succeeded, and all hooks stay plain calls; no system call
 * is made. Otherwise what is opened from now on is pooled. errno is kept. */
COLD void sandbox_end(bool entered);

#endif
