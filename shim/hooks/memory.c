/*
 * Hooks that tell which memory of the program is readable (base/usermem.h).
 */
#include "hooks/hooks.h"

#include <sys/mman.h>

#include "base/usermem.h"

void hook_protects(const void *from, size_t size, int protection)
{
    if (!(protection & PROT_READ))
        usermem_note_unreadable(from, size);
}

HOOKED int mprotect(void *from, size_t size, int protection)
{
    hook_protects(from, size, protection);
    return real_mprotect(from, size, protection);
}
HOOKED_ALIAS(__mprotect, mprotect);

HOOKED int pkey_mprotect(void *from, size_t size, int protection, int key)
{
    hook_protects(from, size, protection);
    return real_pkey_mprotect(from, size, protection, key);
}
