/*
 * The program that instructions.py measures: calls FUNCTION a number of times, so that the
 * instructions of two runs with different numbers differ by those of the calls.
 *
 *     instructions FUNCTION COUNT
 *
 * No fd here comes from a function that the library hooks, so none is tracked. The calls
 * succeed, because a failing call takes another path through libc.
 */
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int zero, null, here, there;

static int call_read(void)
{
    char byte;

    return read(zero, &byte, sizeof(byte)) == 1;
}

static int call_write(void)
{
    return write(null, "", 1) == 1;
}

/* Sends no bytes, so that no process has to read them. */
static int call_send(void)
{
    return send(here, "", 0, 0) == 0;
}

static int call_recv(void)
{
    char byte;

    return recv(here, &byte, sizeof(byte), MSG_PEEK) == 1;
}

static int call_close(void)
{
    return close(open("/dev/null", O_RDONLY)) == 0;
}

static int call_poll(void)
{
    struct pollfd wanted[] = {{here, POLLIN, 0}, {there, POLLIN, 0}};

    return poll(wanted, 2, -1) == 1;
}

static const struct {
    const char *name;
    int (*call)(void);
} functions[] = {
    {"read", call_read}, {"write", call_write}, {"send", call_send},
    {"recv", call_recv}, {"close", call_close}, {"poll", call_poll},
};

static int open_descriptors(void)
{
    int pair[2];

    zero = open("/dev/zero", O_RDONLY);
    null = open("/dev/null", O_WRONLY);
    if (zero < 0 || null < 0 || socketpair(AF_UNIX, SOCK_STREAM, 0, pair) != 0)
        return 0;
    here = pair[0];
    there = pair[1];
    return write(there, "", 1) == 1;
}

int main(int argc, char **argv)
{
    long count = argc == 3 ? strtol(argv[2], NULL, 10) : 0;
    int (*call)(void) = NULL;

    for (size_t i = 0; argc == 3 && i < sizeof(functions) / sizeof(functions[0]); i++) {
        if (strcmp(argv[1], functions[i].name) == 0)
            call = functions[i].call;
    }
    if (!call || count < 1 || count > 1000000) {
        fputs("usage: instructions FUNCTION COUNT\n", stderr);
        return 2;
    }
    if (!open_descriptors()) {
        perror("instructions");
        return 1;
    }
    while (count-- > 0) {
        if (!call()) {
            perror(argv[1]);
            return 1;
        }
    }
    return 0;
}
