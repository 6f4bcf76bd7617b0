/*
 * The client of the fault cases: it asks on new connections, checks each answer against its
 * key, and is quiet between two orders in the way of waiting that it was told.
 *
 *     client IP:PORT poll|select|epoll|read MILLISECONDS
 *
 * MILLISECONDS is how long it waits for an answer. It understands three lines and answers each
 * with "RIGHT FAILED REFUSED WRONG".
 *
 *     batch COUNT WIDTH    COUNT requests, WIDTH at a time
 *     load THREADS MS      THREADS threads ask for MS milliseconds, each 50 times a second
 *     wait THREADS 0       starts THREADS threads that poll for ever
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "../lib/gets.h"

#define WIDTH 256
#define KEYS  1000

struct counts {
    long right, failed, refused, wrong;
};

struct asked {
    int fd;
    bool sent;
    unsigned int key;
    size_t got;
    char answer[256];
};

static struct sockaddr_in server;
static long patience;

static void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};

    nanosleep(&time, NULL);
}

static unsigned int next_key(void)
{
    static _Atomic unsigned int key;

    return key++ % KEYS;
}

/* Counts what came of ASKED and closes its connection. */
static void settle(struct asked *asked, struct counts *counts, bool broken)
{
    char wanted[128];

    snprintf(wanted, sizeof(wanted), "VALUE key-%u 0 %d\r\nvalue-of-key-%u\r\nEND\r\n",
             asked->key, snprintf(NULL, 0, "value-of-key-%u", asked->key), asked->key);
    asked->answer[asked->got] = '\0';
    if (strncmp(asked->answer, "ERROR", 5) == 0)
        counts->refused++;
    else if (strcmp(asked->answer, wanted) == 0 || strcmp(asked->answer, "END\r\n") == 0)
        counts->right++; /* a server that was restarted is empty */
    else if (broken && strncmp(asked->answer, wanted, asked->got) == 0)
        counts->failed++;
    else
        counts->wrong++;
    close(asked->fd);
    asked->fd = -1;
}

static bool is_whole(const struct asked *asked)
{
    return asked->got >= 5 &&
           (memcmp(asked->answer + asked->got - 5, "END\r\n", 5) == 0 ||
            (memcmp(asked->answer, "ERROR", 5) == 0 && asked->answer[asked->got - 1] == '\n'));
}

static void begin(struct asked *asked, struct counts *counts)
{
    *asked = (struct asked){.key = next_key()};
    asked->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    if (asked->fd < 0)
        fail("socket");
    if (connect(asked->fd, (const struct sockaddr *)&server, sizeof(server)) != 0 &&
        errno != EINPROGRESS)
        settle(asked, counts, true);
}

