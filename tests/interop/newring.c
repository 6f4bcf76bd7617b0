/*
 * Functions of liburing-ffi and of liburing versions that a distribution may not have yet. With
 * -DLIBRARY: a library that has these functions under their symbol versions and makes the
 * system call itself. Otherwise: newring PORT NAME, which calls the function NAME and then uses
 * a connection.
 */
#include <arpa/inet.h>
#include <linux/io_uring.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/rawsys.h"

int io_uring_setup(unsigned int entries, struct io_uring_params *params);
int io_uring_queue_init(unsigned int entries, void *ring, unsigned int flags);
int io_uring_queue_init_params(unsigned int entries, void *ring,
                               struct io_uring_params *params);
int io_uring_queue_init_mem(unsigned int entries, void *ring, struct io_uring_params *params,
                            void *bytes, size_t size);

#ifdef LIBRARY
static int made(unsigned int entries, struct io_uring_params *params)
{
    return (int)raw_syscall(SYS_io_uring_setup, entries, params);
}

int io_uring_setup(unsigned int entries, struct io_uring_params *params)
{
    return made(entries, params);
}

int io_uring_queue_init(unsigned int entries, void *ring, unsigned int flags)
{
    struct io_uring_params params = {.flags = flags};

    *(int *)ring = made(entries, &params);
    return *(int *)ring < 0 ? *(int *)ring : 0;
}

int io_uring_queue_init_params(unsigned int entries, void *ring, struct io_uring_params *params)
{
    *(int *)ring = made(entries, params);
    return *(int *)ring < 0 ? *(int *)ring : 0;
}

int io_uring_queue_init_mem(unsigned int entries, void *ring, struct io_uring_params *params,
                            void *bytes, size_t size)
{
    (void)bytes;
    return io_uring_queue_init_params(entries, ring, params) < 0 ? -1 : (int)size;
}
#else
static int make(const char *name)
{
    struct io_uring_params params = {0};
    char bytes[4096];
    int ring = -1;

    if (strcmp(name, "io_uring_setup") == 0)
        return io_uring_setup(4, &params) < 0;
    if (strcmp(name, "io_uring_queue_init") == 0)
        return io_uring_queue_init(4, &ring, 0) != 0;
    if (strcmp(name, "io_uring_queue_init_params") == 0)
        return io_uring_queue_init_params(4, &ring, &params) != 0;
    return io_uring_queue_init_mem(4, &ring, &params, bytes, sizeof(bytes)) != sizeof(bytes);
}

static int turn(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    char answer[5];

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return connect(fd, (struct sockaddr *)&to, sizeof(to)) == 0 &&
           send(fd, "get a\r\n", 7, 0) == 7 && recv(fd, answer, 5, MSG_WAITALL) == 5 &&
           close(fd) == 0;
}

int main(int argc, char **argv)
{
    if (argc != 3 || !turn(argv[1]))
        return 2;
    if (make(argv[2]) != 0)
        return puts("no ring may be made here"), 77;
    return turn(argv[1]) ? 0 : 3;
}
#endif
