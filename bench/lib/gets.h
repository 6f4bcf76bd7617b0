/*
 * What our programs ask of memcached, and how they know that the answer is theirs. Any failure
 * ends the program with a message, because there would be nothing to measure.
 */
#ifndef BENCH_GETS_H
#define BENCH_GETS_H

#include <netinet/in.h>

#define GET_KEYS 97

_Noreturn void fail(const char *what);

/* Microseconds, for differences. */
double now(void);

/* Reads "IP:PORT", which is changed. */
struct sockaddr_in read_address(char *text);

/* A new connection; -1 with errno when there is none. */
int try_connection(const struct sockaddr_in *server);
int open_connection(const struct sockaddr_in *server);

/* Puts the values of all keys into the cache, and prepares get(). */
void store(int fd);

/* Asks for the key of NUMBER modulo GET_KEYS. An answer with another key ends the program; with
 * get(), so does any answer but the value. */
enum got { GOT_VALUE, GOT_NOTHING, GOT_NO_ANSWER };

enum got try_get(int fd, unsigned int number);
void get(int fd, unsigned int number);

/* Asks the kernel for TCP_INFO: the least that proves that the connection FD is alive. */
void prove_alive(int fd);

/* Ends the program when LD_PRELOAD names a missing library: the loader only warns. */
void check_preload(void);

#endif
