/*
 * A network between two network namespaces: two TUN devices, and a delay of the packets between
 * them, the same in each direction.
 *
 *     forwarder NAMESPACE NAMESPACE      (paths, such as /proc/PID/ns/net)
 *
 * Each namespace gets a device "wire". Each input line is a delay in microseconds, one way; the
 * answer is a line when it is in force. The end of the input ends the program. Packets keep
 * their order. The program spins for the last part of a delay, because waking up takes longer
 * than a packet may be late.
 */
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include <linux/if_tun.h>

#define PACKET   2048
#define QUEUE    1024 /* packets on their way in each direction; more are lost, as on any link */
#define SPIN     60000 /* nanoseconds before a packet is due in which we do not sleep */
#define DEADLINE 600   /* seconds */

struct packet {
    int64_t due;
    size_t len;
    char bytes[PACKET];
};

struct direction {
    int from, to;
    size_t first, count;
    struct packet queue[QUEUE];
};

static struct direction directions[2];
static int64_t delay;

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* A device belongs to the namespace in which it was opened. */
static int open_device(const char *path)
{
    struct ifreq request = {.ifr_name = "wire", .ifr_flags = IFF_TUN | IFF_NO_PI};
    int ns = open(path, O_RDONLY | O_CLOEXEC);
    int fd;

    if (ns < 0 || setns(ns, CLONE_NEWNET) != 0)
        fail(path);
    close(ns);
    fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0 || ioctl(fd, TUNSETIFF, &request) != 0)
        fail("/dev/net/tun");
    return fd;
}

static void take(struct direction *way)
{
    while (way->count < QUEUE) {
        struct packet *packet = &way->queue[(way->first + way->count) % QUEUE];
        ssize_t len = read(way->from, packet->bytes, sizeof(packet->bytes));

        if (len <= 0)
            return;
        packet->len = (size_t)len;
        packet->due = now() + delay;
        way->count++;
    }
}

static void deliver(struct direction *way)
{
    while (way->count > 0 && way->queue[way->first].due <= now()) {
        struct packet *packet = &way->queue[way->first];
        ssize_t written = write(way->to, packet->bytes, packet->len);

        (void)written; /* a device that is down loses it */
        way->first = (way->first + 1) % QUEUE;
        way->count--;
    }
}

/* Waits until a packet comes, the input has a line, or the first packet is nearly due. */
static bool wait_for_something(void)
{
    struct pollfd wanted[] = {{directions[0].from, POLLIN, 0},
                              {directions[1].from, POLLIN, 0},
                              {STDIN_FILENO, POLLIN, 0}};
    struct timespec timeout = {1, 0};

    for (int i = 0; i < 2; i++) {
        const struct direction *way = &directions[i];
        int64_t left = way->count > 0 ? way->queue[way->first].due - now() - SPIN : 1000000000;

        left = left > 0 ? left : 0;
        if (left < (int64_t)timeout.tv_sec * 1000000000 + timeout.tv_nsec)
            timeout = (struct timespec){left / 1000000000, left % 1000000000};
    }
    ppoll(wanted, 3, &timeout, NULL);
    return wanted[2].revents != 0;
}

static bool read_delay(void)
{
    char line[32];
    ssize_t len = read(STDIN_FILENO, line, sizeof(line) - 1);

    if (len <= 0)
        return false;
    line[len] = '\0';
    delay = (int64_t)(strtod(line, NULL) * 1e3);
    return write(STDOUT_FILENO, "0\n", 2) == 2;
}

int main(int argc, char **argv)
{
    int devices[2];

    if (argc != 3) {
        fprintf(stderr, "usage: %s NAMESPACE NAMESPACE\n", argv[0]);
        return 2;
    }
    alarm(DEADLINE);
    prctl(PR_SET_TIMERSLACK, 1UL);
    for (int i = 0; i < 2; i++)
        devices[i] = open_device(argv[i + 1]);
    directions[0].from = directions[1].to = devices[0];
    directions[1].from = directions[0].to = devices[1];
    if (write(STDOUT_FILENO, "0\n", 2) != 2)
        fail("write");
    for (;;) {
        if (wait_for_something() && !read_delay())
            return 0;
        for (int i = 0; i < 2; i++) {
            take(&directions[i]);
            deliver(&directions[i]);
        }
    }
}
