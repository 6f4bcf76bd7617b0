/* A program that is not linked with libpthread: five connections, one after the other. */
#include <arpa/inet.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int main(void)
{
    struct sockaddr_in addr = {
        .sin_family = AF_INET, .sin_port = htons(11211), .sin_addr = {htonl(INADDR_LOOPBACK)}};

    for (int i = 0; i < 5; i++) {
        char answer[6] = "";
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
            send(fd, "get nothing\r\n", 13, 0) != 13 || recv(fd, answer, 5, MSG_WAITALL) != 5)
            return 1;
        printf("%d %s", fd, answer);
        if (close(fd) != 0)
            return 1;
    }
    return 0;
}
