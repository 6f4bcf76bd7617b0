/*
 * Learning and forgetting the limit of a path.
 */
#include "conn/path_limit.h"

/* Two closes, AGE and OTHER milliseconds of idleness before them, may have the same cause. */
static bool are_similar(msec_t age, msec_t other)
{
    msec_t difference = age > other ? age - other : other - age;
    msec_t most = age / 8 > PATH_LIMIT_LEAST ? age / 8 : PATH_LIMIT_LEAST;

    return difference <= most;
}

/* What the limit has become by NOW; at least MOST if it is that much. */
static msec_t risen(const struct path_limit *path, msec_t most, msec_t now)
{
    msec_t passed = now > path->learned_at ? now - path->learned_at : 0;
    msec_t limit = path->limit;

    for (; passed >= PATH_LIMIT_PERIOD && limit < most; passed -= PATH_LIMIT_PERIOD)
        limit *= 2;
    if (limit < most)
        limit += limit * passed / PATH_LIMIT_PERIOD;
    return limit < most ? limit : most;
}

static bool learn(struct path_limit *path, msec_t limit, msec_t now)
{
    if (limit < PATH_LIMIT_LEAST)
        limit = PATH_LIMIT_LEAST;
    if (path->limit != 0 && risen(path, limit + 1, now) <= limit)
        return false;
    path->limit = limit;
    path->learned_at = now;
    return true;
}

/* When it died is not known, only that it was dead by then. No path is so bad that it forgets
 * what has just been used: that is another trouble. */
bool path_limit_note_death(struct path_limit *path, msec_t age, msec_t now)
{
    return age >= 2 * PATH_LIMIT_LEAST && learn(path, age / 2, now);
}

bool path_limit_note_close(struct path_limit *path, msec_t age, msec_t at)
{
    msec_t former = path->closed_age;
    msec_t apart = at > path->closed_at ? at - path->closed_at : path->closed_at - at;

    if (former != 0 && apart < PATH_LIMIT_APART)
        return false;
    path->closed_age = age;
    path->closed_at = at;
    return former != 0 && are_similar(age, former) &&
           learn(path, (age < former ? age : former) / 8 * 7, at);
}

msec_t path_limit_at(struct path_limit *path, msec_t most, msec_t now)
{
    msec_t limit = path->limit != 0 ? risen(path, most, now) : most;

    if (limit == most)
        path->limit = 0;
    return limit;
}
