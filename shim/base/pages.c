/*
 * Memory of our own, straight from the kernel.
 */
#include "base/pages.h"

#include <stdint.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include "base/rawsys.h"

void *pages_reserve(size_t size)
{
    long at = raw_syscall(SYS_mmap, NULL, size, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return at < 0 && at >= -4095 ? NULL : (void *)(intptr_t)at;
}

void pages_return(void *pages, size_t size)
{
    raw_syscall(SYS_munmap, pages, size);
}
