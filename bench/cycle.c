/*
 * What a connection per request costs, with and without the shim, in one run.
 *
 *     cycle PORT LIBRARY ROUNDS CSV      measures against the memcached at 127.0.0.1:PORT
 *     cycle PORT --worker                what it starts, one with the library preloaded
 *
 * The workers do a batch when they are told to, so that the batches of all kinds are
 * interleaved and what disturbs the machine disturbs them alike. Times are context; the result
 * is the ratio of each batch to the batch of the same round, in the same process, on a
 * connection that stays open.
 */
#include <arpa/inet.h>
#include <fcntl.h>
#include <link.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <linux/tcp.h>

#define BATCH    300
#define MOST     1000
#define KEYS     97
#define DEADLINE 240 /* seconds, for driver and workers */

/* What a worker can be told to do, a letter each. */
#define OPEN  'o' /* get on a connection that stays open */
#define FLOOR 'f' /* the same with one TCP_INFO: the least any proof costs */
#define CYCLE 'c' /* socket, connect, get, close */

static struct sockaddr_in server = {.sin_family = AF_INET};

static _Noreturn void fail(const char *what)
{
    perror(what);
    exit(1);
}

static double now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e6 + (double)t.tv_nsec / 1e3;
}

static int open_connection(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (fd < 0 || connect(fd, (struct sockaddr *)&server, sizeof(server)) != 0)
        fail("connect");
    return fd;
}

static void ask(int fd, const char *request, const char *wanted, size_t len)
{
    char answer[256];
    size_t got = 0;

    if (send(fd, request, strlen(request), 0) != (ssize_t)strlen(request))
        fail("send");
    while (got < len) {
        ssize_t n = recv(fd, answer + got, sizeof(answer) - got, 0);

        if (n <= 0)
            fail("recv");
        got += (size_t)n;
    }
    if (got != len || memcmp(answer, wanted, len) != 0) {
        fputs("a wrong answer\n", stderr);
        exit(1);
    }
}

/* No two in a row ask for the same key, so that an answer meant for another is seen. */
static struct {
    char request[32];
    char answer[64];
} gets[KEYS];

static void store(int fd)
{
    for (int i = 0; i < KEYS; i++) {
        char request[64];

        snprintf(request, sizeof(request), "set bench-%02d 0 0 14\r\nvalue-of-%05d\r\n", i, i);
        ask(fd, request, "STORED\r\n", 8);
        snprintf(gets[i].request, sizeof(gets[i].request), "get bench-%02d\r\n", i);
        snprintf(gets[i].answer, sizeof(gets[i].answer),
                 "VALUE bench-%02d 0 14\r\nvalue-of-%05d\r\nEND\r\n", i, i);
    }
}

static void get(int fd)
{
    static int last;

    last = (last + 1) % KEYS;
    ask(fd, gets[last].request, gets[last].answer, strlen(gets[last].answer));
}

static void ask_kernel(int fd)
{
    struct tcp_info info;
    socklen_t len = sizeof(info);

    if (getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &len) != 0)
        fail("TCP_INFO");
}

/* One batch; the time of one turn in microseconds. */
static double batch(char what, int open)
{
    double start = now();

    for (int i = 0; i < BATCH; i++) {
        int fd = what == CYCLE ? open_connection() : open;

        if (what == FLOOR)
            ask_kernel(fd);
        get(fd);
        if (what == CYCLE)
            close(fd);
    }
    return (now() - start) / BATCH;
}

static int is_library(struct dl_phdr_info *info, size_t size, void *library)
{
    (void)size;
    return strcmp(info->dlpi_name, library) == 0;
}

/* Where the loader cannot preload, it goes on without: there would be nothing to measure. */
static void check_preload(void)
{
    char *library = getenv("LD_PRELOAD");

    if (library && dl_iterate_phdr(is_library, library) == 0) {
        fprintf(stderr, "%s is not preloaded\n", library);
        exit(1);
    }
}

static int work(void)
{
    int open = open_connection();
    char what;

    check_preload();
    store(open);
    while (read(STDIN_FILENO, &what, 1) == 1) {
        double t = batch(what, open);

        if (write(STDOUT_FILENO, &t, sizeof(t)) != sizeof(t))
            fail("write");
    }
    return 0;
}

struct worker {
    int to, from;
    pid_t pid;
};

