/*
 * dlopen(): which objects lose RTLD_DEEPBIND.
 */
#include "hooks/deepbind.h"

#include "hooks/hooks.h"

#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

static const char *names = "";

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

/* The real function takes its return address for that of the caller, whose RUNPATH it uses. So
 * this must end in a jump: no work may follow. tests/symbols checks what the compiler made. */
HOOKED void *dlopen(const char *file, int flags)
{
    return real_dlopen(file, flags_for(file, flags));
}
