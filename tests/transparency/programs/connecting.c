/*
 * The start of a connection: connect() in all its ways, and what a program may do before it.
 */
#include "program.h"

#include <sched.h>
#include <sys/un.h>

POOLED_PROGRAM(blocking_connect)
{
    for (int i = 0; i < 3; i++) {
        int fd = dial();

        ask(fd, "one");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(connect_that_need_not_wait)
{
    park();
    for (int i = 0; i < 2; i++) {
        int error = 4711;
        socklen_t len = sizeof(error);
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));

        STEP(connect(fd, SERVER));
        wait_for(fd, POLLOUT);
        STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
        SAY("SO_ERROR %d, %u bytes\n", error, len);
        STEP(fcntl(fd, F_GETFL));
        STEP(recv(fd, &error, 1, 0));
        tell(fd, "get one\r\n");
        wait_for(fd, POLLIN);
        STEP(fcntl(fd, F_SETFL, 0));
        hear_until(fd, "END\r\n");
        STEP(close(fd));
    }
}

/* A socket that began to connect without waiting, and is connected by now. */
static int connecting(void)
{
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));

    STEP(connect(fd, SERVER));
    wait_for(fd, POLLOUT);
    return fd;
}

static void say_peer(int fd)
{
    struct sockaddr_in peer = {0};
    socklen_t len = sizeof(peer);

    STEP(getpeername(fd, (struct sockaddr *)&peer, &len));
    SAY("peer %s, the server: %d\n", inet_ntoa(peer.sin_addr),
        peer.sin_port == server.sin_port);
}

POOLED_PROGRAM(asked_for_the_outcome_of_connect)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = connecting();

        say_peer(fd);
        for (int again = 0; again < 3; again++)
            STEP(connect(fd, SERVER));
        STEP(fcntl(fd, F_SETFL, 0));
        ask(fd, "one");
        STEP(connect(fd, SERVER));
        STEP(close(fd));
    }
}

/* What a second connect() returns, whatever the program did before. */
POOLED_PROGRAM(connect_asked_late)
{
    park();
    for (int way = 0; way < 5; way++) {
        int error = 4711;
        socklen_t len = sizeof(error);
        int fd = connecting();

        if (way == 1)
            STEP(fcntl(fd, F_SETFL, 0));
        if (way == 2)
            STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
        if (way >= 3) {
            STEP(fcntl(fd, F_SETFL, 0));
            ask(fd, "one");
        }
        if (way == 4)
            STEP(shutdown(fd, SHUT_RD));
        STEP(connect(fd, SERVER));
        STEP(connect(fd, SERVER));
        STEP(close(fd));
        park();
    }
}

/* While a socket connects the kernel does not look at the address. */
POOLED_PROGRAM(connect_asked_with_another_address)
{
    struct sockaddr_in6 other = {.sin6_family = AF_INET6, .sin6_port = server.sin_port};
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int fd;

    park();
    fd = connecting();
    STEP(connect(fd, SERVER));
    STEP(connect(fd, NO_SERVER));
    STEP(close(fd));
    park();
    fd = connecting();
    STEP(connect(fd, (void *)8, sizeof(server)));
    STEP(connect(fd, (struct sockaddr *)&server, 1));
    STEP(connect(fd, (struct sockaddr *)&server, 4711));
    STEP(connect(fd, NO_SERVER));
    STEP(connect(fd, NO_SERVER));
    STEP(close(fd));
    park();
    fd = connecting();
    STEP(connect(fd, (struct sockaddr *)&other, sizeof(other)));
    STEP(connect(fd, (struct sockaddr *)&other, sizeof(other)));
    STEP(close(fd));
    park();
    fd = connecting();
    STEP(connect(fd, &nowhere, sizeof(nowhere)));
    STEP(connect(fd, SERVER));
    wait_for(fd, POLLOUT);
    STEP(connect(fd, SERVER));
    STEP(connect(fd, SERVER));
    STEP(close(fd));
}

/* The former user did not ask how connect() ended, so the kernel has not reported it yet. */
POOLED_PROGRAM(connected_by_another)
{
    for (int i = 0; i < 3; i++) {
        int fd = connecting();

        STEP(fcntl(fd, F_SETFL, 0));
        ask(fd, "one");
        STEP(close(fd));
        fd = dial();
        STEP(connect(fd, SERVER));
        STEP(connect(fd, SERVER));
        ask(fd, "one");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(connected_already)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        STEP(connect(fd, SERVER));
        ask(fd, "one");
        STEP(connect(fd, SERVER));
        STEP(close(fd));
        STEP(connect(fd, SERVER));
    }
}

