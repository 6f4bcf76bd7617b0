/*
 * The names in the file of counters, the name of the file, and the start time of a process:
 * what the library and the command mcpool both need.
 */
#include "stats/stats_file.h"

#include <string.h>

const struct stats_names stats_names = {
#define STAT(kind, name, text) .name = #kind " " #name,
#include "stats/stats.def"
#undef STAT
    .reason_none = "reason none",
#define REASON(name, text) .reason_##name = "reason " #name,
#include "base/reasons.def"
#undef REASON
};

/* Parses a decimal number at TEXT. Returns the text behind it; NULL when there is no number, or
 * it is larger than MOST, or it has leading zeros: with them, one file could have many names.
 */
static const char *parse_number(const char *text, uint64_t most, uint64_t *number)
{
    if (*text < '0' || *text > '9' || (text[0] == '0' && text[1] >= '0' && text[1] <= '9'))
        return NULL;
    for (*number = 0; *text >= '0' && *text <= '9'; text++) {
        uint64_t digit = (uint64_t)(*text - '0');

        if (*number > (most - digit) / 10)
            return NULL;
        *number = *number * 10 + digit;
    }
    return text;
}

bool stats_parse_name(const char *name, int *pid, uint64_t *start)
{
    uint64_t number;
    const char *end = parse_number(name, INT32_MAX, &number);

    if (!end || *end != '-' || number == 0)
        return false;
    *pid = (int)number;
    end = parse_number(end + 1, UINT64_MAX, start);
    return end && *end == '\0';
}

/* Field 2 is a name in parentheses, which may contain blanks and parentheses. So the fields are
 * counted from the last ')' on. */
uint64_t stats_parse_start(const char *text, size_t n)
{
    const char *at = memrchr(text, ')', n);
    const char *end = text + n;
    uint64_t start;

    for (int field = 2; at && field < 22; field++) {
        at = memchr(at, ' ', (size_t)(end - at));
        if (at)
            at++;
    }
    /* Without a blank behind it the number may be cut. */
    if (!at || !memchr(at, ' ', (size_t)(end - at)) || !parse_number(at, UINT64_MAX, &start))
        return 0;
    return start;
}
