/*
 * The worker of costs.py: processes of one ancestor that take turns. Each waits for its turn in
 * accept(), and what it has goes to the others before. The ancestor makes no turns: it waits in
 * poll(), as a master does.
 *
 *     ring PROCESSES IP:PORT...
 *
 * Answers every line "KIND COUNT" on its input, after so many turns, with the time of one turn
 * in microseconds. Each turn is made by the next process and asks the next of the servers,
 * which are one memcached at several addresses:
 *
 *   pass     nothing
 *   open     a get on a connection that stays open
 *   floor    the same with one TCP_INFO, which is the proof that a connection is alive
 *   least    a get on a connection that the processes pass on by the system calls that no pool
 *            can leave out; for one server
 *   cycle    socket, connect, get, close
 *   hits     cycles that one process makes alone, one behind the other
 */
#include "../lib/gets.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define SERVERS   8
#define PROCESSES 32
#define WARM_UP   20
#define DEADLINE  600 /* seconds */

#define OUT_OF_THE_WAY 32  /* where no program expects an fd of its own */
#define ACCOUNT        120 /* bytes that tell what is known of a connection */

enum kind { PASS, OPEN, FLOOR, LEAST, CYCLE, HITS, KINDS };

static const char *const names[KINDS] = {"pass", "open", "floor", "least", "cycle", "hits"};

struct token {
    enum kind kind;
    long left;
};

static struct sockaddr_in servers[SERVERS];
static int server_count;

static int listeners[PROCESSES + 1];
static struct sockaddr_un names_of_listeners[PROCESSES + 1];
static socklen_t lengths[PROCESSES + 1];

static void get_on_open(const struct sockaddr_in *server, unsigned int number, bool prove)
{
    static int fd = -1;

    if (fd < 0)
        fd = open_connection(server);
    if (prove)
        prove_alive(fd);
    get(fd, number);
}

/* A socket that is connected to itself. All processes have it. */
static int queue;

static void make_queue(void)
{
    struct sockaddr_un name = {.sun_family = AF_UNIX};
    socklen_t length = sizeof(name);

    queue = socket(AF_UNIX, SOCK_DGRAM, 0);
    if (bind(queue, (const struct sockaddr *)&name, sizeof(name.sun_family)) != 0 ||
        getsockname(queue, (struct sockaddr *)&name, &length) != 0 ||
        connect(queue, (const struct sockaddr *)&name, length) != 0)
        fail("queue");
}

/* A message with an fd. */
struct letter {
    struct msghdr header;
    struct iovec bytes;
    char account[ACCOUNT];
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
};

static struct msghdr *prepare(struct letter *letter)
{
    letter->bytes = (struct iovec){letter->account, ACCOUNT};
    letter->header = (struct msghdr){.msg_iov = &letter->bytes,
                                     .msg_iovlen = 1,
                                     .msg_control = &letter->control,
                                     .msg_controllen = CMSG_LEN(sizeof(int))};
    return &letter->header;
}

static void put(int fd)
{
    struct letter letter = {0};
    struct msghdr *header = prepare(&letter);

    letter.control.header = (struct cmsghdr){
        .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS};
    memcpy(CMSG_DATA(&letter.control.header), &fd, sizeof(fd));
    if (sendmsg(queue, header, MSG_DONTWAIT) != ACCOUNT)
        fail("to the queue");
}

/* -1 when the queue is empty. */
static int take(void)
{
    struct letter letter = {0};
    int fd;

    if (recvmsg(queue, prepare(&letter), MSG_DONTWAIT | MSG_CMSG_CLOEXEC) != ACCOUNT) {
        if (errno != EAGAIN)
            fail("from the queue");
        return -1;
    }
    memcpy(&fd, CMSG_DATA(&letter.control.header), sizeof(fd));
    return fd;
}

/* The fd would be lost if there were no room for it. */
static void look_for_room(void)
{
    close(fcntl(queue, F_DUPFD_CLOEXEC, 0));
}

/* That it is the socket which the giver means, and that to close it does not block. */
static void verify(int fd)
{
    const struct linger none = {0};
    uint64_t cookie;
    socklen_t len = sizeof(cookie);

    if (setsockopt(fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)) != 0 ||
        getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len) != 0)
        fail("SO_COOKIE");
}

static void pass_on(const struct sockaddr_in *server, unsigned int number)
{
    int taken, fd;

    look_for_room();
    taken = take();
    if (taken < 0)
        taken = open_connection(server);
    verify(taken);
    fd = fcntl(taken, F_DUPFD_CLOEXEC, OUT_OF_THE_WAY);
    close(taken);
    prove_alive(fd);
    get(fd, number);
    prove_alive(fd);
    put(fd);
    close(fd);
}

