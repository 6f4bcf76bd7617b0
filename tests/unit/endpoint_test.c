/*
 * Addresses in their normal form, their text, and the rules that name them.
 */
#include "config/rules.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/un.h>

#include <criterion/criterion.h>

static struct address inet(const char *ip, uint16_t port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
    struct address address;

    cr_assert(inet_pton(AF_INET, ip, &addr.sin_addr) == 1);
    cr_assert(address_from(&address, (struct sockaddr *)&addr, sizeof(addr)));
    return address;
}

static struct address inet6(const char *ip, uint16_t port, uint32_t scope)
{
    struct sockaddr_in6 addr = {
        .sin6_family = AF_INET6, .sin6_port = htons(port), .sin6_scope_id = scope};
    struct address address;

    cr_assert(inet_pton(AF_INET6, ip, &addr.sin6_addr) == 1);
    cr_assert(address_from(&address, (struct sockaddr *)&addr, sizeof(addr)));
    return address;
}

static void expect_text_of(struct address address, const char *wanted)
{
    char text[ADDRESS_TEXT_SIZE];

    address_text(&address, text);
    cr_expect(strcmp(text, wanted) == 0, "'%s' is not '%s'", text, wanted);
}

Test(endpoint, text)
{
    expect_text_of(inet("127.0.0.1", 11211), "127.0.0.1:11211");
    expect_text_of(inet("255.255.255.255", 65535), "255.255.255.255:65535");
    expect_text_of(inet6("::1", 1, 0), "[::1]:1");
    expect_text_of(inet6("fe80::1", 11211, 3), "[fe80::1%3]:11211");
    expect_text_of(inet6("::ffff:10.0.0.1", 11211, 0), "10.0.0.1:11211");
}

/* Groups are often zero, in runs of every length and at every place. inet_ntop(3) writes
 * ::a.b.c.d for addresses of one form that is not in use any more (RFC 4291, section 2.5.5.1).
 */
Test(endpoint, ipv6_text_is_that_of_inet_ntop)
{
    unsigned int seed = 1;

    for (int i = 0; i < 100000; i++) {
        struct address address = {.port = 1};
        char ip[INET6_ADDRSTRLEN], wanted[ADDRESS_TEXT_SIZE];

        for (int j = 0; j < 16; j += 2) {
            unsigned int group =
                rand_r(&seed) % 2 ? 0
                                  : (unsigned int)rand_r(&seed) % 0xffff >> rand_r(&seed) % 16;

            address.ip[j] = (uint8_t)(group >> 8);
            address.ip[j + 1] = (uint8_t)group;
        }
        inet_ntop(AF_INET6, address.ip, ip, sizeof(ip));
        if (strchr(ip, '.'))
            continue;
        snprintf(wanted, sizeof(wanted), "[%s]:1", ip);
        expect_text_of(address, wanted);
    }
}

Test(endpoint, v4_mapped_is_the_same_endpoint)
{
    struct address a = inet("10.1.2.3", 11211), b = inet6("::ffff:10.1.2.3", 11211, 0);

    cr_expect(address_equal(&a, &b));
}

Test(endpoint, differences_are_in_the_key)
{
    struct address all[] = {inet("10.1.2.3", 11211),    inet("10.1.2.4", 11211),
                            inet("10.1.2.3", 11212),    inet6("fe80::1", 11211, 1),
                            inet6("fe80::1", 11211, 2), inet6("::1", 11211, 0)};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
            bool same = address_equal(&all[i], &all[k]);

            cr_expect(same == (i == k), "%zu and %zu", i, k);
        }
    }
}