PROGRAM(refused)
{
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

    STEP(connect(fd, NO_SERVER));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(connect(fd, NO_SERVER));
    STEP(close(fd));
}

/* The same socket is used again after a failure. */
PROGRAM(refused_then_accepted)
{
    int fd;

    park();
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    STEP(connect(fd, NO_SERVER));
    STEP(connect(fd, SERVER));
    ask(fd, "one");
    STEP(close(fd));
}

PROGRAM(refused_without_waiting)
{
    int error = 4711;
    socklen_t len = sizeof(error);
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));

    STEP(connect(fd, NO_SERVER));
    wait_for(fd, POLLOUT | POLLIN);
    STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    SAY("SO_ERROR %d\n", error);
    STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    SAY("SO_ERROR %d\n", error);
    STEP(close(fd));
}

/* In a network namespace without any route. Where it may not be made, both runs print so. */
PROGRAM(unreachable)
{
    int fd;

    park();
    STEP(unshare(CLONE_NEWUSER | CLONE_NEWNET));
    fd = dial();
    STEP(close(fd));
}

/* The call that sends the first bytes makes the connection. */
PROGRAM(connected_by_what_is_said)
{
    int on = 1;
    int fd;

    park();
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    STEP(sendto(fd, "get one\r\n", 9, MSG_FASTOPEN, SERVER));
    hear_until(fd, "END\r\n");
    STEP(connect(fd, SERVER));
    ask(fd, "two");
    STEP(close(fd));
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    STEP(setsockopt(fd, IPPROTO_TCP, TCP_FASTOPEN_CONNECT, &on, sizeof(on)));
    STEP(connect(fd, SERVER));
    ask(fd, "three");
    STEP(close(fd));
}

PROGRAM(deaf_peer)
{
    struct sockaddr_in deaf = deaf_server();
    struct pollfd wanted = {.events = POLLIN | POLLOUT};
    int error = 4711;
    socklen_t len = sizeof(error);
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0));

    STEP(connect(fd, (struct sockaddr *)&deaf, sizeof(deaf)));
    STEP(connect(fd, (struct sockaddr *)&deaf, sizeof(deaf)));
    wanted.fd = fd;
    STEP(poll(&wanted, 1, 50));
    STEP(getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(shutdown(fd, SHUT_RDWR));
    STEP(close(fd));
}

PROGRAM(deaf_peer_and_patience)
{
    struct sockaddr_in deaf = deaf_server();
    struct timeval patience = {0, 100000};
    int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

    STEP(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience)));
    STEP(connect(fd, (struct sockaddr *)&deaf, sizeof(deaf)));
    STEP(connect(fd, (struct sockaddr *)&deaf, sizeof(deaf)));
    STEP(close(fd));
}

PROGRAM(disconnected_and_connected_again)
{
    struct sockaddr nowhere = {.sa_family = AF_UNSPEC};
    int fd;

    park();
    fd = dial();
    ask(fd, "one");
    STEP(connect(fd, &nowhere, sizeof(nowhere)));
    STEP(send(fd, "x", 1, MSG_NOSIGNAL));
    STEP(connect(fd, SERVER));
    ask(fd, "two");
    STEP(close(fd));
    park();
}

PROGRAM(bound_before)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(0x7f000002)}};
    socklen_t len = sizeof(here);
    int fd;

    park();
    fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    STEP(bind(fd, (struct sockaddr *)&here, sizeof(here)));
    STEP(bind(fd, (struct sockaddr *)&here, sizeof(here)));
    STEP(connect(fd, SERVER));
    STEP(getsockname(fd, (struct sockaddr *)&here, &len));
    SAY("from %s\n", inet_ntoa(here.sin_addr));
    ask(fd, "one");
    STEP(close(fd));
}

/* Each on a socket of its own: after a failure the library does not look at a socket again. */
static void try_address(int domain, const void *addr, socklen_t len)
{
    int fd = (int)STEP(socket(domain, SOCK_STREAM, 0));

    STEP(connect(fd, addr, len));
    STEP(connect(fd, addr, len));
    STEP(close(fd));
}

