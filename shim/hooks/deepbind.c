/*
 * The hook of dlopen(): takes RTLD_DEEPBIND away from the objects that MCPOOL_DEEPBIND names.
 */
#include "hooks/hooks.h"
#include "hooks/wake.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

/* Whether OBJECT is one of the NAMES, which have a comma between two. */
static bool is_named(const char *object, const char *names)
{
    size_t length = strlen(object);
    const char *name = names;

    while (*name) {
        size_t n = strcspn(name, ",");

        if (n == length && strncmp(name, object, n) == 0)
            return true;
        name += n + (name[n] == ',');
    }
    return false;
}

/* The FLAGS with which dlopen(FILE) is to be called. */
static COLD __attribute__((noinline)) int flags_for(const char *file, int flags)
{
    const char *slash;

    if (!file)
        return flags;
    hook_library_opened(file);
    if (!(flags & RTLD_DEEPBIND))
        return flags;
    slash = strrchr(file, '/');
    return is_named(slash ? slash + 1 : file, wake_deepbind()) ? flags & ~RTLD_DEEPBIND : flags;
}

/* The real dlopen() finds its caller, whose RUNPATH it uses, by the return address. So the call
 * must be compiled to a jump: no work may follow it. tests/symbols checks that. */
HOOKED void *dlopen(const char *file, int flags)
{
    return real_dlopen(file, flags_for(file, flags));
}
