/*
 * The owner and the events after which nothing is as it was.
 */
#include "process.h"

#include <sys/mman.h>
#include <unistd.h>

_Atomic uint32_t process_children;
_Atomic uint32_t process_sharers;
_Atomic uint32_t process_orphans;
_Atomic uint32_t process_identities;

_Atomic pid_t *process_owner;
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
    process_owner = memory;
    process_adopt();
    return true;
}

void process_adopt(void)
{
    /* Where a child keeps its parent's number, one is always taken to be there. */
    atomic_store(&process_sharers, is_wiped ? 0 : 1);
    atomic_store(process_owner, getpid());
}

bool process_is_owner_by_number(void)
{
    return atomic_load_explicit(process_owner, memory_order_relaxed) == getpid();
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
