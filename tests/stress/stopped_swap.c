/*
 * A thread that is stopped while it swaps a connection with a duplicate: stopped_swap PORT. Its
 * first byte is binary, on a connection that was reused for text. At each of its operations on
 * the fd map it is stopped once, and meanwhile another thread closes the fd it sends on and
 * gets that fd for a new socket. Afterwards no two fds may have the same connection. The last
 * line counts like a test runner.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* With fewer operations there was no swap. */
enum { CONNECTIONS = 4, STOPS_LEAST = 12, STOPS_MOST = 200 };

static struct sockaddr_in server;

static _Thread_local int until_stop;
static atomic_bool is_stopped, may_go_on;

void pause_visit(const char *at)
{
    if (until_stop == 0 || strcmp(at, "&fdmap_words[fd]") != 0 || --until_stop > 0)
        return;
    is_stopped = true;
    while (!may_go_on)
        usleep(100);
}

static void need(bool good, const char *what)
{
    if (good)
        return;
    printf("FAILED %s: %s\n0 passed, 1 failed\n", what, strerror(errno));
    exit(1);
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    need(fd >= 0 && connect(fd, (const void *)&server, sizeof(server)) == 0, "connect()");
    return fd;
}

static void ask(int fd)
{
    char answer[64];

    need(send(fd, "version\r\n", 9, MSG_NOSIGNAL) == 9 &&
             recv(fd, answer, sizeof(answer), 0) > 0,
         "a request");
}

static int local_port(int fd)
{
    struct sockaddr_in addr = {0};

    getsockname(fd, (void *)&addr, &(socklen_t){sizeof(addr)});
    return addr.sin_port;
}

struct sender {
    int fd, stop_at;
};

/* Where the fd is another's by now, the send may fail. */
static void *send_binary(void *argument)
{
    static const char noop[24] = "\x80\x0a";
    const struct sender *sender = argument;

    until_stop = sender->stop_at;
    send(sender->fd, noop, sizeof(noop), MSG_NOSIGNAL);
    until_stop = 0;
    return NULL;
}

/* Whether connections that are reused now are different ones, also when DUPLICATE is closed:
 * the map must not have a record for it that is another connection's by now. */
static bool are_different(int duplicate)
{
    int first[CONNECTIONS], second[CONNECTIONS];
    bool different = true;

    for (int i = 0; i < CONNECTIONS; i++)
        ask(first[i] = dial());
    for (int i = 0; i < CONNECTIONS; i++)
        close(first[i]);
    for (int i = 0; i < CONNECTIONS; i++)
        ask(first[i] = dial());
    close(duplicate);
    for (int i = 0; i < CONNECTIONS; i++) {
        ask(second[i] = dial());
        for (int j = 0; j < CONNECTIONS; j++)
            different &= local_port(second[i]) != local_port(first[j]);
    }
    for (int i = 0; i < CONNECTIONS; i++) {
        close(first[i]);
        close(second[i]);
    }
    return different;
}

/* False when the thread makes fewer operations than STOP_AT. */
static bool play(int stop_at, bool *good)
{
    pthread_t thread;
    int kept = dial(), fd, copy, taken = -1;
    struct sender sender;
    bool stopped;

    ask(kept);
    close(kept);
    fd = dial();
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    need(copy >= 0, "fcntl()");
    sender = (struct sender){copy, stop_at};
    is_stopped = may_go_on = false;
    need(pthread_create(&thread, NULL, send_binary, &sender) == 0, "pthread_create()");
    for (int i = 0; i < 1000 && !is_stopped && pthread_tryjoin_np(thread, NULL) != 0; i++)
        usleep(1000);
    stopped = is_stopped;
    if (stopped) {
        close(copy);
        taken = socket(AF_INET, SOCK_STREAM, 0);
        may_go_on = true;
        pthread_join(thread, NULL);
    }
    *good = are_different(fd);
    if (stopped)
        close(taken);
    else
        close(copy);
    return stopped;
}

enum { GOOD, BAD, NOT_STOPPED };

/* In a process of its own: what a server was seen to speak decides whether there is a swap. */
static int play_alone(int stop_at)
{
    int status = -1;
    pid_t child = fork();

    if (child == 0) {
        bool good, stopped = play(stop_at, &good);

        _exit(!good ? BAD : stopped ? GOOD : NOT_STOPPED);
    }
    need(child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status), "a child");
    return WEXITSTATUS(status);
}

int main(int argc, char **argv)
{
    int result = GOOD, stops = 0, failed = 0;

    need(argc == 2, "usage");
    alarm(300);
    server = (struct sockaddr_in){.sin_family = AF_INET,
                                  .sin_port = htons((uint16_t)atoi(argv[1])),
                                  .sin_addr = {htonl(INADDR_LOOPBACK)}};
    while (result != NOT_STOPPED && stops < STOPS_MOST) {
        result = play_alone(++stops);
        if (result == BAD)
            printf("FAILED stopped at operation %d: two fds have the same connection\n", stops);
        failed |= result == BAD;
    }
    printf("a swap stopped at each of %d operations: %s\n", stops - 1,
           failed ? "FAILED" : "ok");
    failed |= stops < STOPS_LEAST;
    printf("%d passed, %d failed\n", !failed, failed);
    return failed;
}