/* The connection is ready for the next step. */
static void go_on(struct asked *asked, struct counts *counts)
{
    char request[32];
    ssize_t n;

    if (!asked->sent) {
        int error = 0;
        socklen_t size = sizeof(error);

        getsockopt(asked->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        n = snprintf(request, sizeof(request), "get key-%u\r\n", asked->key);
        if (error != 0 || send(asked->fd, request, (size_t)n, MSG_NOSIGNAL) != n)
            settle(asked, counts, true);
        asked->sent = true;
        return;
    }
    n = recv(asked->fd, asked->answer + asked->got, sizeof(asked->answer) - 1 - asked->got, 0);
    if (n <= 0) {
        if (n == 0 || errno != EAGAIN)
            settle(asked, counts, true);
        return;
    }
    asked->got += (size_t)n;
}

/* COUNT requests at a time, each on a connection of its own; all are open before the first is
 * closed. */
static void at_a_time(long count, struct counts *counts)
{
    struct asked asked[WIDTH];
    struct pollfd fds[WIDTH];
    double end = now() + (double)patience * 1e3;

    for (long i = 0; i < count; i++)
        begin(&asked[i], counts);
    for (;;) {
        long left = (long)((end - now()) / 1e3);
        long waiting = 0;

        for (long i = 0; i < count; i++) {
            bool waits = asked[i].fd >= 0 && !is_whole(&asked[i]);

            fds[i] =
                (struct pollfd){waits ? asked[i].fd : -1, asked[i].sent ? POLLIN : POLLOUT, 0};
            waiting += waits;
        }
        if (waiting == 0 || left <= 0 || poll(fds, (nfds_t)count, (int)left) <= 0)
            break;
        for (long i = 0; i < count; i++) {
            if (fds[i].fd >= 0 && fds[i].revents)
                go_on(&asked[i], counts);
        }
    }
    for (long i = 0; i < count; i++) {
        if (asked[i].fd >= 0)
            settle(&asked[i], counts, !is_whole(&asked[i]));
    }
}

static void *keep_asking(void *until)
{
    struct counts *counts = calloc(1, sizeof(*counts));

    while (now() < *(double *)until) {
        at_a_time(1, counts);
        sleep_ms(20);
    }
    return counts;
}

static void *keep_waiting(void *pipe)
{
    struct pollfd fd = {*(int *)pipe, POLLIN, 0};

    poll(&fd, 1, -1);
    return NULL;
}

static void load(long threads, long ms, struct counts *counts)
{
    pthread_t ids[WIDTH];
    double until = now() + (double)ms * 1e3;

    for (long i = 0; i < threads; i++)
        pthread_create(&ids[i], NULL, keep_asking, &until);
    for (long i = 0; i < threads; i++) {
        void *result;
        struct counts *of_one;

        pthread_join(ids[i], &result);
        of_one = result;
        counts->right += of_one->right;
        counts->failed += of_one->failed;
        counts->refused += of_one->refused;
        counts->wrong += of_one->wrong;
        free(of_one);
    }
}

static void have_threads_wait(long threads)
{
    static int ends[2];
    pthread_t id;

    if (pipe(ends) != 0)
        fail("pipe");
    for (long i = 0; i < threads; i++)
        pthread_create(&id, NULL, keep_waiting, &ends[0]);
}

static void obey(const char *order, struct counts *counts)
{
    char word[16];
    long first, second;

    if (sscanf(order, "%15s %ld %ld", word, &first, &second) != 3)
        exit(2);
    if (strcmp(word, "batch") == 0) {
        if (second < 1 || second > WIDTH)
            exit(2);
        for (; first > 0; first -= second)
            at_a_time(first < second ? first : second, counts);
    } else if (first > WIDTH) {
        exit(2);
    } else if (strcmp(word, "load") == 0) {
        load(first, second, counts);
    } else if (strcmp(word, "wait") == 0) {
        have_threads_wait(first);
    } else {
        exit(2);
    }
}

/* Waits for the next order, without a limit. */
static void be_quiet(const char *way)
{
    static int set = -1;
    struct epoll_event event = {.events = EPOLLIN};
    struct pollfd fd = {STDIN_FILENO, POLLIN, 0};
    fd_set fds;

    if (strcmp(way, "poll") == 0) {
        poll(&fd, 1, -1);
    } else if (strcmp(way, "select") == 0) {
        FD_ZERO(&fds);
        FD_SET(STDIN_FILENO, &fds);
        select(1, &fds, NULL, NULL, NULL);
    } else if (strcmp(way, "epoll") == 0) {
        if (set < 0) {
            set = epoll_create1(EPOLL_CLOEXEC);
            epoll_ctl(set, EPOLL_CTL_ADD, STDIN_FILENO, &event);
        }
        epoll_wait(set, &event, 1, -1);
    }
}

int main(int argc, char **argv)
{
    char order[64];

    check_preload();
    if (argc != 4)
        return 2;
    server = read_address(argv[1]);
    patience = atol(argv[3]);
    /* One order at a time, so that nothing is left in a buffer when it waits. */
    setvbuf(stdin, NULL, _IONBF, 0);
    for (;;) {
        struct counts counts = {0};

        be_quiet(argv[2]);
        if (!fgets(order, sizeof(order), stdin))
            return 0;
        obey(order, &counts);
        printf("%ld %ld %ld %ld\n", counts.right, counts.failed, counts.refused, counts.wrong);
        fflush(stdout);
    }
}