Test(endpoint, what_is_no_endpoint)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_flowinfo = 1};
    struct sockaddr_un un = {.sun_family = AF_UNIX, .sun_path = "/run/m.sock"};
    struct sockaddr other = {.sa_family = AF_UNSPEC};
    char *one_byte = malloc(1); /* nothing behind it may be read */
    struct address address;

    cr_expect(!address_from(&address, NULL, 16));
    cr_expect(!address_from(&address, (struct sockaddr *)&in, sizeof(in) - 1));
    cr_expect(!address_from(&address, (struct sockaddr *)&in, 0));
    cr_expect(!address_from(&address, (struct sockaddr *)&in, 1));
    cr_expect(!address_from(&address, (struct sockaddr *)one_byte, 1));
    free(one_byte);
    cr_expect(!address_from(&address, (struct sockaddr *)&in6, sizeof(in6)));
    in6.sin6_flowinfo = 0;
    cr_expect(!address_from(&address, (struct sockaddr *)&in6, sizeof(in6) - 1));
    cr_expect(!address_from(&address, (struct sockaddr *)&in6, sizeof(in)));
    cr_expect(!address_from(&address, &other, sizeof(other)));
    cr_expect(!address_from(&address, (struct sockaddr *)&un, sizeof(un)), "a Unix socket");
}

static bool named_by(const char *list, struct address address)
{
    struct rule rules[8];
    size_t n = 0;

    for (const char *item = list; *item; item += strspn(item, ",")) {
        size_t length = strcspn(item, ",");

        cr_assert(rule_parse(&rules[n++], item, length), "'%s' is no rule", item);
        item += length;
    }
    return rules_match(rules, n, &address);
}

Test(endpoint, rules)
{
    cr_expect(named_by("11211", inet("10.0.0.1", 11211)));
    cr_expect(named_by("11211", inet6("fe80::1", 11211, 2)));
    cr_expect(!named_by("11211", inet("10.0.0.1", 11212)));
    cr_expect(named_by("10.0.0.1:11212", inet("10.0.0.1", 11212)));
    cr_expect(named_by("10.0.0.1:11212", inet6("::ffff:10.0.0.1", 11212, 0)));
    cr_expect(!named_by("10.0.0.1:11212", inet("10.0.0.2", 11212)));
    cr_expect(!named_by("10.0.0.1:11212", inet("10.0.0.1", 11211)));
    cr_expect(named_by("[::1]:5", inet6("::1", 5, 0)));
    cr_expect(!named_by("[::1]:5", inet6("::2", 5, 0)));
    cr_expect(named_by("10.0.0.0/8:5", inet("10.255.255.255", 5)));
    cr_expect(!named_by("10.0.0.0/8:5", inet("11.0.0.0", 5)));
    cr_expect(named_by("192.168.4.0/22:5", inet("192.168.7.255", 5)));
    cr_expect(!named_by("192.168.4.0/22:5", inet("192.168.8.0", 5)));
    cr_expect(named_by("10.0.0.0/31:5", inet("10.0.0.1", 5)));
    cr_expect(!named_by("10.0.0.0/31:5", inet("10.0.0.2", 5)));
    cr_expect(named_by("0.0.0.0/0:5", inet("1.2.3.4", 5)));
    cr_expect(!named_by("0.0.0.0/0:5", inet6("::1", 5, 0)), "0.0.0.0/0 is all of IPv4");
    cr_expect(named_by("[fd00::/8]:5", inet6("fdff::1", 5, 0)));
    cr_expect(!named_by("[fd00::/8]:5", inet6("fe00::1", 5, 0)));
    cr_expect(named_by("*", inet("10.0.0.1", 1)) && named_by("*", inet6("::9", 9, 0)));
    cr_expect(!named_by("*,!10.0.0.1:5", inet("10.0.0.1", 5)));
    cr_expect(!named_by("!10.0.0.1:5,*", inet("10.0.0.1", 5)), "the order does not matter");
    cr_expect(named_by("*,!10.0.0.1:5", inet("10.0.0.1", 6)));
}