PROGRAM(bad_addresses)
{
    struct sockaddr_un path = {.sun_family = AF_UNIX, .sun_path = "/nonexistent/socket"};
    struct sockaddr_in6 other = {.sin6_family = AF_INET6, .sin6_port = server.sin_port};
    int fd;

    park();
    try_address(AF_INET, NULL, sizeof(server));
    try_address(AF_INET, (void *)8, sizeof(server));
    try_address(AF_INET, (void *)-8, sizeof(server));
    try_address(AF_INET6, (void *)8, sizeof(other));
    try_address(AF_UNIX, (void *)8, sizeof(path));
    try_address(AF_INET, &server, 3);
    try_address(AF_INET, &server, 0);
    try_address(AF_INET, &server, 4711);
    try_address(AF_INET, &server, (socklen_t)-1);
    try_address(AF_INET, &path, sizeof(path));
    try_address(AF_INET, &other, sizeof(other));
    fd = dial();
    STEP(connect(fd, (void *)8, sizeof(server)));
    STEP(connect(fd, NULL, sizeof(server)));
    ask(fd, "one");
    STEP(close(fd));
}

/* The server is known and connections of both families are idle, but none for a socket of the
 * other family. */
PROGRAM(addresses_of_the_other_family)
{
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = server.sin_port};
    int fd;

    inet_pton(AF_INET6, "::ffff:127.0.0.1", &mapped.sin6_addr);
    park();
    fd = (int)STEP(socket(AF_INET6, SOCK_STREAM, 0));
    STEP(connect(fd, (struct sockaddr *)&mapped, sizeof(mapped)));
    ask(fd, "one");
    STEP(close(fd));
    try_address(AF_INET, &mapped, sizeof(mapped));
    try_address(AF_INET6, &server, sizeof(server));
    try_address(AF_UNIX, &server, sizeof(server));
}

PROGRAM(bad_sockets)
{
    STEP(socket(-1, SOCK_STREAM, 0));
    STEP(socket(AF_INET, 77, 0));
    STEP(socket(AF_INET, SOCK_STREAM, 4711));
    STEP(socket(AF_INET, SOCK_STREAM | 0x10000000, 0));
    STEP(connect(-1, SERVER));
    STEP(connect(4711, SERVER));
    STEP(connect(70000, SERVER));
    STEP(connect(STDIN_FILENO, SERVER));
    STEP(bind(-1, SERVER));
    STEP(listen(STDIN_FILENO, 1));
    STEP(accept(STDIN_FILENO, NULL, NULL));
    STEP(accept4(-1, NULL, NULL, 4711));
    STEP(shutdown(STDIN_FILENO, SHUT_RDWR));
    STEP(setsockopt(STDIN_FILENO, SOL_SOCKET, SO_KEEPALIVE, &(int){1}, sizeof(int)));
}

static void say_option(int fd, const char *name, int level, int option)
{
    unsigned char value[16] = {0};
    socklen_t len = sizeof(value);
    int result = getsockopt(fd, level, option, value, &len);

    SAY("%s: %d, %u bytes:", name, result, len);
    for (socklen_t i = 0; result == 0 && i < len; i++)
        SAY(" %02x", value[i]);
    SAY("\n");
}
#define SAY_OPTION(fd, level, option) say_option(fd, #option, level, option)

static void say_options(int fd)
{
    SAY_OPTION(fd, SOL_SOCKET, SO_TYPE);
    SAY_OPTION(fd, SOL_SOCKET, SO_DOMAIN);
    SAY_OPTION(fd, SOL_SOCKET, SO_PROTOCOL);
    SAY_OPTION(fd, SOL_SOCKET, SO_ACCEPTCONN);
    SAY_OPTION(fd, SOL_SOCKET, SO_ERROR);
    SAY_OPTION(fd, SOL_SOCKET, SO_KEEPALIVE);
    SAY_OPTION(fd, SOL_SOCKET, SO_REUSEADDR);
    SAY_OPTION(fd, SOL_SOCKET, SO_LINGER);
    SAY_OPTION(fd, SOL_SOCKET, SO_RCVTIMEO);
    SAY_OPTION(fd, SOL_SOCKET, SO_SNDTIMEO);
    SAY_OPTION(fd, SOL_SOCKET, SO_RCVLOWAT);
    SAY_OPTION(fd, SOL_SOCKET, SO_PRIORITY);
    SAY_OPTION(fd, SOL_SOCKET, SO_OOBINLINE);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_NODELAY);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_CORK);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_KEEPIDLE);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_KEEPINTVL);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_KEEPCNT);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_USER_TIMEOUT);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_SYNCNT);
    SAY_OPTION(fd, IPPROTO_TCP, TCP_DEFER_ACCEPT);
    SAY_OPTION(fd, IPPROTO_IP, IP_TOS);
    SAY_OPTION(fd, IPPROTO_IP, IP_TTL);
}

