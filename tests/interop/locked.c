/*
 * A client under a limit of memory:
 *
 *     locked PORT mlockall|address-space
 *
 * It locks its memory, or allows itself no more address space than it has. Then it opens
 * SOCKETS sockets at a time, which need more records of connections than there are at the
 * start, and asks the server on each. It prints how many answers were right.
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#define SOCKETS 400

static const char answer[] = "END\r\n";

static int limit(const char *kind)
{
    char line[256] = "";
    unsigned long pages = 0;
    FILE *statm;

    if (strcmp(kind, "mlockall") == 0)
        return mlockall(MCL_CURRENT | MCL_FUTURE);
    statm = fopen("/proc/self/statm", "r");
    if (!statm || !fgets(line, sizeof(line), statm) || sscanf(line, "%lu", &pages) != 1)
        return -1;
    fclose(statm);
    pages *= (unsigned long)sysconf(_SC_PAGESIZE);
    return setrlimit(RLIMIT_AS, &(struct rlimit){pages, pages});
}

int main(int argc, char **argv)
{
    struct sockaddr_in server = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)(argc > 1 ? atoi(argv[1]) : 0)),
                                 .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    static int fds[SOCKETS];
    char reply[16];
    int right = 0;

    printf("ready\n");
    if (argc != 3 || limit(argv[2]) != 0) {
        perror("limit");
        return 1;
    }
    for (int i = 0; i < SOCKETS; i++) {
        fds[i] = socket(AF_INET, SOCK_STREAM, 0);
        if (fds[i] < 0 || connect(fds[i], (struct sockaddr *)&server, sizeof(server)) != 0) {
            perror("connect");
            return 1;
        }
    }
    for (int i = 0; i < SOCKETS; i++) {
        if (write(fds[i], "get nothing\r\n", 13) == 13 &&
            read(fds[i], reply, sizeof(reply)) == (ssize_t)strlen(answer) &&
            memcmp(reply, answer, strlen(answer)) == 0)
            right++;
        close(fds[i]);
    }
    printf("%d\n", right);
    return 0;
}