Test(endpoint, malformed_rules)
{
    static const char *const bad[] = {
        "",
        "!",
        "0",
        "65536",
        "-1",
        "11211 ",
        " 11211",
        "x",
        "10.0.0.1:",
        "10.0.0:5",
        "10.0.0.1:x",
        "::1:5",
        "::1:11211",
        "2001:db8::1:8080",
        "1.2.3.4:5:6",
        "[10.0.0.1]",
        "[::1",
        "10.0.0.1/33",
        "localhost",
        "localhost:5",
        "[::1]5",
        "[::1]x5",
        "[::1:5",
        "[10.0.0.1]:5",
        "10.0.0.0/33:5",
        "10.0.0.0/:5",
        "10.0.0.0/-1:5",
        "[::/129]:5",
        "host:11211",
        "**",
        "!!5",
        "111111",
        "011211",
        "[]:5",
        "/run/m.sock",
    };
    struct rule rule;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect(!rule_parse(&rule, bad[i], strlen(bad[i])), "'%s' is no rule", bad[i]);
}

Test(endpoint, an_address_alone_means_the_default_port)
{
    cr_expect(named_by("10.0.0.1", inet("10.0.0.1", 11211)));
    cr_expect(!named_by("10.0.0.1", inet("10.0.0.1", 11212)));
    cr_expect(!named_by("10.0.0.1", inet("10.0.0.2", 11211)));
    cr_expect(named_by("10.0.0.0/8", inet("10.1.2.3", 11211)));
    cr_expect(!named_by("10.0.0.0/8", inet("10.1.2.3", 11212)));
    cr_expect(named_by("[::1]", inet6("::1", 11211, 0)));
    cr_expect(named_by("[fd00::/8]", inet6("fdff::1", 11211, 0)));
    cr_expect(!named_by("*,!10.0.0.1", inet("10.0.0.1", 11211)));
    cr_expect(named_by("::1", inet6("::1", 11211, 0)));
    cr_expect(named_by("2001:db8::8080", inet6("2001:db8::8080", 11211, 0)));
    cr_expect(named_by("1:2:3:4:5:6:7:8", inet6("1:2:3:4:5:6:7:8", 11211, 0)));
    cr_expect(named_by("fd00::/8", inet6("fdff::1", 11211, 0)));
    cr_expect(named_by("::ffff:10.0.0.1", inet("10.0.0.1", 11211)));
}

Test(endpoint, localhost_is_both_loopbacks)
{
    struct address v4 = inet("127.0.0.1", 5), v6 = inet6("::1", 5, 0);
    struct rule rules[RULES_PER_ITEM];

    cr_expect(rules_parse(rules, "localhost:5,", 11) == 2);
    cr_expect(rules_match(rules, 2, &v4) && rules_match(rules, 2, &v6));
    v4 = inet("127.0.0.2", 5);
    cr_expect(!rules_match(rules, 2, &v4));
    cr_expect(rules_parse(rules, "LocalHost", 9) == 2);
    cr_expect(rules[0].port == 11211 && rules[1].port == 11211 && !rules[1].exclude);
    cr_expect(rules_parse(rules, "!localhost", 10) == 2);
    cr_expect(rules[0].exclude && rules[1].exclude);
    cr_expect(rules_parse(rules, "10.0.0.1:5", 10) == 1);
    cr_expect(rules_parse(rules, "localhost:", 10) == 0);
    cr_expect(rules_parse(rules, "localhost:x", 11) == 0);
    cr_expect(rules_parse(rules, "localhost/8:5", 13) == 0);
    cr_expect(rules_parse(rules, "localhost5", 10) == 0);
    cr_expect(rules_parse(rules, "localhost:111111", 16) == 0);
    cr_expect(rules_parse(rules, "", 0) == 0 && rules_parse(rules, "!", 1) == 0);
}

/* For every length of a prefix: an address that differs in its last bit is outside, one that
 * differs in the next bit is inside. */
