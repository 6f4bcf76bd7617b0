/*
 * Start-up and exit of the library. Until start() has run, every hook is a plain call. If
 * something that start() needs is missing, they stay so.
 *
 * That includes a process with no environment at all, as its configuration is not known.
 * environ is null where libc.so.6 runs as a program, and after clearenv(3) in an earlier
 * constructor.
 */
#include <stdbool.h>
#include <sys/auxv.h>
#include <unistd.h>

#include "base/clock.h"
#include "config/config.h"
#include "conn/conn.h"
#include "hooks/deepbind.h"
#include "pool/checkout.h"
#include "pool/discard.h"
#include "pool/fork.h"
#include "hooks/libc.h"
#include "hooks/track.h"
#include "conn/ring.h"
#include "stats/log.h"
#include "base/usermem.h"
#include "pool/pool.h"
#include "pool/report.h"
#include "base/owner.h"

static struct config config;

static const struct ring_above told_by_rings = {
    .new_fd = track_new_fd_slow,
    .unseen = track_unseen,
    .unseen_everywhere = track_unseen_everywhere,
};

/* glibc's pthread_atfork(), with the object that the handlers belong to. Weak, as other libcs
 * lack it: a program that is linked with one (musl) inherits LD_PRELOAD as well, and must start
 * and run as without us. */
/* NOLINTBEGIN(bugprone-reserved-identifier,cert-dcl*): the names are glibc's. */
extern int __register_atfork(void (*before)(void), void (*in_parent)(void),
                             void (*in_child)(void), void *object) __attribute__((weak));
extern void *__dso_handle __attribute__((visibility("hidden")));
/* NOLINTEND(bugprone-reserved-identifier,cert-dcl*) */

/* Go's cgo exports it from every program and library that holds Go's runtime. */
extern void crosscall2(void) __attribute__((weak));

static void log_warnings(void)
{
    for (size_t i = 0; i < config.warning_count; i++)
        log_line(LOG_WARNING, "%s", config.warnings[i]);
}

__attribute__((constructor)) static void start(void)
{
    bool can_unwind = libc_start();

    if (!__register_atfork || getauxval(AT_SECURE) != 0 || !environ)
        return;
    config_read(&config, environ);
    log_start(&config);
    log_warnings();
    clock_start();
    if (!can_unwind)
        log_line(LOG_INFO, "version %s, pooling nothing: the program has no libpthread",
                 MCPOOL_VERSION);
    if (config.disable || !can_unwind || !conn_start() || !pool_start(&config))
        return;
    ring_start(&told_by_rings);
    check_out_start(&config);
    discard_start();
    usermem_start();
    deepbind_start(&config);
    if (__register_atfork(fork_before, fork_after_in_parent, fork_after_in_child,
                          __dso_handle) != 0)
        return;
    if (crosscall2)
        owner_refuse(REASON_GO_PROGRAM);
    /* Last: from here on the process is the owner, and the hooks are at work. */
    if (owner_start())
        log_line(LOG_INFO, "version %s, pooling%s", MCPOOL_VERSION,
                 crosscall2       ? " nothing (GO_PROGRAM)"
                 : config.dry_run ? " is only counted (dry run)"
                                  : "");
}

/* Frees and closes nothing: destructors of other libraries may still use their connections. */
__attribute__((destructor)) static void finish(void)
{
    if (!owner_is_this_process())
        return;
    report_all();
    stats_finish();
}
