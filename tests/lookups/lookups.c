/*
 * How often one call on a tracked fd looks into the fd map. The hook looks a record up once and
 * passes it down. A function that looks again may find another record at the fd, and makes the
 * path longer. Checking that a known word is still there (fdmap_holds()) does not count,
 * because it finds nothing new.
 *
 *     lookups PORT UNUSED_PORT     preloaded with the library of tests/lookups
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

extern unsigned long lookups_made __attribute__((weak));

static int passed, failed;

static void at_most(const char *call, unsigned long most, unsigned long made)
{
    printf("%s %s looks into the fd map %lu times, at most %lu wanted\n",
           made <= most ? "ok  " : "FAILED", call, made, most);
    if (made <= most)
        passed++;
    else
        failed++;
}

#define COUNTED(what, most, call)                                                              \
    ({                                                                                         \
        unsigned long before_ = lookups_made;                                                  \
        long result_ = (call);                                                                 \
        at_most(what, most, lookups_made - before_);                                           \
        result_;                                                                               \
    })

static void need(int good, const char *what)
{
    if (good)
        return;
    printf("FAILED %s: %s\n", what, strerror(errno));
    exit(1);
}

static struct sockaddr_in address_of(const char *port)
{
    return (struct sockaddr_in){.sin_family = AF_INET,
                                .sin_port = htons((uint16_t)atoi(port)),
                                .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
}

static int new_socket(int flags)
{
    int fd = socket(AF_INET, SOCK_STREAM | flags, 0);

    need(fd >= 0, "socket");
    return fd;
}

static void get(int fd)
{
    char reply[64];

    need(write(fd, "get a\r\n", 7) == 7, "write");
    need(read(fd, reply, sizeof(reply)) == 5, "read");
}

static void cycle(const char *connecting, const char *closing, const struct sockaddr_in *server)
{
    int fd = new_socket(0);

    need(COUNTED(connecting, 2, connect(fd, (const void *)server, sizeof(*server))) == 0,
         "connect");
    get(fd);
    COUNTED(closing, 2, close(fd));
}

static void part(const char *text, const struct sockaddr_in *server, int by_shutdown)
{
    int fd = new_socket(0);

    need(connect(fd, (const void *)server, sizeof(*server)) == 0, "connect");
    get(fd);
    if (by_shutdown)
        COUNTED(text, 1, shutdown(fd, SHUT_RDWR));
    else
        COUNTED(text, 1, send(fd, "quit\r\n", 6, 0));
    close(fd);
}

int main(int argc, char **argv)
{
    struct sockaddr_in server, unused;
    int fd;

    need(argc == 3 && &lookups_made, "not preloaded");
    server = address_of(argv[1]);
    unused = address_of(argv[2]);
    cycle("connect(), a miss,", "close() of what the program opened", &server);
    cycle("connect(), a hit,", "close() of what was reused", &server);
    part("send() of quit", &server, 0);
    part("shutdown()", &server, 1);
    fd = new_socket(0);
    need(COUNTED("connect() that is refused", 2,
                 connect(fd, (const void *)&unused, sizeof(unused))) < 0,
         "refusal");
    COUNTED("close() of a socket that is not connected", 2, close(fd));
    fd = new_socket(0);
    need(connect(fd, (const void *)&server, sizeof(server)) == 0, "connect");
    need(write(fd, "get a\r\n", 7) == 7, "write");
    COUNTED("close() with a reply owed", 2, close(fd));
    printf("%d passed, %d failed\n", passed, failed);
    return failed != 0;
}
