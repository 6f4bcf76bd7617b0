/*
 * Addresses in their normal form, their text, and the rules that name them.
 */
#include "endpoint.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

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

static struct address path(const char *name)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct address address;

    strncpy(addr.sun_path, name, sizeof(addr.sun_path) - 1);
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
    expect_text_of(path("/run/memcached.sock"), "/run/memcached.sock");
}

Test(endpoint, v4_mapped_is_the_same_endpoint)
{
    struct address a = inet("10.1.2.3", 11211), b = inet6("::ffff:10.1.2.3", 11211, 0);

    cr_expect(address_equal(&a, &b));
}

Test(endpoint, differences_are_in_the_key)
{
    struct address all[] = {inet("10.1.2.3", 11211),
                            inet("10.1.2.4", 11211),
                            inet("10.1.2.3", 11212),
                            inet6("fe80::1", 11211, 1),
                            inet6("fe80::1", 11211, 2),
                            path("/a"),
                            path("/ab"),
                            inet6("::1", 11211, 0)};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        for (size_t k = 0; k < sizeof(all) / sizeof(all[0]); k++) {
            bool same = address_equal(&all[i], &all[k]);

            cr_expect(same == (i == k), "%zu and %zu", i, k);
        }
    }
}

Test(endpoint, longest_path)
{
    struct sockaddr_un addr = {.sun_family = AF_UNIX};
    struct address address;
    char text[ADDRESS_TEXT_SIZE];

    memset(addr.sun_path, 'x', sizeof(addr.sun_path));
    addr.sun_path[0] = '/';
    cr_assert(address_from(&address, (struct sockaddr *)&addr, sizeof(addr)));
    address_text(&address, text);
    cr_expect(strlen(text) == sizeof(addr.sun_path));
}

Test(endpoint, what_is_no_endpoint)
{
    struct sockaddr_in in = {.sin_family = AF_INET};
    struct sockaddr_in6 in6 = {.sin6_family = AF_INET6, .sin6_flowinfo = 1};
    struct sockaddr_un un = {.sun_family = AF_UNIX};
    struct sockaddr other = {.sa_family = AF_UNSPEC};
    struct address address;

    cr_expect(!address_from(&address, NULL, 16));
    cr_expect(!address_from(&address, (struct sockaddr *)&in, sizeof(in) - 1));
    cr_expect(!address_from(&address, (struct sockaddr *)&in, 0));
    cr_expect(!address_from(&address, (struct sockaddr *)&in, 1));
    cr_expect(!address_from(&address, (struct sockaddr *)&in6, sizeof(in6)));
    cr_expect(!address_from(&address, (struct sockaddr *)&in6, sizeof(in6) - 1));
    cr_expect(!address_from(&address, &other, sizeof(other)));
    cr_expect(!address_from(&address, (struct sockaddr *)&un, sizeof(sa_family_t)), "unnamed");
    cr_expect(!address_from(&address, (struct sockaddr *)&un, sizeof(un)), "abstract");
    strcpy(un.sun_path, "relative");
    cr_expect(!address_from(&address, (struct sockaddr *)&un, sizeof(un)));
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
    cr_expect(!named_by("11211", path("/11211")));
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
    cr_expect(named_by("/run/m.sock", path("/run/m.sock")));
    cr_expect(!named_by("/run/m.sock", path("/run/m.sock2")));
    cr_expect(named_by("*", path("/any")) && named_by("*", inet6("::9", 9, 0)));
    cr_expect(!named_by("*,!10.0.0.1:5", inet("10.0.0.1", 5)));
    cr_expect(!named_by("!10.0.0.1:5,*", inet("10.0.0.1", 5)), "the order does not matter");
    cr_expect(named_by("*,!10.0.0.1:5", inet("10.0.0.1", 6)));
    cr_expect(!named_by("5,!/run/m.sock", path("/run/m.sock")));
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
        "10.0.0.1",
        "10.0.0.1:",
        "10.0.0:5",
        "10.0.0.1:x",
        "::1:5",
        "[::1]",
        "[::1]5",
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
        "[]:5",
    };
    struct rule rule;

    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        cr_expect(!rule_parse(&rule, bad[i], strlen(bad[i])), "'%s' is no rule", bad[i]);
}
