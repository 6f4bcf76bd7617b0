/*
 * Which process owns the pool, whether it has one thread, and why it may not pool any more.
 *
 * Loads are relaxed: the values change in the calling thread, or before the child that reads
 * them runs. Otherwise an old value does what was right a moment ago.
 */
#include "base/owner.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "base/clock.h"
#include "base/lookup.h"
#include "base/rawsys.h"

_Atomic uint32_t fork_epoch;
AT_START _Atomic uint32_t memory_sharers;
_Atomic uint32_t orphan_epoch;
_Atomic uint32_t cred_epoch;

struct owner_page owner_page;

/* The kernel does not wipe the page. */
static AT_START bool is_unwiped;

static AT_START _Atomic uint32_t refusal;

/* Without __libc_single_threaded the threads are counted in /proc: once a second at most while
 * there are several, as every wait of the program asks. */
#define ASK_AFTER ((msec_t)1000)
static AT_START _Atomic msec_t ask_at; /* when to count again */

/* The variable of glibc 2.32 and later, else NULL. */
static const volatile char *single_threaded;

/* How many calls of this thread are making a child in our memory: more than one if a signal
 * handler interrupts such a call, or its child makes such a call. */
static _Thread_local volatile uint32_t making __attribute__((tls_model("initial-exec")));

static pid_t this_pid(void)
{
    return (pid_t)raw_syscall(SYS_getpid);
}

bool owner_watch(void)
{
    if (!owner_is_this_pid())
        return false;
    single_threaded = lookup_versioned("__libc_single_threaded", NULL);
    /* Fails before Linux 4.14, and where a page of memory is larger. There only the pid tells a
     * child from its parent, which reads its parent's. One sharer that never ends makes
     * owner_is_this_process() compare the pid each time. */
    is_unwiped =
        raw_syscall(SYS_madvise, &owner_page, sizeof(owner_page), MADV_WIPEONFORK) != 0;
    if (is_unwiped)
        atomic_fetch_add(&memory_sharers, 1);
    return true;
}

/* A signal handler may fork between two steps. So the order is such that the child of that fork
 * never has too low a count. */
void owner_sharer_begins(void)
{
    making++;
    atomic_fetch_add(&memory_sharers, 1);
}

void owner_sharer_made(bool stays)
{
    if (!stays)
        atomic_fetch_sub(&memory_sharers, 1);
    making--;
}

/* The sharers of the parent's memory are not here. If this thread forked in a signal handler
 * that interrupted vfork(), the child is about to make its own. */
void owner_adopt(void)
{
    atomic_store(&memory_sharers, making + (is_unwiped ? 1 : 0));
    atomic_store(&ask_at, 0);
    atomic_store(&owner_page.pid, this_pid());
}

bool owner_is_this_pid(void)
{
    return atomic_load_explicit(&owner_page.pid, memory_order_relaxed) == this_pid();
}

static bool has_one_thread(void)
{
    enum { LINKS_OF_A_DIRECTORY = 2 }; /* the directory has one more for each thread */
    struct stat threads = {0};

    msec_t now = clock_now();

    if (now < atomic_load_explicit(&ask_at, memory_order_relaxed))
        return false;
    if (raw_syscall(SYS_newfstatat, AT_FDCWD, "/proc/self/task", &threads, 0) == 0 &&
        threads.st_nlink == LINKS_OF_A_DIRECTORY + 1)
        return true;
    atomic_store(&ask_at, now + ASK_AFTER);
    return false;
}

static bool has_no_sharer(void)
{
    return atomic_load_explicit(&memory_sharers, memory_order_relaxed) == 0;
}

bool owner_never_had_threads(void)
{
    return single_threaded && *single_threaded && has_no_sharer();
}

bool owner_has_one_thread(void)
{
    return owner_never_had_threads() || (has_one_thread() && has_no_sharer());
}

enum reason owner_refusal(void)
{
    return (enum reason)atomic_load_explicit(&refusal, memory_order_relaxed);
}

pid_t owner_disown(void)
{
    return atomic_exchange(&owner_page.pid, 0);
}

void owner_restore(pid_t owner)
{
    atomic_store(&owner_page.pid, owner);
}

void owner_refuse(enum reason reason)
{
    uint32_t none = REASON_NONE;

    atomic_compare_exchange_strong(&refusal, &none, (uint32_t)reason);
}
