/*
 * The address of a server in one normal form, and its text. Pure functions without state.
 */
#ifndef MCPOOL_ADDRESS_H
#define MCPOOL_ADDRESS_H

#include <stdbool.h>
#include <stdint.h>
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

/* Fills ADDRESS from the arguments of connect(). False when we cannot pool it: a family other
 * than IPv4 and IPv6, LEN too short, or an IPv6 flow label. */
bool address_from(struct address *address, const struct sockaddr *addr, socklen_t len);

/* Fills IP, 16 bytes, with the IPv4 address V4, 4 bytes in network order, as v4-mapped IPv6. */
void address_map_v4(uint8_t *ip, const void *v4);

bool address_equal(const struct address *a, const struct address *b);

/* Writes the text of ADDRESS ("127.0.0.1:11211", "[::1]:11211") with its final NUL into TEXT of
 * ADDRESS_TEXT_SIZE bytes. */
void address_text(const struct address *address, char *text);

#endif
