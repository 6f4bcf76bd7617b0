/*
 * The address of a server in one normal form, and its text. Pure functions without state.
 */
#ifndef MCPOOL_ADDRESS_H
#define MCPOOL_ADDRESS_H

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
void address_map_v4(uint8_t *ip, const void *v4);

/* The first eight bytes of a struct sockaddr_in, as a number: an IPv4 address with its port and
 * family. address_v4() makes it of ADDRESS; 0 if that is no IPv4 address. address_from_v4() is
 * the other way. */
uint64_t address_v4(const struct address *address);
void address_from_v4(struct address *address, uint64_t v4);

/* Where a program connects to, in the form that is quicker to compare: V4, or ADDRESS if that
 * is 0. PLACE is a hash of V4, below DESTINATION_PLACES. */
#define DESTINATION_PLACES 64

struct destination {
    uint64_t v4;
    uint32_t place;
    struct address address;
};

/* Fills ADDRESS from the arguments of connect(). False when we cannot pool it: a family other
 * than IPv4 and IPv6, LEN too short, or an IPv6 flow label. */
bool address_from(struct address *address, const struct sockaddr *addr, socklen_t len);

static inline bool address_equal(const struct address *a, const struct address *b)
{
    return memcmp(a, b, sizeof(*a)) == 0;
}

/* Writes the text of ADDRESS ("127.0.0.1:11211", "[::1]:11211") with its final NUL into TEXT of
 * ADDRESS_TEXT_SIZE bytes. */
void address_text(const struct address *address, char *text);

#endif
