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
#include <unistd.h>

#include "base/clock.h"
#include "base/lookup.h"
#include "base/pages.h"
#include "base/rawsys.h"

_Atomic uint32_t fork_epoch;
_Atomic uint32_t memory_sharers;
_Atomic uint32_t orphan_epoch;
_Atomic uint32_t cred_epoch;

/* Until owner_start() there is no owner. */
static _Atomic pid_t without_owner;
_Atomic pid_t *owner_pid = &without_owner;
static bool is_wiped;

static _Atomic uint32_t refusal;

/* Without __libc_single_threaded the threads are counted in /proc: once a second at most while
 * there are several, as every wait of the program asks. */
#define ASK_AFTER ((msec_t)1000)
static _Atomic msec_t ask_at; /* when to count again */

/* The variable of glibc 2.32 and later, else NULL. */
static const volatile char *single_threaded;

bool owner_start(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = pages_reserve(page);

    if (!memory)
        return false;
    single_threaded = lookup_versioned("__libc_single_threaded", NULL);
    /* Fails before Linux 4.14. There only the pid tells a child from its parent. */
    is_wiped = madvise(memory, page, MADV_WIPEONFORK) == 0;
    owner_pid = memory;
    owner_adopt();
    return true;
}

void owner_adopt(void)
{
    /* If the page is not wiped, a child reads its parent's pid in it. One sharer that never
     * ends makes owner_is_this_process() compare the pid each time. */
    atomic_store(&memory_sharers, is_wiped ? 0 : 1);
    atomic_store(&ask_at, 0);
    atomic_store(owner_pid, getpid());
}

bool owner_was_started(void)
{
    return owner_pid != &without_owner;
}

bool owner_is_this_pid(void)
{
    return atomic_load_explicit(owner_pid, memory_order_relaxed) == getpid();
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
    return atomic_exchange(owner_pid, 0);
}

void owner_restore(pid_t owner)
{
    atomic_store(owner_pid, owner);
}

void owner_refuse(enum reason reason)
{
    uint32_t none = REASON_NONE;

    atomic_compare_exchange_strong(&refusal, &none, (uint32_t)reason);
}
