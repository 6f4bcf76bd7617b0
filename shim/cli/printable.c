/*
 * Makes texts printable that other users choose.
 */
#include "cli/printable.h"

#include <string.h>

/* Not isprint(), which depends on the locale. */
static void replace(char *text, const char *others)
{
    for (; *text; text++) {
        if (*text < ' ' || *text > '~' || strchr(others, *text))
            *text = '?';
    }
}

void make_printable(char *text)
{
    replace(text, "");
}

void make_quotable(char *text)
{
    replace(text, "\"\\");
}