static void cycle(const struct sockaddr_in *server, unsigned int number)
{
    int fd = open_connection(server);

    get(fd, number);
    close(fd);
}

static void turn(enum kind kind, long number)
{
    const struct sockaddr_in *server = &servers[number % server_count];

    if (kind == OPEN || kind == FLOOR)
        get_on_open(server, (unsigned int)number, kind == FLOOR);
    else if (kind == LEAST)
        pass_on(server, (unsigned int)number);
    else if (kind != PASS)
        cycle(server, (unsigned int)number);
}

static int unix_socket(void)
{
    int fd = socket(AF_UNIX, SOCK_SEQPACKET, 0);

    if (fd < 0)
        fail("socket");
    return fd;
}

/* Where the process of this number waits. It has a name that the kernel chooses. */
static void listen_for(int number)
{
    struct sockaddr_un *name = &names_of_listeners[number];
    struct sockaddr_un any = {.sun_family = AF_UNIX};
    int fd = unix_socket();

    lengths[number] = sizeof(*name);
    if (bind(fd, (const struct sockaddr *)&any, sizeof(any.sun_family)) != 0 ||
        listen(fd, 8) != 0 || getsockname(fd, (struct sockaddr *)name, &lengths[number]) != 0)
        fail("listen");
    listeners[number] = fd;
}

static void send_token(int to, const struct token *token)
{
    int fd = unix_socket();

    if (connect(fd, (const struct sockaddr *)&names_of_listeners[to], lengths[to]) != 0 ||
        write(fd, token, sizeof(*token)) != (ssize_t)sizeof(*token))
        fail("to the next process");
    close(fd);
}

static void wait_for_token(int me, struct token *token)
{
    int fd = accept(listeners[me], NULL, NULL);

    if (fd < 0 || read(fd, token, sizeof(*token)) != (ssize_t)sizeof(*token))
        fail("accept");
    close(fd);
}

static _Noreturn void take_turns(int me, int next)
{
    struct token token;

    for (;;) {
        wait_for_token(me, &token);
        do
            turn(token.kind, token.left--);
        while (token.kind == HITS && token.left > 0);
        send_token(token.left > 0 ? next : 0, &token);
    }
}

static void wait_as_master(int fd)
{
    struct pollfd waiting = {.fd = fd, .events = POLLIN};

    if (poll(&waiting, 1, -1) != 1)
        fail("poll");
}

static bool next_order(char *line, int size)
{
    wait_as_master(STDIN_FILENO);
    return fgets(line, size, stdin) != NULL;
}

static void batch(enum kind kind, long count)
{
    struct token token = {kind, count};

    send_token(1, &token);
    wait_as_master(listeners[0]);
    wait_for_token(0, &token);
}

static bool obey(const char *line)
{
    char what[8];
    long count;

    if (sscanf(line, "%7s %ld", what, &count) != 2 || count <= 0)
        return false;
    for (enum kind kind = PASS; kind < KINDS; kind++) {
        double start;

        if (strcmp(what, names[kind]) != 0)
            continue;
        batch(kind, WARM_UP);
        start = now();
        batch(kind, count);
        printf("%.3f\n", (now() - start) / (double)count);
        fflush(stdout);
        return true;
    }
    return false;
}

static void start(int number, int next)
{
    pid_t parent = getpid();
    pid_t child = fork();

    if (child < 0)
        fail("fork");
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (getppid() == parent)
            take_turns(number, next);
        _exit(1);
    }
}

int main(int argc, char **argv)
{
    int processes = argc > 2 ? atoi(argv[1]) : 0;
    char line[64];
    int fd;

    if (processes < 2 || processes > PROCESSES || argc - 2 > SERVERS) {
        fprintf(stderr, "usage: %s PROCESSES IP:PORT... (up to %d)\n", argv[0], SERVERS);
        return 2;
    }
    alarm(DEADLINE);
    check_preload();
    for (; server_count < argc - 2; server_count++)
        servers[server_count] = read_address(argv[server_count + 2]);
    fd = open_connection(&servers[0]);
    store(fd);
    close(fd);
    make_queue();
    for (int i = 0; i <= processes; i++)
        listen_for(i);
    for (int i = 1; i <= processes; i++)
        start(i, i % processes + 1);
    while (next_order(line, sizeof(line))) {
        if (!obey(line))
            return 2;
    }
    return 0;
}