static void expect_prefix(const char *format, int base, int bits)
{
    struct rule rule;
    struct address address = {.port = 5};
    char text[64];
    int last = base + bits - 1;

    snprintf(text, sizeof(text), format, bits);
    cr_assert(rule_parse(&rule, text, strlen(text)), "'%s' is no rule", text);
    memcpy(address.ip, rule.ip, sizeof(address.ip));
    cr_expect(rules_match(&rule, 1, &address), "%s", text);
    if (bits > 0) {
        address.ip[last / 8] ^= (uint8_t)(0x80 >> last % 8);
        cr_expect(!rules_match(&rule, 1, &address), "%s, bit %d", text, last);
        address.ip[last / 8] ^= (uint8_t)(0x80 >> last % 8);
    }
    if (last + 1 < 128) {
        address.ip[(last + 1) / 8] ^= (uint8_t)(0x80 >> (last + 1) % 8);
        cr_expect(rules_match(&rule, 1, &address), "%s, bit %d", text, last + 1);
    }
}

Test(endpoint, every_prefix)
{
    for (int bits = 0; bits <= 32; bits++)
        expect_prefix("170.85.170.85/%d:5", 96, bits);
    for (int bits = 0; bits <= 128; bits++)
        expect_prefix("[aa55:aa55:aa55:aa55:55aa:55aa:55aa:55aa/%d]:5", 0, bits);
}

Test(endpoint, rules_of_mapped_addresses)
{
    cr_expect(named_by("[::ffff:10.0.0.1]:5", inet("10.0.0.1", 5)));
    cr_expect(!named_by("[::ffff:10.0.0.1]:5", inet("10.0.0.2", 5)));
    cr_expect(named_by("[::ffff:10.0.0.0/104]:5", inet("10.255.0.1", 5)));
    cr_expect(named_by("[::/0]:5", inet("1.2.3.4", 5)), "IPv4 is a part of it");
    cr_expect(named_by("[::/0]:5,!0.0.0.0/0:5", inet6("2001:db8::1", 5, 0)));
    cr_expect(!named_by("[::/0]:5,!0.0.0.0/0:5", inet("1.2.3.4", 5)));
}

Test(endpoint, exclusions)
{
    cr_expect(!named_by("!10.0.0.1:5", inet("10.0.0.2", 5)), "alone it names nothing");
    cr_expect(!named_by("*,!*", inet("10.0.0.1", 5)));
    cr_expect(!named_by("5,!5", inet("10.0.0.1", 5)));
    cr_expect(!named_by("5,!10.0.0.0/8:5", inet6("::ffff:10.0.0.1", 5, 0)));
    cr_expect(!rules_match(NULL, 0, &(struct address){.port = 5}));
}

/* The pool hashes these bytes. They are the same whatever the caller's structure had in its
 * padding. */
Test(endpoint, the_key_is_defined)
{
    struct sockaddr_in in;
    struct address a, b;

    for (int i = 0; i < 2; i++) {
        memset(&in, i ? 0xff : 0, sizeof(in));
        memset(i ? &a : &b, i ? 0xff : 0, sizeof(a));
        in.sin_family = AF_INET;
        in.sin_port = htons(5);
        in.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        cr_assert(address_from(i ? &a : &b, (struct sockaddr *)&in, sizeof(in)));
    }
    cr_expect(memcmp(&a, &b, sizeof(a)) == 0 && address_equal(&a, &b));
}

Test(endpoint, longest_rules)
{
    static const char longest[] = "![ffff:ffff:ffff:ffff:ffff:ffff:255.255.255.255/128]:65535";
    char text[200];
    struct rule rule;

    cr_expect(rule_parse(&rule, longest, sizeof(longest) - 1) && rule.exclude);
    memset(text, '1', sizeof(text));
    cr_expect(!rule_parse(&rule, text, sizeof(text)));
}

/* The longest text of an address fits, with its end in the right place. */
Test(endpoint, longest_text)
{
    char text[ADDRESS_TEXT_SIZE + 1];
    struct address address =
        inet6("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", 65535, UINT32_MAX);

    text[ADDRESS_TEXT_SIZE] = '#';
    address_text(&address, text);
    cr_expect(strcmp(text, "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff%4294967295]:65535") == 0);
    cr_expect(text[ADDRESS_TEXT_SIZE] == '#');
    expect_text_of(inet("0.0.0.0", 0), "0.0.0.0:0");
    expect_text_of(inet6("::", 0, 0), "[::]:0");
}
