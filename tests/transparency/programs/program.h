/*
 * What the programs share: programs whose results must be the same with and without the shim.
 * A program prints every call with its result and errno, and what it read; run by
 * transparency.py.
 */
#ifndef MCPOOL_PROGRAM_H
#define MCPOOL_PROGRAM_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/* Where the output goes: a number that no program closes by accident. */
#define OUT_FD 500
extern FILE *out;

/* The scripted server, and a port where nobody listens. */
extern struct sockaddr_in server;
extern struct sockaddr_in no_server;
#define SERVER    ((struct sockaddr *)&server), sizeof(server)
#define NO_SERVER ((struct sockaddr *)&no_server), sizeof(no_server)

struct program {
    const char *name;
    void (*run)(void);
    bool pools; /* with the shim it must be reused a connection at least once */
    struct program *next;
};
void program_add(struct program *program);

#define PROGRAM_(name, pools)                                                                  \
    static void name(void);                                                                    \
    __attribute__((constructor)) static void add_##name(void)                                  \
    {                                                                                          \
        static struct program program = {#name, name, pools, NULL};                            \
        program_add(&program);                                                                 \
    }                                                                                          \
    static void name(void)
#define PROGRAM(name)        PROGRAM_(name, false)
#define POOLED_PROGRAM(name) PROGRAM_(name, true)

#define SAY(...) fprintf(out, __VA_ARGS__)

/* A call, its result, and errno, which must stay what it was on success. */
#define STEP(call)                                                                             \
    ({                                                                                         \
        long result_;                                                                          \
        errno = 4711;                                                                          \
        result_ = (long)(call);                                                                \
        SAY("%s = %ld errno %d\n", #call, result_, errno);                                     \
        result_;                                                                               \
    })

/* socket() and connect(), each a step; quietly; and the whole life of a connection, quietly, so
 * that from now on there is one to be lent. */
int dial(void);
int dial_quietly(void);
void park(void);

void tell(int fd, const char *text);
/* Reads until what came ends with TEXT, or for good, and prints it. */
void hear_until(int fd, const char *text);
/* get KEY, answered; see the script in transparency.py for what keys mean. */
void ask(int fd, const char *key);

/* The length of the answer to `get one`, and of any other key with three letters. */
#define ANSWER 35

/* Waits up to five seconds and prints what poll() gave. */
void wait_for(int fd, short events);

/* A server of this process that accepts nobody: its queue is full. */
struct sockaddr_in deaf_server(void);

/* Which fds are open below the top quarter of the smallest table, where shadow fds may be. */
void say_open_fds(void);

#endif
