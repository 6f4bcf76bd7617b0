/*
 * Preloaded before the library. The function named in ABSENT cannot be found, as if this libc
 * had none. The file ABSENT_TOLD is created when it is looked up. All other look-ups end in a
 * jump to the real dlsym(), because RTLD_NEXT depends on the caller.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void *(*real_dlsym(void))(void *, const char *)
{
    static const char *const versions[] = {"GLIBC_2.34", "GLIBC_2.2.5", "GLIBC_2.17"};
    void *found = NULL;

    for (size_t i = 0; !found && i < sizeof(versions) / sizeof(versions[0]); i++)
        found = dlvsym(RTLD_NEXT, "dlsym", versions[i]);
    return *(void *(**)(void *, const char *))(void *)&found;
}

void *dlsym(void *handle, const char *name)
{
    const char *absent = getenv("ABSENT");

    if (handle == RTLD_NEXT && absent && strcmp(name, absent) == 0) {
        close(creat(getenv("ABSENT_TOLD"), 0600));
        return NULL;
    }
    return real_dlsym()(handle, name);
}
