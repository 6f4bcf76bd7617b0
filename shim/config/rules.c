/*
 * Parses the rules of MCPOOL_SERVERS, and matches addresses with them.
 */
#include "config/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

/* More than the longest rule, "[v6/128]:65535". */
#define RULE_TEXT_SIZE 64

/* True when TEXT is a decimal number of at most MOST, and nothing else. */
static bool parse_number(const char *text, unsigned long most, unsigned long *number)
{
    size_t digits = strspn(text, "0123456789");

    if (digits == 0 || digits > 5 || text[digits] != '\0')
        return false;
    *number = strtoul(text, NULL, 10);
    return *number <= most;
}

static bool parse_port(const char *text, uint16_t *port)
{
    unsigned long number;

    if (!parse_number(text, UINT16_MAX, &number) || number == 0)
        return false;
    *port = (uint16_t)number;
    return true;
}

/* "ip", or "ip/bits". The bits of the address behind the prefix need not be zero: they are
 * ignored when addresses are matched. */
static bool parse_network(struct rule *rule, char *text)
{
    char *slash = strchr(text, '/');
    unsigned long bits;
    struct in_addr v4;

    if (slash)
        *slash = '\0';
    if (inet_pton(AF_INET, text, &v4) == 1) {
        if (!slash)
            bits = 32;
        else if (!parse_number(slash + 1, 32, &bits))
            return false;
        address_map_v4(rule->ip, &v4);
        rule->prefix = (uint8_t)(96 + bits);
        return true;
    }
    if (inet_pton(AF_INET6, text, rule->ip) != 1)
        return false;
    if (!slash)
        bits = 128;
    else if (!parse_number(slash + 1, 128, &bits))
        return false;
    rule->prefix = (uint8_t)bits;
    return true;
}

/* "port", or "network:port", where an IPv6 network is in brackets. Writes to TEXT. */
static bool parse_inet(struct rule *rule, char *text)
{
    char *port;

    if (text[0] == '[') {
        char *end = strchr(text, ']');

        if (!end || end[1] != ':')
            return false;
        *end = '\0';
        return strchr(text + 1, ':') && parse_port(end + 2, &rule->port) &&
               parse_network(rule, text + 1);
    }
    port = strchr(text, ':');
    if (!port)
        return parse_port(text, &rule->port);
    *port = '\0';
    return parse_port(port + 1, &rule->port) && parse_network(rule, text);
}

bool rule_parse(struct rule *rule, const char *text, size_t n)
{
    char copy[RULE_TEXT_SIZE];

    memset(rule, 0, sizeof(*rule));
    if (n > 0 && text[0] == '!') {
        rule->exclude = true;
        text++;
        n--;
    }
    if (n == 0 || n >= sizeof(copy))
        return false;
    memcpy(copy, text, n);
    copy[n] = '\0';
    if (strcmp(copy, "*") == 0) {
        rule->any = true;
        return true;
    }
    return parse_inet(rule, copy);
}

static bool same_network(const uint8_t *a, const uint8_t *b, unsigned int bits)
{
    unsigned int bytes = bits / 8;
    uint8_t mask = (uint8_t)(0xff00u >> (bits % 8));

    if (memcmp(a, b, bytes) != 0)
        return false;
    return bits % 8 == 0 || ((a[bytes] ^ b[bytes]) & mask) == 0;
}

static bool rule_covers(const struct rule *rule, const struct address *address)
{
    if (rule->any)
        return true;
    return rule->port == address->port && same_network(rule->ip, address->ip, rule->prefix);
}

bool rules_match(const struct rule *rules, size_t n, const struct address *address)
{
    bool covered = false;

    for (size_t i = 0; i < n; i++) {
        if (!rule_covers(&rules[i], address))
            continue;
        if (rules[i].exclude)
            return false;
        covered = true;
    }
    return covered;
}