static void start(struct worker *worker, const char *self, const char *port,
                  const char *library)
{
    int down[2], up[2];

    if (pipe2(down, O_CLOEXEC) != 0 || pipe2(up, O_CLOEXEC) != 0)
        fail("pipe");
    worker->pid = fork();
    if (worker->pid == 0) {
        dup2(down[0], STDIN_FILENO);
        dup2(up[1], STDOUT_FILENO);
        unsetenv("LD_PRELOAD");
        if (library) {
            char servers[64];

            snprintf(servers, sizeof(servers), "127.0.0.1:%s", port);
            setenv("LD_PRELOAD", library, 1);
            setenv("MCPOOL_SERVERS", servers, 1);
        }
        execl(self, self, port, "--worker", (char *)NULL);
        fail("exec");
    }
    close(down[0]);
    close(up[1]);
    worker->to = down[1];
    worker->from = up[0];
}

static double tell(const struct worker *worker, char what)
{
    double t;

    if (write(worker->to, &what, 1) != 1 || read(worker->from, &t, sizeof(t)) != sizeof(t))
        fail("worker");
    return t;
}

static void stop(struct worker *worker)
{
    close(worker->to);
    close(worker->from);
    waitpid(worker->pid, NULL, 0);
}

enum column { PLAIN_OPEN, PLAIN_FLOOR, PLAIN_CYCLE, SHIM_OPEN, SHIM_CYCLE, COLUMNS };

static double times[MOST][COLUMNS];

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

/* Prints the quartiles of column A over column B, or of A alone when B is COLUMNS. */
static void show(const char *name, int rounds, enum column a, enum column b)
{
    double all[MOST];

    for (int i = 0; i < rounds; i++)
        all[i] = times[i][a] / (b == COLUMNS ? 1 : times[i][b]);
    qsort(all, (size_t)rounds, sizeof(all[0]), compare);
    printf("%-58s%8.2f%8.2f%8.2f\n", name, all[rounds / 2], all[rounds / 4],
           all[rounds * 3 / 4]);
}

static void save(const char *path, int rounds)
{
    FILE *file = fopen(path, "w");

    if (!file)
        fail(path);
    fputs("round,open,floor,cycle_without,open_under_shim,cycle_with_shim\n", file);
    for (int i = 0; i < rounds; i++)
        fprintf(file, "%d,%.3f,%.3f,%.3f,%.3f,%.3f\n", i, times[i][PLAIN_OPEN],
                times[i][PLAIN_FLOOR], times[i][PLAIN_CYCLE], times[i][SHIM_OPEN],
                times[i][SHIM_CYCLE]);
    fclose(file);
}

int main(int argc, char **argv)
{
    struct worker plain, shim;
    int rounds;

    if (argc != 3 && argc != 5) {
        fprintf(stderr, "usage: %s PORT LIBRARY ROUNDS CSV\n", argv[0]);
        return 2;
    }
    server.sin_port = htons((uint16_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    alarm(DEADLINE);
    if (argc == 3)
        return work();
    rounds = atoi(argv[3]);
    if (rounds < 1 || rounds > MOST) {
        fprintf(stderr, "rounds: 1 to %d\n", MOST);
        return 2;
    }
    start(&plain, argv[0], argv[1], NULL);
    start(&shim, argv[0], argv[1], argv[2]);
    for (int i = 0; i < rounds; i++) {
        times[i][PLAIN_OPEN] = tell(&plain, OPEN);
        times[i][SHIM_OPEN] = tell(&shim, OPEN);
        times[i][PLAIN_CYCLE] = tell(&plain, CYCLE);
        times[i][SHIM_CYCLE] = tell(&shim, CYCLE);
        times[i][PLAIN_FLOOR] = tell(&plain, FLOOR);
    }
    stop(&plain);
    stop(&shim);
    printf("%d rounds of %d, interleaved%34s%8s%8s\n", rounds, BATCH, "median", "25 %", "75 %");
    puts("ratio to a get on a connection that stays open");
    show("  one TCP_INFO and the get (floor)", rounds, PLAIN_FLOOR, PLAIN_OPEN);
    show("  socket + connect + get + close, no shim", rounds, PLAIN_CYCLE, PLAIN_OPEN);
    show("  socket + connect + get + close, shim", rounds, SHIM_CYCLE, PLAIN_OPEN);
    puts("ratio of the cycle with the shim to the cycle without");
    show("  socket + connect + get + close", rounds, SHIM_CYCLE, PLAIN_CYCLE);
    puts("the price of the shim on a connection that stays open");
    show("  get, shim to no shim", rounds, SHIM_OPEN, PLAIN_OPEN);
    puts("microseconds, for context");
    show("  get on a connection that stays open", rounds, PLAIN_OPEN, COLUMNS);
    show("  cycle, no shim", rounds, PLAIN_CYCLE, COLUMNS);
    show("  cycle, shim", rounds, SHIM_CYCLE, COLUMNS);
    save(argv[4], rounds);
    return 0;
}
