/*
 * The other program that instructions.py measures: one dialogue again and again on a connection
 * that stays open. A turn is one call that sends and one that receives, whatever their length,
 * so that its instructions are always the same.
 *
 *     dialogues IP:PORT NAME COUNT
 */
#include "lib/gets.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ITEMS      100
#define LONG_VALUE 100000
#define DEADLINE   600 /* seconds */

/* Bytes that are sent, or received. */
struct text {
    char bytes[LONG_VALUE + 100];
    size_t n;
};

static struct text request, reply;

static void add(struct text *text, const void *bytes, size_t n)
{
    if (n > sizeof(text->bytes) - text->n) {
        errno = EMSGSIZE;
        fail("a dialogue");
    }
    memcpy(text->bytes + text->n, bytes, n);
    text->n += n;
}

static void add_line(struct text *text, const char *line)
{
    add(text, line, strlen(line));
    add(text, "\r\n", 2);
}

static void add_number(struct text *text, const char *format, int number)
{
    char line[100];

    snprintf(line, sizeof(line), format, number);
    add(text, line, strlen(line));
}

static void add_value(struct text *text)
{
    for (size_t i = 0; i < LONG_VALUE; i++)
        add(text, "v", 1);
    add(text, "\r\n", 2);
}

static void one(void)
{
    add_line(&request, "get key-00");
    add_line(&reply, "VALUE key-00 0 5\r\nvalue\r\nEND");
}

static void missing(void)
{
    add_line(&request, "get none");
    add_line(&reply, "END");
}

static void keys(void)
{
    add_number(&request, "get", 0);
    for (int i = 0; i < ITEMS; i++) {
        add_number(&request, " key-%02d", i);
        add_number(&reply, "VALUE key-%02d 0 5\r\nvalue\r\n", i);
    }
    add_line(&request, "");
    add_line(&reply, "END");
}

static void pipeline(void)
{
    for (int i = 0; i < ITEMS; i++)
        one();
}

static void set(void)
{
    add_line(&request, "set key-00 0 0 5\r\nvalue");
    add_line(&reply, "STORED");
}

static void get_long(void)
{
    add_line(&request, "get long");
    add_number(&reply, "VALUE long 0 %d\r\n", LONG_VALUE);
    add_value(&reply);
    add_line(&reply, "END");
}

static void set_long(void)
{
    add_number(&request, "set long 0 0 %d\r\n", LONG_VALUE);
    add_value(&request);
    add_line(&reply, "STORED");
}

static void meta(void)
{
    add_line(&request, "mg key-00 v");
    add_line(&reply, "VA 5\r\nvalue");
}

static void binary(void)
{
    static const uint8_t asks[] = {0x80, 0x00, 0, 6, [11] = 6},
                         answers[] = {0x81, 0x00, 0, 0, 4, [11] = 9};
    static const uint8_t zeros[24];

    add(&request, asks, sizeof(asks));
    add(&request, zeros, 24 - sizeof(asks));
    add(&request, "key-00", 6);
    add(&reply, answers, sizeof(answers));
    add(&reply, zeros, 24 + 4 - sizeof(answers));
    add(&reply, "value", 5);
}

static const struct {
    const char *name;
    void (*write)(void);
} dialogues[] = {
    {"one", one},           {"missing", missing},   {"keys", keys},
    {"pipeline", pipeline}, {"get_long", get_long}, {"set", set},
    {"set_long", set_long}, {"meta", meta},         {"binary", binary},
};

/* The unique number of a value, which a binary reply has. */
static void forget_cas(char *bytes)
{
    if (bytes[0] == '\x81')
        memset(bytes + 16, 0, 8);
}

static void play(int fd)
{
    static char got[sizeof(reply.bytes)];

    if (send(fd, request.bytes, request.n, MSG_NOSIGNAL) != (ssize_t)request.n ||
        recv(fd, got, reply.n, MSG_WAITALL) != (ssize_t)reply.n)
        fail("a dialogue");
    forget_cas(got);
    if (memcmp(got, reply.bytes, reply.n) != 0) {
        fputs("a wrong answer\n", stderr);
        exit(1);
    }
}

/* What the dialogues ask for. */
static void fill(int fd)
{
    set_long();
    play(fd);
    for (int i = 0; i < ITEMS; i++) {
        request.n = reply.n = 0;
        add_number(&request, "set key-%02d 0 0 5\r\nvalue\r\n", i);
        add_line(&reply, "STORED");
        play(fd);
    }
    request.n = reply.n = 0;
}

int main(int argc, char **argv)
{
    long count = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    struct sockaddr_in server;
    void (*write)(void) = NULL;
    int fd;

    for (size_t i = 0; argc == 4 && i < sizeof(dialogues) / sizeof(dialogues[0]); i++) {
        if (strcmp(argv[2], dialogues[i].name) == 0)
            write = dialogues[i].write;
    }
    if (!write || count < 1) {
        fputs("usage: dialogues IP:PORT NAME COUNT\n", stderr);
        return 2;
    }
    alarm(DEADLINE);
    check_preload();
    server = read_address(argv[1]);
    fill(open_connection(&server));
    write();
    for (fd = open_connection(&server); count > 0; count--)
        play(fd);
    return 0;
}
