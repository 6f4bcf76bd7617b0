/*
 * Parses the rules of MCPOOL_SERVERS, and matches addresses with them.
 */
#include "config/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include "base/fmt.h"

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

/* "[v6]:port" and "[v6]", where the address may be a network. Writes to TEXT. */
static bool parse_brackets(struct rule *rule, char *text)
{
    char *end = strchr(text, ']');

    if (!end || (end[1] != ':' && end[1] != '\0'))
        return false;
    if (end[1] == ':' && !parse_port(end + 2, &rule->port))
        return false;
    *end = '\0';
    return strchr(text, ':') && parse_network(rule, text + 1);
}

/* Whether the IPv6 address TEXT, whose last colon is at LAST, can also be read as an address
 * with a port behind it: "2001:db8::1:8080". */
static bool has_two_readings(const char *text, const char *last)
{
    char before[RULE_TEXT_SIZE];
    struct in6_addr v6;
    uint16_t port;
    size_t n = (size_t)(last - text);

    memcpy(before, text, n);
    before[n] = '\0';
    return parse_port(last + 1, &port) && inet_pton(AF_INET6, before, &v6) == 1;
}

/* "port", or a network with or without a port. Writes to TEXT. */
static bool parse_inet(struct rule *rule, char *text)
{
    char *first = strchr(text, ':'), *last = strrchr(text, ':');

    rule->port = DEFAULT_PORT;
    if (text[0] == '[')
        return parse_brackets(rule, text);
    if (!first)
        return parse_port(text, &rule->port) || parse_network(rule, text);
    if (first != last)
        return !has_two_readings(text, last) && parse_network(rule, text);
    *first = '\0';
    return parse_port(first + 1, &rule->port) && parse_network(rule, text);
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

/* The length of "localhost" or "!localhost" at the start of TEXT of length N; 0 if the item
 * begins otherwise. */
static size_t localhost_in(const char *text, size_t n)
{
    static const char name[] = "localhost";
    size_t length = sizeof(name) - 1 + (n > 0 && text[0] == '!');

    if (n < length || strncasecmp(text + (text[0] == '!'), name, sizeof(name) - 1) != 0)
        return 0;
    return n == length || text[length] == ':' ? length : 0;
}

size_t rules_parse(struct rule *rules, const char *text, size_t n)
{
    static const char *const loopbacks[RULES_PER_ITEM] = {"127.0.0.1", "[::1]"};
    size_t name = localhost_in(text, n);
    char item[RULE_TEXT_SIZE], port[sizeof(":65535")];

    if (name == 0)
        return rule_parse(rules, text, n);
    if (n - name >= sizeof(port))
        return 0;
    memcpy(port, text + name, n - name);
    port[n - name] = '\0';
    for (size_t i = 0; i < RULES_PER_ITEM; i++) {
        size_t length = fmt_print(item, sizeof(item), "%s%s%s", text[0] == '!' ? "!" : "",
                                  loopbacks[i], port);

        if (!rule_parse(&rules[i], item, length))
            return 0;
    }
    return RULES_PER_ITEM;
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
