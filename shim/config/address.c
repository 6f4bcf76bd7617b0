/*
 * Server addresses: from a sockaddr to the normal form, and from there to text.
 */
#include "config/address.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "base/fmt.h"

static const uint8_t mapped_prefix[12] = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff};

void address_map_v4(uint8_t *ip, const void *v4)
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
    address_map_v4(address->ip, &in.sin_addr);
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

uint64_t address_v4(const struct address *address)
{
    struct sockaddr_in in = {.sin_family = AF_INET, .sin_port = htons((uint16_t)address->port)};
    uint64_t v4;

    if (!is_mapped(address->ip) || address->scope != 0)
        return 0;
    memcpy(&in.sin_addr, address->ip + sizeof(mapped_prefix), sizeof(in.sin_addr));
    memcpy(&v4, &in, sizeof(v4));
    return v4;
}

void address_from_v4(struct address *address, uint64_t v4)
{
    struct sockaddr_in in = {0};

    memcpy(&in, &v4, sizeof(v4));
    address->port = ntohs(in.sin_port);
    address->scope = 0;
    address_map_v4(address->ip, &in.sin_addr);
}

#define GROUPS 8

static unsigned int group_at(const uint8_t *ip, int i)
{
    return (unsigned int)ip[(size_t)2 * i] << 8 | ip[(size_t)2 * i + 1];
}

/* How many groups of IP are zero from group FROM on. */
static int zeros_from(const uint8_t *ip, int from)
{
    int n = 0;

    while (from + n < GROUPS && group_at(ip, from + n) == 0)
        n++;
    return n;
}

/* As RFC 5952, section 4: the first of the longest runs of at least two zero groups is `::`.
 * TEXT has room for INET6_ADDRSTRLEN bytes. inet_ntop(3) would do the same, but it takes two
 * kilobytes of a stack that may be small. */
static void ipv6_text(const uint8_t *ip, char *text)
{
    int run = GROUPS, length = 1;
    size_t n = 0;

    for (int i = 0; i < GROUPS; i++) {
        if (zeros_from(ip, i) > length) {
            run = i;
            length = zeros_from(ip, i);
        }
    }
    for (int i = 0; i < GROUPS; i++) {
        if (i == run) {
            n += fmt_print(text + n, INET6_ADDRSTRLEN - n, "::");
            i += length - 1;
        } else {
            n += fmt_print(text + n, INET6_ADDRSTRLEN - n, "%s%x",
                           i == 0 || i == run + length ? "" : ":", group_at(ip, i));
        }
    }
}

/* A function of its own: its buffer is not on the stack for an IPv4 address. */
static __attribute__((noinline)) void text_of_ipv6(const struct address *address, char *text)
{
    char ip[INET6_ADDRSTRLEN];

    ipv6_text(address->ip, ip);
    if (address->scope != 0)
        fmt_print(text, ADDRESS_TEXT_SIZE, "[%s%%%u]:%u", ip, address->scope, address->port);
    else
        fmt_print(text, ADDRESS_TEXT_SIZE, "[%s]:%u", ip, address->port);
}

void address_text(const struct address *address, char *text)
{
    const uint8_t *v4 = address->ip + sizeof(mapped_prefix);

    if (is_mapped(address->ip))
        fmt_print(text, ADDRESS_TEXT_SIZE, "%u.%u.%u.%u:%u", v4[0], v4[1], v4[2], v4[3],
                  address->port);
    else
        text_of_ipv6(address, text);
}
