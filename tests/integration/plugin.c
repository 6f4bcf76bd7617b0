/*
 * An object that the tests of RTLD_DEEPBIND load. It talks to memcached, reuses fds and loads
 * other objects.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int speak(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET,
                               .sin_port = htons((uint16_t)port),
                               .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[5];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        send(fd, "get nothing\r\n", 13, 0) != 13 || recv(fd, answer, 5, MSG_WAITALL) != 5 ||
        memcmp(answer, "END\r\n", 5) != 0)
        return -1;
    return close(fd);
}

/* Closes FD, and opens the file PATH in its place. */
int close_and_open(int fd, const char *path)
{
    return close(fd) == 0 ? open(path, O_RDWR | O_CREAT | O_TRUNC, 0600) : -1;
}

void *load(const char *file)
{
    void *volatile object = dlopen(file, RTLD_NOW);

    return object;
}
