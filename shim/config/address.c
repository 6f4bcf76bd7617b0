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

bool address_equal(const struct address *a, const struct address *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

void address_text(const struct address *address, char *text)
{
    char ip[INET6_ADDRSTRLEN];

    if (is_mapped(address->ip)) {
        inet_ntop(AF_INET, address->ip + 12, ip, sizeof(ip));
        fmt_print(text, ADDRESS_TEXT_SIZE, "%s:%u", ip, address->port);
        return;
    }
    inet_ntop(AF_INET6, address->ip, ip, sizeof(ip));
    if (address->scope != 0)
        fmt_print(text, ADDRESS_TEXT_SIZE, "[%s%%%u]:%u", ip, address->scope, address->port);
    else
        fmt_print(text, ADDRESS_TEXT_SIZE, "[%s]:%u", ip, address->port);
}
