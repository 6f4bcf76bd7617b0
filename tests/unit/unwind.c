/* Binds the functions of base/unwind.h, as hooks/libc.c does in the library. */
#include "base/lookup.h"
#include "base/unwind.h"

__attribute__((constructor)) static void bind(void)
{
    *(void **)&unwind.push = lookup_versioned("_pthread_cleanup_push", NULL);
    *(void **)&unwind.pop = lookup_versioned("_pthread_cleanup_pop", NULL);
    *(void **)&unwind.testcancel = lookup_versioned("pthread_testcancel", NULL);
}
