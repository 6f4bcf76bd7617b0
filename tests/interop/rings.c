/*
 * A client whose receive is still pending when it closes the connection: rings PORT KIND,
 * linked with liburing and libaio. With -DPLUGIN it is a plugin linked with them, which rings
 * PORT KIND PLUGIN loads with RTLD_LOCAL. Prints what each receive got.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef HOST
#include <libaio.h>
#include <liburing.h>

enum { ROUNDS = 30 };

static int dial(const char *port)
{
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(port))};
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
        exit(3);
    return fd;
}

/* The reply to a get, when it comes. */
static void speak(int fd)
{
    struct pollfd ready = {fd, POLLIN, 0};
    char reply[64] = "";

    if (send(fd, "get a\r\n", 7, 0) != 7)
        exit(4);
    if (poll(&ready, 1, 1000) != 1)
        puts("no reply");
    usleep(10000);
    if (recv(fd, reply, sizeof(reply) - 1, MSG_DONTWAIT) < 0)
        puts("the reply went elsewhere");
    else
        printf("reply %s", reply);
}

static struct io_uring ring;
static io_context_t context;
static char taken[ROUNDS][64];

static int begin(const char *kind)
{
    struct io_uring_params params = {0};

    if (strcmp(kind, "ring") == 0)
        return io_uring_queue_init(64, &ring, 0);
    if (strcmp(kind, "params") == 0)
        return io_uring_queue_init_params(64, &ring, &params);
    if (strcmp(kind, "setup") == 0)
        return io_uring_setup(64, &params) < 0 ||
               io_uring_queue_mmap(io_uring_setup(64, &params), &params, &ring) != 0;
    return io_setup(64, &context);
}

static void receive(const char *kind, int fd, char *into)
{
    struct io_uring_sqe *entry;
    struct iocb block, *list[] = {&block};

    if (strcmp(kind, "aio") == 0) {
        io_prep_poll(&block, fd, POLLIN);
        printf("submitted %d\n", io_submit(context, 1, list));
        return;
    }
    entry = io_uring_get_sqe(&ring);
    io_uring_prep_recv(entry, fd, into, sizeof(taken[0]), 0);
    printf("submitted %d\n", io_uring_submit(&ring));
}

static int has_come(const char *kind)
{
    struct timespec now = {0, 0};
    struct io_uring_cqe *entry;
    struct io_event event;

    if (strcmp(kind, "aio") == 0)
        return io_getevents(context, 0, 1, &event, &now) != 0;
    return io_uring_peek_cqe(&ring, &entry) == 0;
}

int run(const char *port, const char *kind)
{
    struct iocb *nowhere[] = {NULL};

    speak(dial(port));
    if (begin(kind) != 0)
        return puts("no ring may be made here"), 77;
    if (strcmp(kind, "aio") == 0)
        printf("nothing at a bad address: %d\n", io_submit(context, 1, nowhere));
    for (int i = 0; i < ROUNDS; i++) {
        int fd = dial(port);

        speak(fd);
        receive(kind, fd, taken[i]);
        close(fd);
        fd = dial(port);
        speak(fd);
        if (has_come(kind))
            printf("of another user's reply the first got '%s'\n", taken[i]);
        close(fd);
    }
    return 0;
}
#endif

#ifndef PLUGIN
int main(int argc, char **argv)
{
#ifdef HOST
    void *plugin = argc == 4 ? dlopen(argv[3], RTLD_LAZY | RTLD_LOCAL) : NULL;
    int (*run)(const char *, const char *) =
        plugin ? (int (*)(const char *, const char *))dlsym(plugin, "run") : NULL;

    if (!run)
        return puts("no plugin"), 2;
#endif
    return run(argv[1], argv[2]);
}
#endif
