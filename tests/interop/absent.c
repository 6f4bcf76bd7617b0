/*
 * Preloaded before the library, which cannot find the function named in ABSENT, as if this libc
 * had none: the strcmp() by which it compares names says that it is another. The file
 * ABSENT_TOLD is created when the function is looked up. With ABSENT_FIRST only that many names
 * are another: what libc has of that name. The next look-up finds it.
 */
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <unistd.h>

static int left = -1;

static int compare(const char *one, const char *other)
{
    for (; *one && *one == *other; one++)
        other++;
    return (unsigned char)*one - (unsigned char)*other;
}

static bool is_absent(void)
{
    const char *first = getenv("ABSENT_FIRST");

    if (!first)
        return true;
    if (left < 0)
        left = atoi(first);
    return left > 0 && left-- > 0;
}

int strcmp(const char *one, const char *other)
{
    const char *absent = getenv("ABSENT");

    if (absent && compare(one, absent) == 0 && compare(other, absent) == 0 && is_absent()) {
        close(creat(getenv("ABSENT_TOLD"), 0600));
        return 1;
    }
    return compare(one, other);
}
