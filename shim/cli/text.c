/*
 * Texts for people.
 */
#include "cli/text.h"

#include <stdio.h>
#include <string.h>

#define COLUMNS 78

const char *text_duration(double seconds)
{
    static char text[32];
    static const struct {
        double least;
        double factor;
        const char *unit;
    } units[] = {{3600, 1 / 3600.0, "h"}, {1, 1, "s"}, {0, 1000, "ms"}};
    size_t i = 0;

    while (seconds < units[i].least)
        i++;
    snprintf(text, sizeof(text), "%.1f %s", seconds * units[i].factor, units[i].unit);
    return text;
}

void text_print_wrapped(const char *first, const char *text)
{
    size_t indent = strlen(first), column = indent;

    fputs(first, stdout);
    while (*text) {
        size_t n = strcspn(text, " ");

        if (column > indent && column + 1 + n > COLUMNS) {
            printf("\n%*s", (int)indent, "");
            column = indent;
        }
        column += (size_t)printf("%s%.*s", column > indent ? " " : "", (int)n, text);
        text += n;
        text += strspn(text, " ");
    }
    putchar('\n');
}
