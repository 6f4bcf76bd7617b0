/*
 * Telling ASCII authentication (memcached -Y) from plain stores. A server that asks for it
 * answers nothing but errors until a `set` with "user password" as its value arrives, and says
 * STORED to that one, with noreply or without. So the first good reply decides, once.
 */
#include "wire/internal.h"

void auth_asked(struct wire_auth *login, bool set, bool spaced, bool quiet)
{
    if (login->judged)
        return;
    if (set) {
        login->set = true;
        login->spaced_set |= spaced;
    } else if (!quiet && !login->set) {
        login->asked = true;
    }
}

struct wire_auth auth_ahead(const struct wire_auth *login)
{
    return (struct wire_auth){.judged = WIRE_GET(login->judged),
                              .asked = login->asked,
                              .set = login->set,
                              .spaced_set = login->spaced_set};
}

/* What is sent behind the first good reply, which may have come since the look, is no login. */
void auth_commit(struct wire_auth *login, const struct wire_auth *ahead)
{
    if (login->judged)
        return;
    login->asked = ahead->asked;
    login->set = ahead->set;
    login->spaced_set = ahead->spaced_set;
}

void auth_answered(struct wire_auth *login, bool stored)
{
    if (login->judged)
        return;
    WIRE_SET(login->judged, true);
    /* Servers merge the error for a refused request into the STORED of a login pipelined behind
     * it, so this STORED need not belong to the first request. */
    login->no_auth = login->asked && !(login->set && stored);
    login->maybe = login->spaced_set && stored;
}

bool wire_shows_no_auth(const struct wire *wire)
{
    return wire->login.no_auth;
}

bool wire_may_be_authenticated(const struct wire *wire)
{
    return wire->login.maybe;
}
