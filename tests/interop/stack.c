/*
 * How much stack the calls of a client take:
 *
 *     stack PORT KIND
 *
 * A thread fills its stack with a pattern, makes the calls of KIND, and looks how far down the
 * pattern is gone. Before and between the calls that count it makes one of the same kind, but
 * for KIND first, which is the process's first connect. It prints the number of bytes, and
 * whether the last reply was right.
 */
#include <arpa/inet.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

#define STACK   (256 << 10)
#define PATTERN 0xa5

static struct sockaddr_in server = {.sin_family = AF_INET};
static const char *kind;
static unsigned char *bottom;
static int silent[2]; /* a pipe that nothing is written to */
static char reply[64];
static long deepest;

static void ask(int fd, const char *request, int answered)
{
    send(fd, request, strlen(request), 0);
    if (answered)
        reply[recv(fd, reply, sizeof(reply) - 1, 0)] = '\0';
}

static void wait_for(int fd)
{
    struct pollfd one = {.fd = fd, .events = POLLIN};
    struct timeval time = {.tv_usec = 1000};
    fd_set set;

    FD_ZERO(&set);
    FD_SET(fd, &set);
    poll(&one, 1, 1);
    select(fd + 1, &set, NULL, NULL, &time);
}

/* One connection's calls, which nothing but these is below on the stack. */
__attribute__((noinline)) static uintptr_t calls(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    connect(fd, (struct sockaddr *)&server, sizeof(server));
    ask(fd, "get k\r\n", 1);
    if (strcmp(kind, "noreply") == 0)
        ask(fd, "set k 0 0 1 noreply\r\nx\r\n", 0);
    if (strcmp(kind, "owed") == 0)
        ask(fd, "get k\r\n", 0);
    if (strcmp(kind, "poll") == 0)
        wait_for(fd);
    close(fd);
    /* The counters are due to be written after a second, so the wait is cut. */
    if (strcmp(kind, "cut") == 0)
        poll(&(struct pollfd){.fd = silent[0], .events = POLLIN}, 1, 1500);
    return (uintptr_t)__builtin_frame_address(0);
}

static void *measure(void *unused)
{
    unsigned char *here = __builtin_frame_address(0), *lowest = bottom;

    if (strcmp(kind, "first") != 0) {
        for (int i = 0; i < 3; i++) {
            calls();
            usleep(50000);
        }
    }
    for (volatile unsigned char *at = bottom; at < here - 512; at++)
        *at = PATTERN;
    deepest = (long)calls();
    while (*lowest == PATTERN)
        lowest++;
    deepest -= (long)(uintptr_t)lowest;
    return unused;
}

int main(int argc, char **argv)
{
    pthread_attr_t attributes;
    pthread_t thread;

    if (argc != 3 || pipe(silent) != 0)
        return 1;
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    kind = argv[2];
    bottom = mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    pthread_attr_init(&attributes);
    if (bottom == MAP_FAILED || pthread_attr_setstack(&attributes, bottom, STACK) != 0 ||
        pthread_create(&thread, &attributes, measure, NULL) != 0)
        return 1;
    pthread_join(thread, NULL);
    printf("%ld %s", deepest, reply);
    return 0;
}
