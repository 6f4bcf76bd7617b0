/*
 * The hook of dlopen(): takes RTLD_DEEPBIND away from the objects that MCPOOL_DEEPBIND names.
 */
#include "hooks/deepbind.h"

#include "hooks/hooks.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

static const char *names = ""; /* with a comma between two */

void deepbind_start(const struct config *config)
{
    names = config->deepbind;
}

static bool is_named(const char *object)
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
    return is_named(slash ? slash + 1 : file) ? flags & ~RTLD_DEEPBIND : flags;
}

/* The real dlopen() finds its caller, whose RUNPATH it uses, by the return address. So the call
 * must be compiled to a jump: no work may follow it. tests/symbols checks that. */
HOOKED void *dlopen(const char *file, int flags)
{
    return real_dlopen(file, flags_for(file, flags));
}
