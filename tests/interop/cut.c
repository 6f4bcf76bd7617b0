/*
 * Waits while there is work for the library: cut PORT CALL MILLISECONDS [threads]. Calls of
 * getpriority(), which nothing else makes, are around the wait.
 */
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <unistd.h>

static void turn(int port)
{
    struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    char answer[64];

    addr.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) != 0 ||
        send(fd, "get a\r\n", 7, 0) != 7 || recv(fd, answer, sizeof(answer), 0) != 5)
        exit(1);
    close(fd);
}

static atomic_bool runs;

static void *sleep_for_ever(void *unused)
{
    atomic_store(&runs, true);
    for (;;)
        pause();
    return unused;
}

static int wait_by(const char *call, int ms)
{
    struct timespec spec = {ms / 1000, ms % 1000 * 1000000L};
    struct timeval time = {ms / 1000, ms % 1000 * 1000L};
    struct epoll_event event;
    static int set = -1;

    if (strcmp(call, "poll") == 0)
        return poll(NULL, 0, ms);
    if (strcmp(call, "ppoll") == 0)
        return ppoll(NULL, 0, &spec, NULL);
    if (strcmp(call, "select") == 0)
        return select(0, NULL, NULL, NULL, &time);
    if (strcmp(call, "pselect") == 0)
        return pselect(0, NULL, NULL, NULL, &spec, NULL);
    if (set < 0)
        set = epoll_create1(0);
    getpriority(PRIO_PROCESS, 0);
    if (strcmp(call, "epoll_pwait2") == 0)
        return epoll_pwait2(set, &event, 1, &spec, NULL);
    return epoll_wait(set, &event, 1, ms);
}

int main(int argc, char **argv)
{
    pthread_t thread;

    if (argc > 4)
        pthread_create(&thread, NULL, sleep_for_ever, NULL);
    while (argc > 4 && !atomic_load(&runs))
        usleep(1000);
    for (int i = 0; i < 3; i++)
        turn(atoi(argv[1]));
    getpriority(PRIO_PROCESS, 0);
    if (wait_by(argv[2], atoi(argv[3])) != 0)
        return 2;
    getpriority(PRIO_PROCESS, 0);
    return 0;
}
