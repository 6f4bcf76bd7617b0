/*
 * Tells ASCII authentication (memcached -Y) from plain stores. A server with -Y answers each
 * request with an error until it gets a `set` whose value is "user password". It answers that
 * one with STORED, even if it has noreply. So the first reply that is no error decides.
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

/* A request sent after the first good reply is no login. That reply may have come since the
 * look ahead began. */
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
    /* A STORED proves nothing if a `set` was pipelined behind another request: a server with -Y
     * answers both with one STORED, that of the login. */
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

void wire_rule_out_login(struct wire *wire)
{
    wire->login.maybe = false;
}
