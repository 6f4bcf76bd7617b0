/*
 * Start-up and exit of the library. Until start() has run, every hook is a plain call. If
 * something that start() needs is missing, they stay so. What can wait until the program opens
 * a socket is in hooks/wake.c.
 *
 * That includes a process with no environment at all, as its configuration is not known.
 * environ is null where libc.so.6 runs as a program, and after clearenv(3) in an earlier
 * constructor.
 */
#include <stdbool.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/owner.h"
#include "base/usermem.h"
#include "conn/ring.h"
#include "hooks/libc.h"
#include "hooks/track.h"
#include "hooks/wake.h"
#include "pool/fork.h"
#include "pool/sharing.h"
#include "pool/report.h"
#include "stats/mode.h"
#include "stats/stats.h"

static const struct ring_above told_by_rings = {
    .new_fd = track_new_fd_slow,
    .unseen = track_unseen,
    .unseen_everywhere = track_unseen_everywhere,
};

/* glibc's pthread_atfork(), with the object that the handlers belong to, which other libraries
 * get from a start file (Makefile). Weak, as other libcs lack it: a program that is linked with
 * one (musl) inherits LD_PRELOAD as well, and must start and run as without us. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*): the names are glibc's. */
extern int __register_atfork(void (*before)(void), void (*in_parent)(void),
                             void (*in_child)(void), void *object) __attribute__((weak));
extern void *__dso_handle __attribute__((visibility("hidden")));
void *__dso_handle = &__dso_handle;
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*) */

/* Go's cgo exports it from every program and library that holds Go's runtime. */
extern void crosscall2(void) __attribute__((weak));

/* The first fork makes the family (pool/family.h), for which the pool must be at work. */
static void before_fork(void)
{
    libc_bind_exit();
    if (owner_is_this_process())
        wake();
    fork_before();
}

static void child_made(void)
{
    wake_after_fork_in_child();
    fork_after_in_child();
}

__attribute__((constructor)) static void start(void)
{
    bool can_unwind = libc_start();

    if (!__register_atfork || getauxval(AT_SECURE) != 0 || !environ)
        return;
    usermem_start();
    ring_start(&told_by_rings);
    if (__register_atfork(before_fork, fork_after_in_parent, child_made, __dso_handle) != 0)
        return;
    if (crosscall2)
        owner_refuse(REASON_GO_PROGRAM);
    /* From here on the process is the owner, and the hooks are at work. */
    owner_adopt();
    wake_start(environ, can_unwind);
}

/* Frees and closes nothing: destructors of other libraries may still use their connections. */
__attribute__((destructor)) static void finish(void)
{
    if (!owner_is_this_process() || mode_is_asleep())
        return;
    sharing_at_end();
    report_all();
    stats_finish();
}
