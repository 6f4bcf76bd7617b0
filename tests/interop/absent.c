/*
 * Preloaded before the library. Until the library has started, it cannot find the function
 * named in ABSENT, as if this libc had none: the strcmp() by which it compares names says that
 * it is another. The file ABSENT_TOLD is created when the function is looked up.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static bool started;

/* Runs after the constructor of the library, which is loaded after us. */
__attribute__((constructor)) static void start(void)
{
    started = true;
}

static int compare(const char *one, const char *other)
{
    for (; *one && *one == *other; one++)
        other++;
    return (unsigned char)*one - (unsigned char)*other;
}

int strcmp(const char *one, const char *other)
{
    const char *absent = started ? NULL : getenv("ABSENT");

    if (absent && compare(one, absent) == 0 && compare(other, absent) == 0) {
        close(creat(getenv("ABSENT_TOLD"), 0600));
        return 1;
    }
    return compare(one, other);
}
