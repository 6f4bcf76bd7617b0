/*
 * Which objects lose RTLD_DEEPBIND.
 */
#include "hooks/deepbind.h"

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

int deepbind_flags(const char *file, int flags)
{
    const char *slash;

    if (!(flags & RTLD_DEEPBIND) || !file)
        return flags;
    slash = strrchr(file, '/');
    return is_named(slash ? slash + 1 : file) ? flags & ~RTLD_DEEPBIND : flags;
}
