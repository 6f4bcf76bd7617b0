/*
 * The worker of growth.py for threads.
 *
 *     threads IP:PORT
 *
 * Answers every line "open|cycle THREADS MILLISECONDS" on its input with the gets that so many
 * threads made in a second in sum, each on a connection of its own that stays open or on one
 * for each get.
 */
#include "../lib/gets.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define THREADS  64
#define DEADLINE 600 /* seconds */

static struct sockaddr_in server;
static bool cycles;
static pthread_barrier_t ready;
static atomic_bool over;
static atomic_long done;

static void *work(void *number)
{
    int open = open_connection(&server);
    unsigned int key = (unsigned int)(size_t)number;
    long turns = 0;

    get(open, key);
    pthread_barrier_wait(&ready);
    /* relaxed: only ends the loop, and no other memory depends on it */
    for (; !atomic_load_explicit(&over, memory_order_relaxed); turns++) {
        int fd = cycles ? open_connection(&server) : open;

        get(fd, ++key);
        if (cycles)
            close(fd);
    }
    atomic_fetch_add(&done, turns);
    close(open);
    return NULL;
}

static double run(unsigned int count, long milliseconds)
{
    struct timespec duration = {milliseconds / 1000, milliseconds % 1000 * 1000000};
    pthread_t threads[THREADS];
    double start, end;

    over = false;
    done = 0;
    pthread_barrier_init(&ready, NULL, count + 1);
    for (size_t i = 0; i < count; i++) {
        if (pthread_create(&threads[i], NULL, work, (void *)(i * 7)) != 0)
            fail("thread");
    }
    pthread_barrier_wait(&ready);
    start = now();
    nanosleep(&duration, NULL);
    over = true;
    end = now();
    for (size_t i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&ready);
    return (double)done / (end - start) * 1e6;
}

int main(int argc, char **argv)
{
    char line[64], what[8];
    unsigned int count;
    long milliseconds;
    int fd;

    if (argc != 2) {
        fprintf(stderr, "usage: %s IP:PORT\n", argv[0]);
        return 2;
    }
    alarm(DEADLINE);
    check_preload();
    server = read_address(argv[1]);
    fd = open_connection(&server);
    store(fd);
    close(fd);
    while (fgets(line, sizeof(line), stdin)) {
        if (sscanf(line, "%7s %u %ld", what, &count, &milliseconds) != 3 || count < 1 ||
            count > THREADS)
            return 2;
        cycles = strcmp(what, "cycle") == 0;
        printf("%.3f\n", run(count, milliseconds));
        fflush(stdout);
    }
    return 0;
}
