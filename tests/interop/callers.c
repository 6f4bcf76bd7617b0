/*
 * A library that calls connect() without waiting. The test gives its file different names.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static int answer_of(int fd, uint16_t port)
{
    struct sockaddr_in server = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr = {htonl(INADDR_LOOPBACK)}};

    return connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0 ? 0 : errno;
}

/* What connect() returned on a non-blocking socket, 0 or its errno, when a connection to PORT
 * had been used and closed before; -1 when that could not be done. */
int answer(uint16_t port)
{
    char reply[5];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    int said;

    if (answer_of(fd, port) != 0 || send(fd, "get a\r\n", 7, 0) != 7 ||
        recv(fd, reply, 5, MSG_WAITALL) != 5 || memcmp(reply, "END\r\n", 5) != 0)
        return -1;
    close(fd);
    fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    said = answer_of(fd, port);
    close(fd);
    return said;
}
