/*
 * The owner and the events after which nothing is as it was.
 */
#include "process.h"

#include <sys/mman.h>
#include <unistd.h>

_Atomic uint32_t process_children;
_Atomic uint32_t process_sharers;
_Atomic uint32_t process_identities;

/* In a page that the kernel wipes in the child of a fork, so that a child which happens to have
 * the owner's number in another PID namespace is not taken for it. */
static _Atomic pid_t *owner;
static bool is_wiped;

static _Atomic uint32_t refusal;

bool process_start(void)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    void *memory = mmap(NULL, page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED)
        return false;
    /* Kernels before 4.14 lack it; there the comparison of numbers stands alone. */
    is_wiped = madvise(memory, page, MADV_WIPEONFORK) == 0;
    owner = memory;
    process_adopt();
    return true;
}

void process_adopt(void)
{
    atomic_store(&process_sharers, 0);
    atomic_store(owner, getpid());
}

bool process_is_owner(void)
{
    pid_t pid = owner ? atomic_load_explicit(owner, memory_order_relaxed) : 0;

    if (pid != 0 && is_wiped &&
        atomic_load_explicit(&process_sharers, memory_order_relaxed) == 0)
        return true;
    return pid == getpid();
}

enum reason process_refusal(void)
{
    return (enum reason)atomic_load_explicit(&refusal, memory_order_relaxed);
}

void process_refuse(enum reason reason)
{
    uint32_t none = REASON_NONE;

    atomic_compare_exchange_strong(&refusal, &none, (uint32_t)reason);
}
