/*
 * The formatter compared with libc's.
 */
#include "base/fmt.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <criterion/criterion.h>

static unsigned int seed = 1;

static unsigned long random_number(void)
{
    unsigned long number = (unsigned long)rand_r(&seed) << 42 ^
                           (unsigned long)rand_r(&seed) << 21 ^ (unsigned long)rand_r(&seed);

    return number >> (rand_r(&seed) % 64);
}

static void random_string(char *text, size_t room)
{
    size_t n = (size_t)rand_r(&seed) % room;

    for (size_t i = 0; i < n; i++)
        text[i] = (char)(1 + rand_r(&seed) % 255);
    text[n] = '\0';
}

/* Cut at every length. snprintf() returns the full length, ours what it wrote. */
#define EXPECT_SAME(...)                                                                       \
    do {                                                                                       \
        char ours[64], theirs[64];                                                             \
        size_t room = (size_t)(rand_r(&seed) % 64) + 1;                                        \
                                                                                               \
        memset(ours, '#', sizeof(ours));                                                       \
        snprintf(theirs, room, __VA_ARGS__);                                                   \
        cr_expect(fmt_print(ours, room, __VA_ARGS__) == strlen(theirs));                       \
        cr_expect(strcmp(ours, theirs) == 0, "'%s' is not '%s'", ours, theirs);                \
        cr_expect(room == sizeof(ours) || ours[room] == '#', "wrote behind the end");          \
    } while (0)

Test(text, is_what_printf_writes)
{
    for (int i = 0; i < 20000; i++) {
        int d = (int)(unsigned int)random_number() * (i % 2 ? 1 : -1);
        unsigned int u = (unsigned int)random_number();
        unsigned long l = random_number();
        char s[80];

        random_string(s, sizeof(s));
        EXPECT_SAME("%d", d);
        EXPECT_SAME("%x", u);
        EXPECT_SAME("%u", u);
        EXPECT_SAME("%lu", l);
        EXPECT_SAME("%s", s);
        EXPECT_SAME("<%s|%d|%u|%lu|%%>", s, d, u, l);
        EXPECT_SAME("%lu%%%d%s%s", l, d, "", s);
    }
}

Test(text, edges)
{
    static const int numbers[] = {0, 1, -1, 9, 10, -10, INT_MAX, INT_MIN};
    char ours[64], theirs[64];

    for (size_t i = 0; i < sizeof(numbers) / sizeof(numbers[0]); i++) {
        snprintf(theirs, sizeof(theirs), "%d %u %lu", numbers[i], (unsigned int)numbers[i],
                 (unsigned long)numbers[i]);
        fmt_print(ours, sizeof(ours), "%d %u %lu", numbers[i], (unsigned int)numbers[i],
                  (unsigned long)numbers[i]);
        cr_expect(strcmp(ours, theirs) == 0, "'%s' is not '%s'", ours, theirs);
    }
    fmt_print(ours, sizeof(ours), "%lu", ULONG_MAX);
    snprintf(theirs, sizeof(theirs), "%lu", ULONG_MAX);
    cr_expect(strcmp(ours, theirs) == 0);
}

Test(text, room_for_nothing)
{
    char text[] = "##";

    cr_expect(fmt_print(text, 1, "%s", "anything") == 0);
    cr_expect(text[0] == '\0' && text[1] == '#');
    cr_expect(fmt_print(text, sizeof(text), "%s", "") == 0 && text[0] == '\0');
}

/* Arguments are read by their own sizes: each is in its place behind the others. */
Test(text, arguments_in_order)
{
    char text[64];

    fmt_print(text, sizeof(text), "%d%lu%u%s%d%lu", -1, 2UL, 3u, "4", 5, 6UL);
    cr_expect(strcmp(text, "-123456") == 0, "'%s'", text);
}
