/*
 * What the programs share. Their results must be the same with and without the library. A
 * program prints every call with its result and errno, and what it read. transparency.py runs
 * it.
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

/* Where the output goes: an fd that no program closes by accident. */
#define OUT_FD 500
extern FILE *out;

/* The scripted server, and a port without a server. */
extern struct sockaddr_in server;
extern struct sockaddr_in no_server;
#define SERVER    ((struct sockaddr *)&server), sizeof(server)
#define NO_SERVER ((struct sockaddr *)&no_server), sizeof(no_server)

struct program {
    const char *name;
    void (*run)(void);
    bool pools; /* with the library it must reuse a connection */
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

/* Prints a call, its result, and errno, which must stay unchanged on success. */
#define STEP(call)                                                                             \
    ({                                                                                         \
        long result_;                                                                          \
        errno = 4711;                                                                          \
        result_ = (long)(call);                                                                \
        SAY("%s = %ld errno %d\n", #call, result_, errno);                                     \
        result_;                                                                               \
    })

/* dial() opens a connection and prints both steps. dial_quietly() prints nothing. park() opens,
 * uses and closes a connection and prints nothing: one is idle from then on. */
int dial(void);
int dial_quietly(void);
void park(void);

void tell(int fd, const char *text);
/* Reads until the input ends with TEXT or the peer closes, and prints it. */
void hear_until(int fd, const char *text);
/* Asks for KEY and prints the answer. transparency.py has the meaning of keys. */
void ask(int fd, const char *key);

/* The length of the answer to `get one`, and of any other key with three letters. */
#define ANSWER 35

/* Waits up to five seconds and prints what poll() gave. */
void wait_for(int fd, short events);

/* A server in this process that accepts no connection: its queue is full. */
struct sockaddr_in deaf_server(void);

/* Prints which fds are open below the top quarter of the smallest table, where shadow fds may
 * be. */
void say_open_fds(void);

#endif