POOLED_PROGRAM(options_of_a_new_connection)
{
    park();
    for (int i = 0; i < 2; i++) {
        int fd = dial();

        say_options(fd);
        ask(fd, "one");
        say_options(fd);
        STEP(close(fd));
    }
}

POOLED_PROGRAM(options_set_before_and_after)
{
    struct timeval second = {1, 0};
    int on = 1, idle = 77;

    park();
    for (int i = 0; i < 3; i++) {
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

        STEP(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on)));
        STEP(setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle)));
        STEP(setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &second, sizeof(second)));
        if (i == 1)
            STEP(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)));
        STEP(connect(fd, SERVER));
        say_options(fd);
        STEP(setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &second, sizeof(second)));
        STEP(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){i == 2}, sizeof(int)));
        ask(fd, "one");
        say_options(fd);
        STEP(close(fd));
    }
}

PROGRAM(bad_options)
{
    char value[4] = {0};
    void *volatile nowhere = (void *)8;
    socklen_t len = sizeof(value);
    int fd;

    park();
    fd = dial();
    STEP(setsockopt(fd, IPPROTO_TCP, 4711, value, 4));
    STEP(setsockopt(fd, 4711, 1, value, 4));
    STEP(setsockopt(fd, SOL_SOCKET, SO_RCVBUF, value, 1));
    STEP(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, NULL, 4));
    STEP(setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, nowhere, 4));
    STEP(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, nowhere, 4));
    STEP(setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, value, 0));
    STEP(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, nowhere, &len));
    STEP(getsockopt(fd, IPPROTO_TCP, TCP_NODELAY, value, nowhere));
    STEP(getsockopt(fd, SOL_SOCKET, 4711, value, &len));
    ask(fd, "one");
    STEP(close(fd));
}

POOLED_PROGRAM(names_of_both_ends)
{
    park();
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in name = {0};
        socklen_t len = sizeof(name);
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

        STEP(getpeername(fd, (struct sockaddr *)&name, &len));
        STEP(connect(fd, SERVER));
        STEP(getpeername(fd, (struct sockaddr *)&name, &len));
        STEP(memcmp(&name, &server, sizeof(name)));
        STEP(getsockname(fd, (struct sockaddr *)&name, &len));
        SAY("%u bytes, family %d, %s\n", len, name.sin_family, inet_ntoa(name.sin_addr));
        ask(fd, "one");
        STEP(close(fd));
        STEP(getpeername(fd, (struct sockaddr *)&name, &len));
    }
}

/* As Tcl does. A program that reads the port of a bound socket gets the final one. */
POOLED_PROGRAM(bound_before_connect)
{
    for (int i = 0; i < 4; i++) {
        struct sockaddr_in any = {.sin_family = AF_INET}, name = {0}, later = {0};
        socklen_t len = sizeof(name);
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

        STEP(setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &(int){1}, sizeof(int)));
        STEP(bind(fd, (struct sockaddr *)&any, sizeof(any)));
        if (i == 2)
            STEP(getsockname(fd, (struct sockaddr *)&name, &len));
        STEP(bind(fd, (struct sockaddr *)&any, sizeof(any)));
        STEP(connect(fd, SERVER));
        STEP(getsockname(fd, (struct sockaddr *)&later, &len));
        SAY("%s, the same port: %d\n", inet_ntoa(later.sin_addr),
            i != 2 || later.sin_port == name.sin_port);
        ask(fd, "one");
        if (i == 3) {
            struct sockaddr none = {.sa_family = AF_UNSPEC};

            STEP(connect(fd, &none, sizeof(none)));
            STEP(getsockname(fd, (struct sockaddr *)&name, &len));
            SAY("%s, still has the port: %d\n", inet_ntoa(name.sin_addr),
                later.sin_port == name.sin_port);
        }
        STEP(close(fd));
    }
}

