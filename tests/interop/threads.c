/*
 * Threads that make their own connections, send from blocks of exactly the request's size, and
 * hand the open connection to another thread to close: threads PORT. Exit code 1 when an answer
 * was wrong.
 */
#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { THREADS = 4, TURNS = 25 };

static struct sockaddr_in server;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static int handed_on = -1;

static void need(int holds)
{
    if (!holds) {
        perror("threads");
        exit(1);
    }
}

/* Closes the fd that another thread handed on, and leaves FD for the next. */
static void hand_on(int fd)
{
    int last;

    pthread_mutex_lock(&lock);
    last = handed_on;
    handed_on = fd;
    pthread_mutex_unlock(&lock);
    need(last < 0 || close(last) == 0);
}

static void turn(int thread, int number)
{
    char text[64], answer[64], got[64];
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    size_t n = (size_t)snprintf(text, sizeof(text), "set k%d 0 0 4\r\n%04d\r\nget k%d\r\n",
                                thread, number, thread);
    size_t answer_n = (size_t)snprintf(
        answer, sizeof(answer), "STORED\r\nVALUE k%d 0 4\r\n%04d\r\nEND\r\n", thread, number);
    char *request = malloc(n);

    need(connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0);
    memcpy(request, text, n);
    need(send(fd, request, n, 0) == (ssize_t)n);
    free(request);
    need(recv(fd, got, answer_n, MSG_WAITALL) == (ssize_t)answer_n);
    need(memcmp(got, answer, answer_n) == 0);
    hand_on(fd);
}

static void *turns(void *thread)
{
    for (int i = 0; i < TURNS; i++)
        turn(*(int *)thread, i);
    return NULL;
}

int main(int argc, char **argv)
{
    pthread_t threads[THREADS];
    int numbers[THREADS];

    if (argc != 2)
        return 2;
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    for (int i = 0; i < THREADS; i++) {
        numbers[i] = i;
        need(pthread_create(&threads[i], NULL, turns, &numbers[i]) == 0);
    }
    for (int i = 0; i < THREADS; i++)
        need(pthread_join(threads[i], NULL) == 0);
    hand_on(-1);
    return 0;
}
