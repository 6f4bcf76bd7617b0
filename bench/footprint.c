/*
 * The program that footprint.py measures: opens COUNT connections to PORT, uses each, and
 * prints how much memory the process has to itself, in bytes.
 *
 *     footprint COUNT PORT
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static int use_connections(long count, int port)
{
    struct sockaddr_in server = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[5];

    while (count-- > 0) {
        int fd = socket(AF_INET, SOCK_STREAM, 0);

        if (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0 ||
            send(fd, "get nothing\r\n", 13, 0) != 13 ||
            recv(fd, answer, sizeof(answer), MSG_WAITALL) != sizeof(answer))
            return 0;
    }
    return 1;
}

/* The process's own pages, without those of files written lately. */
static long own_memory(void)
{
    FILE *file = fopen("/proc/self/smaps_rollup", "r");
    char line[128];
    long kilobytes, sum = 0;

    while (file && fgets(line, sizeof(line), file)) {
        if (sscanf(line, "Anonymous: %ld kB", &kilobytes) == 1)
            sum += kilobytes;
    }
    return sum * 1024;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        fputs("usage: footprint COUNT PORT\n", stderr);
        return 2;
    }
    if (!use_connections(strtol(argv[1], NULL, 10), atoi(argv[2]))) {
        perror("footprint");
        return 1;
    }
    printf("%ld\n", own_memory());
    return 0;
}
