/*
 * What is learned from connections that ended while they idled.
 */
#include "conn/path_limit.h"

#include <criterion/criterion.h>

#define SECOND ((msec_t)1000)
#define MOST   (55 * SECOND)

static struct path_limit path;

Test(path_limit, nothing_is_known)
{
    cr_expect(path_limit_at(&path, MOST, 0) == MOST);
}

/* Where it died between 0 and 8 s is not known. */
Test(path_limit, one_death_is_enough)
{
    cr_expect(path_limit_note_death(&path, 8 * SECOND, 0));
    cr_expect(path_limit_at(&path, MOST, 0) == 4 * SECOND);
    cr_expect(!path_limit_note_death(&path, 20 * SECOND, 0), "a higher limit is no news");
    cr_expect(path_limit_note_death(&path, 3 * SECOND, 0));
    cr_expect(path_limit_at(&path, MOST, 0) == 3 * SECOND / 2);
}

/* A network that is down kills connections that were used a moment ago. */
Test(path_limit, a_young_death_teaches_nothing)
{
    cr_expect(!path_limit_note_death(&path, 2 * PATH_LIMIT_LEAST - 1, 0));
    cr_expect(path_limit_at(&path, MOST, 0) == MOST);
}

Test(path_limit, two_similar_closes_are_needed)
{
    cr_expect(!path_limit_note_close(&path, 20 * SECOND, 100 * SECOND));
    cr_expect(path_limit_at(&path, MOST, 100 * SECOND) == MOST);
    cr_expect(path_limit_note_close(&path, 21 * SECOND, 130 * SECOND));
    cr_expect(path_limit_at(&path, MOST, 130 * SECOND) == 20 * SECOND / 8 * 7);
}

/* A server that is restarted closes all at once, and connections of any age. */
Test(path_limit, restarts_teach_nothing)
{
    for (msec_t i = 0; i < 10; i++)
        cr_expect(!path_limit_note_close(&path, 20 * SECOND, 100 * SECOND + i * 111));
    cr_expect(!path_limit_note_close(&path, 20 * SECOND, 100 * SECOND - 500));
    cr_expect(!path_limit_note_close(&path, 30 * SECOND, 200 * SECOND));
    cr_expect(!path_limit_note_close(&path, 10 * SECOND, 300 * SECOND));
    cr_expect(path_limit_at(&path, MOST, 300 * SECOND) == MOST);
}

Test(path_limit, it_is_never_very_low)
{
    path_limit_note_close(&path, 10, 100 * SECOND);
    cr_expect(path_limit_note_close(&path, 10, 200 * SECOND));
    cr_expect(path_limit_at(&path, MOST, 200 * SECOND) == PATH_LIMIT_LEAST);
}

Test(path_limit, it_rises_until_it_is_forgotten)
{
    msec_t last = 0;

    path_limit_note_death(&path, 8 * SECOND, 0);
    cr_expect(path_limit_at(&path, MOST, PATH_LIMIT_PERIOD) == 8 * SECOND);
    cr_expect(path_limit_at(&path, MOST, PATH_LIMIT_PERIOD / 2 * 3) == 12 * SECOND);
    for (msec_t now = 0; now < 5 * PATH_LIMIT_PERIOD; now += 10 * SECOND) {
        msec_t limit = path_limit_at(&path, MOST, now);

        cr_expect(limit >= last && limit <= MOST);
        last = limit;
    }
    cr_expect(last == MOST && path.limit == 0);
}

Test(path_limit, time_does_not_overflow_it)
{
    path_limit_note_death(&path, 8 * SECOND, 0);
    cr_expect(!path_limit_note_death(&path, 8 * SECOND, -5 * SECOND));
    cr_expect(path_limit_at(&path, INT64_MAX / PATH_LIMIT_PERIOD / 2, INT64_MAX / 2) > 0);
}

/* What was learned is learned again at once, when the limit has risen too high. */
Test(path_limit, it_is_lowered_again)
{
    path_limit_note_death(&path, 8 * SECOND, 0);
    cr_expect(path_limit_note_death(&path, 8 * SECOND, PATH_LIMIT_PERIOD));
    cr_expect(path_limit_at(&path, MOST, PATH_LIMIT_PERIOD) == 4 * SECOND);
}
