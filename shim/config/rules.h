/*
 * Which addresses the rules of MCPOOL_SERVERS name. Pure functions; no state.
 */
#ifndef MCPOOL_RULES_H
#define MCPOOL_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "config/address.h"

/* One rule of MCPOOL_SERVERS. */
struct rule {
    bool exclude;
    bool any;       /* "*": every TCP peer */
    uint8_t prefix; /* bits of IP that count, 0 to 128; 0 for a bare port */
    uint16_t port;
    uint8_t ip[16];
};

/* Reads one item of the list: "port", "ip:port", "[v6]:port", "cidr:port", "[v6/bits]:port"
 * or "*", after an optional "!". N is the length of TEXT. False when it is none. */
bool rule_parse(struct rule *rule, const char *text, size_t n);

/* Whether ADDRESS is to be pooled: some rule names it and no exclusion does. */
bool rules_match(const struct rule *rules, size_t n, const struct address *address);

#endif
