/*
 * The rules of MCPOOL_SERVERS, which say to which servers connections are pooled. Pure
 * functions without state.
 */
#ifndef MCPOOL_RULES_H
#define MCPOOL_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/address.h"

#define DEFAULT_PORT 11211

/* An item of the list means so many rules at most: localhost means both loopbacks. */
#define RULES_PER_ITEM 2

/* One rule of MCPOOL_SERVERS. */
struct rule {
    bool exclude;
    bool any;       /* "*": every TCP peer */
    uint8_t prefix; /* how many bits of IP are compared, 0 to 128; 0 for a bare port */
    uint16_t port;
    uint8_t ip[16];
};

/* Parses one item of the list, TEXT of length N: an optional "!", and then "port", "ip:port",
 * "[v6]:port", "ip/bits:port", "[v6/bits]:port" or "*". Without ":port" it is DEFAULT_PORT; an
 * IPv6 address then needs no brackets, unless its last group could be a port. False when the
 * item has another form. */
bool rule_parse(struct rule *rule, const char *text, size_t n);

/* The same, and "localhost" and "localhost:port". Fills RULES, which has room for
 * RULES_PER_ITEM. Returns how many; 0 when the item has another form. */
size_t rules_parse(struct rule *rules, const char *text, size_t n);

/* Whether connections to ADDRESS are pooled: a rule covers it, and no exclusion does. */
bool rules_match(const struct rule *rules, size_t n, const struct address *address);

#endif
