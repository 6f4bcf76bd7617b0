/*
 * The address of a server in one normal form, and its text. Pure functions without state.
 */
#ifndef MCPOOL_ADDRESS_H
#define MCPOOL_ADDRESS_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>

/* The key of an endpoint. It is compared and hashed as bytes, so it has no padding. IPv4 is
 * written as v4-mapped IPv6, so a server has one key for both families of sockets. */
struct address {
    uint32_t port;  /* host order */
    uint32_t scope; /* of a link-local IPv6 address; 0 otherwise */
    uint8_t ip[16]; /* network order */
};

/* Room for the text of an address ("[v6%scope]:port" at the longest) with its final NUL. */
#define ADDRESS_TEXT_SIZE 128

/* Fills IP, 16 bytes, with the IPv4 address V4, 4 bytes in network order, as v4-mapped IPv6. */
static inline void address_map_v4(uint8_t *ip, const void *v4)
{
    uint32_t words[4] = {0, 0, htonl(0xffff), 0};

    memcpy(&words[3], v4, sizeof(words[3]));
    memcpy(ip, words, sizeof(words));
}

bool address_from_inet6(struct address *address, const struct sockaddr *addr, socklen_t len);

/* Fills ADDRESS from the arguments of connect(). False when we cannot pool it: a family other
 * than IPv4 and IPv6, LEN too short, or an IPv6 flow label. */
static inline bool address_from(struct address *address, const struct sockaddr *addr,
                                socklen_t len)
{
    struct sockaddr_in in;

    if (!addr || len < sizeof(in))
        return false;
    memcpy(&in, addr, sizeof(in));
    if (in.sin_family != AF_INET)
        return address_from_inet6(address, addr, len);
    address->port = ntohs(in.sin_port);
    address->scope = 0;
    address_map_v4(address->ip, &in.sin_addr);
    return true;
}

static inline bool address_equal(const struct address *a, const struct address *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* The port and the four bytes of an IPv4 address in one number; 0 for any other address. */
static inline uint64_t address_v4_key(const struct address *address)
{
    uint32_t words[4];

    memcpy(words, address->ip, sizeof(words));
    return (words[0] | words[1] | (words[2] ^ htonl(0xffff))) == 0
               ? (uint64_t)address->port << 32 | words[3]
               : 0;
}

/* Writes the text of ADDRESS ("127.0.0.1:11211", "[::1]:11211") with its final NUL into TEXT of
 * ADDRESS_TEXT_SIZE bytes. */
void address_text(const struct address *address, char *text);

#endif
