/*
 * The worker of unix_fence.py: how much pooling of Unix sockets could gain at most.
 *
 *     unix_fence PATH
 *
 * Answers every line "open|plain|fence|proof COUNT" on its input, after so many turns, with the
 * time of one turn in microseconds. The kernel counts no bytes on Unix sockets, so only the
 * server can prove that no reply is outstanding. It is sent a fence when the connection is
 * closed, and the answer to the fence must be the very next bytes. The fence is `mn` with a
 * bare newline: a half request cannot take it for its data, which ends with CR and LF.
 */
#include "lib/gets.h"

#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define FENCE    "mn\n"
#define ANSWER   "MN\r\n"
#define WARM_UP  10
#define DEADLINE 600 /* seconds */

static struct sockaddr_un server = {.sun_family = AF_UNIX};
static struct stat place;

static int open_fd;   /* stays open, for gets alone */
static int fenced_fd; /* given to each turn, with an answer to a fence in flight */
static int spare;     /* a socket that was never connected */

static int dial(void)
{
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0)
        fail("connect");
    return fd;
}

/* No two turns in a row ask for the same key, so that an answer meant for another turn is
 * noticed. */
static void get_next(int fd)
{
    static unsigned int last;

    get(fd, ++last);
}

static void get_on_open(void)
{
    get_next(open_fd);
}

static void plain(void)
{
    int fd = dial();

    get_next(fd);
    close(fd);
}

static void send_fence(void)
{
    if (send(fenced_fd, FENCE, strlen(FENCE), MSG_NOSIGNAL) != (ssize_t)strlen(FENCE))
        fail("fence");
}

/* More room than the answer needs, so that a byte behind it is noticed. */
static void expect_answer(void)
{
    char bytes[64];

    if (recv(fenced_fd, bytes, sizeof(bytes), 0) != (ssize_t)strlen(ANSWER) ||
        memcmp(bytes, ANSWER, strlen(ANSWER)) != 0)
        fail("the answer to the fence");
}

/* The fewest calls that a pool needs: the program's fd comes from a spare socket, dup3() puts
 * the kept connection there, and close() leaves the connection open. */
static void fence(void)
{
    int fd = fcntl(spare, F_DUPFD, 0);

    expect_answer();
    if (fd < 0 || dup3(fenced_fd, fd, 0) != fd)
        fail("duplicates");
    get_next(fd);
    close(fd);
    send_fence();
}

/* What a reused connection needs beside: the path still leads to the same socket, the peer is
 * the same process, and no flag has changed. */
static void proof(void)
{
    struct stat now_there;
    struct ucred peer;
    socklen_t len = sizeof(peer);

    if (stat(server.sun_path, &now_there) != 0 || now_there.st_dev != place.st_dev ||
        now_there.st_ino != place.st_ino ||
        getsockopt(fenced_fd, SOL_SOCKET, SO_PEERCRED, &peer, &len) != 0 ||
        fcntl(fenced_fd, F_GETFL) < 0)
        fail("proof");
    fence();
}

static const struct {
    const char *name;
    void (*turn)(void);
} kinds[] = {{"open", get_on_open}, {"plain", plain}, {"fence", fence}, {"proof", proof}};

/* The first turns find caches filled by other code. */
static double batch(void (*turn)(void), long count)
{
    double start = 0;

    for (long i = -WARM_UP; i < count; i++) {
        if (i == 0)
            start = now();
        turn();
    }
    return (now() - start) / (double)count;
}

static bool obey(const char *line)
{
    char what[8];
    long count;

    if (sscanf(line, "%7s %ld", what, &count) != 2 || count < 1)
        return false;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        if (strcmp(what, kinds[i].name) != 0)
            continue;
        printf("%.3f\n", batch(kinds[i].turn, count));
        fflush(stdout);
        return true;
    }
    return false;
}

int main(int argc, char **argv)
{
    char line[64];

    if (argc != 2 || strlen(argv[1]) >= sizeof(server.sun_path)) {
        fprintf(stderr, "usage: %s PATH\n", argv[0]);
        return 2;
    }
    alarm(DEADLINE);
    strcpy(server.sun_path, argv[1]);
    if (stat(server.sun_path, &place) != 0)
        fail(server.sun_path);
    open_fd = dial();
    store(open_fd);
    fenced_fd = dial();
    get_next(fenced_fd);
    send_fence();
    spare = socket(AF_UNIX, SOCK_STREAM, 0);
    while (fgets(line, sizeof(line), stdin)) {
        if (!obey(line))
            return 2;
    }
    return 0;
}
