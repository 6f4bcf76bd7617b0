/*
 * A program that shares its fds with an object whose calls meet no hook, because the object is
 * in a dlmopen() namespace or loaded with RTLD_DEEPBIND: elsewhere PORT OBJECT
 * namespace|deepbind. OBJECT is built from tests/integration/plugin.c. Exit code 1 when
 * anything went wrong.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURNS = 3 };

static int (*speak)(int port);
static ssize_t (*send_there)(int fd, const void *bytes, size_t n, int flags);
static int (*close_there)(int fd);
static int (*dup2_there)(int fd, int to);
static int port;

static void need(int holds, const char *what)
{
    if (!holds) {
        perror(what);
        exit(1);
    }
}

static void load(const char *path, const char *how)
{
    void *object = strcmp(how, "namespace") == 0
                       ? dlmopen(LM_ID_NEWLM, path, RTLD_NOW)
                       : dlopen(path, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);

    need(object != NULL, "load");
    *(void **)&speak = dlsym(object, "speak");
    *(void **)&send_there = dlsym(object, "send");
    *(void **)&close_there = dlsym(object, "close");
    *(void **)&dup2_there = dlsym(object, "dup2");
    need(speak && send_there && close_there && dup2_there, "names");
}

static int dial(void)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    need(connect(fd, (struct sockaddr *)&addr, sizeof(addr)) == 0, "connect");
    return fd;
}

static void ask(int fd, ssize_t (*send_by)(int, const void *, size_t, int))
{
    char answer[5];

    need(send_by(fd, "get nothing\r\n", 13, 0) == 13, "send");
    need(recv(fd, answer, 5, MSG_WAITALL) == 5 && memcmp(answer, "END\r\n", 5) == 0, "recv");
}

static void turns(void)
{
    for (int i = 0; i < TURNS; i++) {
        int fd = dial();

        ask(fd, send);
        need(close(fd) == 0, "close");
    }
}

static void closed_there(void)
{
    int fd = dial();

    ask(fd, send);
    need(close_there(fd) == 0, "close there");
    need(fcntl(fd, F_GETFD) == -1, "closed");
    turns();
}

/* Bytes of which the hooks see only the answer, or nothing at all. */
static void spoken_there(void)
{
    int fd = dial();

    ask(fd, send);
    ask(fd, send_there);
    need(close(fd) == 0, "close");
    fd = dial();
    ask(fd, send);
    need(send_there(fd, "delete nothing noreply\r\n", 24, 0) == 24, "send there");
    need(close(fd) == 0, "close");
    turns();
}

/* Another socket at the same fd. */
static void replaced_there(void)
{
    int fd = dial();
    int null = open("/dev/null", O_WRONLY);

    ask(fd, send);
    need(dup2_there(null, fd) == fd && write(fd, "\n", 1) == 1, "dup2 there");
    need(close(fd) == 0 && close(null) == 0, "close");
    turns();
}

int main(int argc, char **argv)
{
    if (argc != 4)
        return 2;
    port = atoi(argv[1]);
    turns();
    load(argv[2], argv[3]);
    for (int i = 0; i < TURNS; i++)
        need(speak(port) == 0, "speak");
    turns();
    closed_there();
    spoken_there();
    replaced_there();
    return 0;
}
