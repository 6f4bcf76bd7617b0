/*
 * A program that enters a sandbox while it has connections: sandboxed KIND PORT. KIND is how:
 * "filter", that kills for every system call which main() does not make from there on;
 * "threads", the same for all threads, while other threads open and close connections;
 * "strict", that kills for all but read(), write() and an end of this thread. Before that one
 * connection was closed, one is open, and one was closed and is open again; a child was made
 * that shared this memory.
 */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/filter.h>
#include <linux/seccomp.h>

#define THREADS 3

/* Milliseconds; longer than the library delays writing its counters. */
#define WAIT 1300

static struct sockaddr_in server = {.sin_family = AF_INET};

static void check(int good, const char *what)
{
    if (good)
        return;
    perror(what);
    _exit(1);
}

static void get(int fd)
{
    char answer[16];

    check(write(fd, "get nothing\r\n", 13) == 13, "write");
    check(read(fd, answer, sizeof(answer)) == 5 && memcmp(answer, "END\r\n", 5) == 0, "read");
}

static int dial(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    check(fd >= 0 && connect(fd, (struct sockaddr *)&server, sizeof(server)) == 0, "connect");
    return fd;
}

static void make_a_child(void)
{
    pid_t child = vfork();
    int status;

    if (child == 0)
        _exit(0);
    check(waitpid(child, &status, 0) == child && status == 0, "wait");
}

/* Some machines have other system calls for poll() and select(). */
static const int allowed[] = {
    SYS_read,    SYS_write,  SYS_close,    SYS_socket,
    SYS_connect, SYS_ppoll,  SYS_pselect6, SYS_exit_group,
#ifdef SYS_poll
    SYS_poll,    SYS_select,
#endif
};
#define ALLOWED (sizeof(allowed) / sizeof(allowed[0]))

static void enter_filter(unsigned int flags)
{
    struct sock_filter code[2 * ALLOWED + 2];
    struct sock_fprog filter = {0, code};

    code[filter.len++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
                                                      offsetof(struct seccomp_data, nr));
    for (size_t i = 0; i < ALLOWED; i++) {
        code[filter.len++] =
            (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], 0, 1);
        code[filter.len++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    }
    code[filter.len++] =
        (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    check(prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0, "no_new_privs");
    if (flags == 0)
        check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) == 0, "filter");
    else
        check(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, flags, &filter) == 0, "filter");
}

static void wait_for(int fd)
{
    struct pollfd wanted = {.fd = fd, .events = POLLIN};
    struct timeval no_time = {0, 0};
    fd_set set;

    FD_ZERO(&set);
    FD_SET(fd, &set);
    check(poll(&wanted, 1, WAIT) == 0, "poll");
    check(select(fd + 1, &set, NULL, NULL, &no_time) == 0, "select");
}

static atomic_int turns[THREADS];

static void *take_turns(void *own_turns)
{
    while (1) {
        int fd = dial();

        get(fd);
        check(close(fd) == 0, "close");
        atomic_fetch_add((atomic_int *)own_turns, 1);
    }
    return NULL;
}

static atomic_bool waits, waited;

/* Begins outside of the sandbox and ends inside. */
static void *wait_long(void *unused)
{
    atomic_store(&waits, true);
    check(poll(NULL, 0, WAIT) == 0, "poll");
    atomic_store(&waited, true);
    while (true)
        poll(NULL, 0, WAIT);
    return unused;
}

/* How many more each thread makes. */
static void wait_for_turns(int more)
{
    for (int i = 0; i < THREADS; i++) {
        int enough = atomic_load(&turns[i]) + more;

        while (atomic_load(&turns[i]) < enough)
            poll(NULL, 0, 1);
    }
}

static void enter_among_threads(void)
{
    pthread_t thread;

    for (int i = 0; i < THREADS; i++)
        check(pthread_create(&thread, NULL, take_turns, &turns[i]) == 0, "thread");
    check(pthread_create(&thread, NULL, wait_long, NULL) == 0, "thread");
    while (!atomic_load(&waits))
        poll(NULL, 0, 1);
    wait_for_turns(20);
    enter_filter(SECCOMP_FILTER_FLAG_TSYNC);
    wait_for_turns(20);
    while (!atomic_load(&waited))
        poll(NULL, 0, 1);
}

int main(int argc, char **argv)
{
    int closed, open, again, fd;

    if (argc != 3)
        return 2;
    server.sin_port = htons((unsigned short)atoi(argv[2]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    make_a_child();
    closed = dial();
    open = dial();
    get(closed);
    get(open);
    close(closed);
    again = dial();
    get(again);
    fd = dial();
    get(fd);
    close(fd);
    if (strcmp(argv[1], "strict") == 0) {
        check(prctl(PR_SET_SECCOMP, SECCOMP_MODE_STRICT) == 0, "strict");
        get(open);
        get(again);
        syscall(SYS_exit, 0);
    }
    if (strcmp(argv[1], "threads") == 0) {
        enter_among_threads();
        return 0;
    }
    enter_filter(0);
    get(open);
    get(again);
    wait_for(open);
    check(close(open) == 0 && close(again) == 0, "close");
    for (int i = 0; i < 3; i++) {
        fd = dial();
        get(fd);
        check(close(fd) == 0, "close");
    }
    check(close(fd) == -1, "a second close");
    return 0;
}
