/*
 * Prints how many page faults a fork has, in the parent and in its child until that ends.
 *
 *     pages PORT      first uses a connection to PORT; 0: none
 */
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define FORKS 50

static void fail(const char *what)
{
    perror(what);
    exit(1);
}

static void use_connection(int port)
{
    struct sockaddr_in server = {.sin_family = AF_INET,
                                 .sin_port = htons((uint16_t)port),
                                 .sin_addr = {htonl(INADDR_LOOPBACK)}};
    char answer[5];
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0 ||
        send(fd, "get nothing\r\n", 13, 0) != 13 ||
        recv(fd, answer, sizeof(answer), MSG_WAITALL) != sizeof(answer) || close(fd) != 0)
        fail("a connection");
}

static long faults(void)
{
    struct rusage self, children;

    getrusage(RUSAGE_SELF, &self);
    getrusage(RUSAGE_CHILDREN, &children);
    return self.ru_minflt + children.ru_minflt;
}

static void fork_once(void)
{
    pid_t child = fork();

    if (child == 0)
        _exit(0);
    if (child < 0 || waitpid(child, NULL, 0) != child)
        fail("a fork");
}

int main(int argc, char **argv)
{
    int port = argc > 1 ? atoi(argv[1]) : 0;
    long before;

    if (port != 0)
        use_connection(port);
    fork_once(); /* the family is made at the first one */
    before = faults();
    for (int i = 0; i < FORKS; i++)
        fork_once();
    printf("%.1f\n", (double)(faults() - before) / FORKS);
    return 0;
}
