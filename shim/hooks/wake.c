/*
 * Wakes the process once: each step in its order, under a lock of its own.
 */
#include "hooks/wake.h"

#include <errno.h>
#include <stdatomic.h>

#include "base/clock.h"
#include "base/compiler.h"
#include "base/lock.h"
#include "base/owner.h"
#include "base/unwind.h"
#include "base/usermem.h"
#include "config/config.h"
#include "conn/conn.h"
#include "pool/checkout.h"
#include "pool/discard.h"
#include "pool/family.h"
#include "pool/pool.h"
#include "stats/log.h"
#include "stats/mode.h"

/* Of Go's runtime, see init.c. */
extern void crosscall2(void) __attribute__((weak));

static LARGE struct config config;

/* What the settings are read from; NULL when they were read. */
static AT_START char *const *variables;

/* Held while the process wakes. See concurrency.md, order of locks. */
static struct lock waking;

static AT_START bool can_unwind;

static const char *what_it_does(void)
{
    if (!can_unwind)
        return " nothing: the program has no libpthread";
    if (crosscall2)
        return " nothing (GO_PROGRAM)";
    return config.dry_run ? " is only counted (dry run)" : "";
}

static void read_settings(void)
{
    if (!variables)
        return;
    config_read(&config, variables);
    log_start(&config);
    for (size_t i = 0; i < config.warning_count; i++)
        log_line(LOG_WARNING, "%s", config.warnings[i]);
    if (!config.disable || !can_unwind)
        log_line(LOG_INFO, "version %s, pooling%s", MCPOOL_VERSION, what_it_does());
    variables = NULL;
}

/* Each step may be done again: after a jump out of it, and in the child of a fork that another
 * thread made meanwhile. */
static bool set_up(void)
{
    read_settings();
    clock_start();
    if (config.disable || !conn_start())
        return false;
    check_out_start(&config);
    family_start(&config);
    discard_start();
    usermem_find_heap();
    /* Last: from here on sockets are tracked. */
    return pool_start(&config);
}

/* A cleanup handler: wake() was left by a jump out of a signal handler. The next one begins
 * anew. */
static void abandon(void *unused)
{
    (void)unused;
    lock_abandon(&waking);
}

static void wake_once(void)
{
    struct _pthread_cleanup_buffer cleanup;

    if (lock_is_mine(&waking))
        return;
    _pthread_cleanup_push(&cleanup, abandon, NULL);
    if (lock_acquire(&waking)) {
        if (mode_is_asleep() && owner_watch() && !set_up())
            owner_disown();
        lock_release(&waking);
    }
    _pthread_cleanup_pop(&cleanup, 0);
}

bool wake(void)
{
    int saved = errno;

    if (mode_is_asleep())
        wake_once();
    errno = saved;
    return !mode_is_off();
}

const char *wake_deepbind(void)
{
    if (owner_is_this_process())
        wake();
    return mode_is_asleep() ? "" : config.deepbind;
}

void wake_start(char *const *environment, bool unwinds)
{
    bool can_wait = config_keep(environment);

    can_unwind = unwinds;
    variables = can_wait ? config_kept() : environment;
    if (!can_wait)
        read_settings();
    if (!can_unwind)
        owner_disown();
}

void wake_after_fork_in_child(void)
{
    atomic_store(&waking.word, 0);
}
