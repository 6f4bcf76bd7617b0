/*
 * IPv4, IPv6 and IPv4 through IPv6 sockets.
 */
#include "harness.h"

#include <stdio.h>
#include <unistd.h>

static int dial_v6(const struct in6_addr *to)
{
    struct sockaddr_in6 addr = {
        .sin6_family = AF_INET6, .sin6_port = htons((uint16_t)server_port()), .sin6_addr = *to};
    int fd = socket(AF_INET6, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0)
        cr_skip_test("no IPv6 here");
    return fd;
}

Test(families, v6, .timeout = 20)
{
    int fd = dial_v6(&in6addr_loopback);
    int port = local_port(fd);

    exchange(fd);
    close(fd);
    EXPECT_KEPT();
    cr_expect(strstr(last_event(), "[::1]:") != NULL);
    fd = dial_v6(&in6addr_loopback);
    cr_expect(local_port(fd) == port);
    exchange(fd);
}

/* The same server, so the same endpoint. But a program would notice a socket of the other
 * family. */
Test(families, v4_mapped, .timeout = 20)
{
    struct in6_addr mapped = {
        .s6_addr = {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 127, 0, 0, 1}};
    struct sockaddr_storage addr;
    socklen_t len = sizeof(addr);
    char event[1024];
    int port4 = park();
    int fd, port6;

    snprintf(event, sizeof(event), "%s", last_event());
    fd = dial_v6(&mapped);
    port6 = local_port(fd);
    cr_expect(port6 != port4);
    exchange(fd);
    close(fd);
    cr_expect(strcmp(event, last_event()) == 0, "not the same endpoint: %s", last_event());
    fd = dial_v6(&mapped);
    cr_expect(local_port(fd) == port6);
    cr_expect(getpeername(fd, (struct sockaddr *)&addr, &len) == 0);
    cr_expect(addr.ss_family == AF_INET6);
    fd = dial_server();
    cr_expect(local_port(fd) == port4);
}

/* An address of zeros is none: AF_UNSPEC has the number 0. The socket is not tracked any more,
 * as the call may have changed it. */
Test(families, no_address, .timeout = 20)
{
    struct sockaddr none = {.sa_family = AF_UNSPEC};
    struct sockaddr_in addr;
    int fd, before;

    park();
    before = log_count("");
    fd = socket(AF_INET, SOCK_STREAM, 0);
    cr_assert(connect(fd, &none, sizeof(none)) == 0);
    cr_assert(connect(fd, (struct sockaddr *)loopback(&addr, server_port()), sizeof(addr)) ==
              0);
    exchange(fd);
    close(fd);
    cr_expect(log_count("") == before, "%s", last_event());
}