/* The priority is the one set last, by SO_PRIORITY or by IP_TOS. */
POOLED_PROGRAM(priorities)
{
    int tos = 0x10;

    park();
    for (int i = 0; i < 5; i++) {
        int fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));

        if (i == 1 || i == 2)
            STEP(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos)));
        if (i > 0)
            STEP(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &(int){i % 3}, sizeof(int)));
        if (i == 3)
            STEP(setsockopt(fd, IPPROTO_IP, IP_TOS, &tos, sizeof(tos)));
        STEP(setsockopt(fd, SOL_SOCKET, SO_PRIORITY, &(int){9000}, 1));
        STEP(connect(fd, SERVER));
        SAY_OPTION(fd, SOL_SOCKET, SO_PRIORITY);
        SAY_OPTION(fd, IPPROTO_IP, IP_TOS);
        ask(fd, "one");
        STEP(close(fd));
    }
}

POOLED_PROGRAM(mapped_addresses)
{
    struct sockaddr_in6 mapped = {.sin6_family = AF_INET6, .sin6_port = server.sin_port};

    memcpy(&mapped.sin6_addr, "\0\0\0\0\0\0\0\0\0\0\xff\xff\x7f\0\0\1", 16);
    for (int i = 0; i < 2; i++) {
        struct sockaddr_in6 peer = {0};
        socklen_t len = sizeof(peer);
        int fd = (int)STEP(socket(AF_INET6, SOCK_STREAM, 0));

        STEP(connect(fd, (struct sockaddr *)&mapped, sizeof(mapped)));
        STEP(getpeername(fd, (struct sockaddr *)&peer, &len));
        STEP(memcmp(&peer, &mapped, sizeof(peer)));
        ask(fd, "one");
        STEP(close(fd));
    }
}

PROGRAM(datagrams)
{
    int fd = (int)STEP(socket(AF_INET, SOCK_DGRAM, 0));

    STEP(connect(fd, NO_SERVER));
    STEP(send(fd, "x", 1, 0));
    wait_for(fd, POLLIN);
    STEP(recv(fd, &(char){0}, 1, 0));
    STEP(shutdown(fd, SHUT_RDWR));
    STEP(close(fd));
}

PROGRAM(unix_sockets)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX, .sun_path = "\0nobody is here"};
    int pair[2];
    int fd = (int)STEP(socket(AF_UNIX, SOCK_STREAM, 0));

    STEP(connect(fd, (struct sockaddr *)&name, sizeof(name)));
    STEP(close(fd));
    STEP(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
    SAY("pair %d %d\n", pair[0], pair[1]);
    STEP(write(pair[0], "get one\r\n", 9));
    STEP(close(pair[0]));
    hear_until(pair[1], "\r\n");
    STEP(recv(pair[1], &(char){0}, 1, 0));
    STEP(close(pair[1]));
}

PROGRAM(a_server_of_its_own)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(here);
    int listener = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    int fd, accepted;

    park();
    STEP(bind(listener, (struct sockaddr *)&here, sizeof(here)));
    STEP(listen(listener, 5));
    STEP(getsockname(listener, (struct sockaddr *)&here, &len));
    for (int i = 0; i < 2; i++) {
        fd = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
        STEP(connect(fd, (struct sockaddr *)&here, sizeof(here)));
        STEP(listen(fd, 5));
        accepted = (int)STEP(i ? accept4(listener, NULL, NULL, SOCK_CLOEXEC)
                               : accept(listener, NULL, NULL));
        tell(fd, "hello\r\n");
        hear_until(accepted, "\r\n");
        STEP(fcntl(accepted, F_GETFD));
        STEP(close(accepted));
        hear_until(fd, "\r\n");
        STEP(close(fd));
    }
    STEP(close(listener));
}

/* accept() returns the fd of a connection that was closed unseen. */
PROGRAM(fd_reused_by_accept)
{
    struct sockaddr_in here = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
    socklen_t len = sizeof(here);
    int listener = socket(AF_INET, SOCK_STREAM, 0);
    int fd, client, accepted;

    STEP(bind(listener, (struct sockaddr *)&here, sizeof(here)));
    STEP(listen(listener, 5));
    STEP(getsockname(listener, (struct sockaddr *)&here, &len));
    client = (int)STEP(socket(AF_INET, SOCK_STREAM, 0));
    fd = dial();
    ask(fd, "one");
    STEP(fclose(fdopen(fd, "r+")));
    STEP(connect(client, (struct sockaddr *)&here, sizeof(here)));
    accepted = (int)STEP(accept(listener, NULL, NULL));
    tell(accepted, "hello\r\n");
    hear_until(client, "\r\n");
    STEP(close(accepted));
    STEP(recv(client, &(char){0}, 1, 0));
}
