/*
 * Addresses and the rules that name them.
 */
#include "config/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "base/fmt.h"

/* More than the longest rule, "[v6/128]:65535". */
#define RULE_TEXT_SIZE 64

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

static void map_v4(uint8_t *ip, const void *v4)
{
    memcpy(ip, mapped_prefix, sizeof(mapped_prefix));
    memcpy(ip + 12, v4, 4);
}

static bool is_mapped(const uint8_t *ip)
{
    return memcmp(ip, mapped_prefix, sizeof(mapped_prefix)) == 0;
}

static bool from_inet(struct address *address, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_in in;

    if (len < sizeof(in))
        return false;
    memcpy(&in, addr, sizeof(in));
    address->port = ntohs(in.sin_port);
    map_v4(address->ip, &in.sin_addr);
    return true;
}

static bool from_inet6(struct address *address, const struct sockaddr *addr, socklen_t len)
{
    struct sockaddr_in6 in6;

    if (len < sizeof(in6))
        return false;
    memcpy(&in6, addr, sizeof(in6));
    if (in6.sin6_flowinfo != 0)
        return false;
    address->port = ntohs(in6.sin6_port);
    address->scope = in6.sin6_scope_id;
    memcpy(address->ip, &in6.sin6_addr, sizeof(address->ip));
    return true;
}

bool address_from(struct address *address, const struct sockaddr *addr, socklen_t len)
{
    memset(address, 0, sizeof(*address));
    if (!addr || len < sizeof(addr->sa_family))
        return false;
    switch (addr->sa_family) {
    case AF_INET:
        return from_inet(address, addr, len);
    case AF_INET6:
        return from_inet6(address, addr, len);
    default:
        return false;
    }
}

bool address_equal(const struct address *a, const struct address *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

void address_text(const struct address *address, char *text)
{
    char ip[INET6_ADDRSTRLEN];

    if (is_mapped(address->ip)) {
        inet_ntop(AF_INET, address->ip + 12, ip, sizeof(ip));
        text_format(text, ADDRESS_TEXT_SIZE, "%s:%u", ip, address->port);
        return;
    }
    inet_ntop(AF_INET6, address->ip, ip, sizeof(ip));
    if (address->scope != 0)
        text_format(text, ADDRESS_TEXT_SIZE, "[%s%%%u]:%u", ip, address->scope, address->port);
    else
        text_format(text, ADDRESS_TEXT_SIZE, "[%s]:%u", ip, address->port);
}

/* A decimal number of at most MOST, and nothing else, in TEXT. */
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

/* What lies behind the prefix may be anything: matching masks it. */
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
        map_v4(rule->ip, &v4);
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

static bool rule_names(const struct rule *rule, const struct address *address)
{
    if (rule->any)
        return true;
    return rule->port == address->port && same_network(rule->ip, address->ip, rule->prefix);
}

bool rules_match(const struct rule *rules, size_t n, const struct address *address)
{
    bool named = false;

    for (size_t i = 0; i < n; i++) {
        if (!rule_names(&rules[i], address))
            continue;
        if (rules[i].exclude)
            return false;
        named = true;
    }
    return named;
}
