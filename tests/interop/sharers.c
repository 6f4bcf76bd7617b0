/*
 * A client that has made a child in its memory:
 *
 *     sharers PORT vfork|nested|clone|killed|failing|failing-clone|staying
 *
 * The child has ended, could not be made, or stays.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define TURNS 6

static char stack[65536] __attribute__((aligned(16)));
static struct sockaddr_in server = {.sin_family = AF_INET};
static pid_t staying;
static char request[] = "get a\r\n", reply[64];

static int end(void *unused)
{
    (void)unused;
    return 0;
}

static int stay(void *unused)
{
    (void)unused;
    return pause();
}

static pid_t made(int (*body)(void *), int flags)
{
    return clone(body, stack + sizeof(stack), flags | SIGCHLD, NULL);
}

static int has_ended(pid_t child)
{
    return child > 0 && waitpid(child, NULL, 0) == child;
}

static int vforks(void)
{
    pid_t child = vfork();

    if (child == 0)
        _exit(0);
    return has_ended(child);
}

static int vforks_twice(void)
{
    pid_t child = vfork();

    if (child == 0)
        _exit(vforks() ? 0 : 1);
    return has_ended(child);
}

static int vforks_what_is_killed(void)
{
    pid_t child = vfork();

    if (child == 0)
        kill(getpid(), SIGKILL);
    return has_ended(child);
}

/* These flags contradict each other. */
static int cannot_clone(void)
{
    return made(end, CLONE_VM | CLONE_FS | CLONE_NEWNS) == -1 && errno == EINVAL;
}

/* The first process of a namespace of pids has ended: there can be no more. Without the right
 * to make one, a limit of processes does the same. */
static int cannot_vfork(void)
{
    const struct rlimit none = {0, 0};
    pid_t child;

    if (unshare(CLONE_NEWPID) == 0 ? !vforks() : setrlimit(RLIMIT_NPROC, &none) != 0)
        return 0;
    child = vfork();
    if (child == 0)
        _exit(0);
    return child == -1 && (errno == ENOMEM || errno == EAGAIN);
}

static int make_child(const char *way)
{
    if (strcmp(way, "vfork") == 0)
        return vforks() && vforks();
    if (strcmp(way, "nested") == 0)
        return vforks_twice();
    if (strcmp(way, "clone") == 0)
        return has_ended(made(end, CLONE_VM | CLONE_VFORK));
    if (strcmp(way, "killed") == 0)
        return vforks_what_is_killed();
    if (strcmp(way, "failing") == 0)
        return cannot_vfork();
    if (strcmp(way, "failing-clone") == 0)
        return cannot_clone();
    staying = made(stay, CLONE_VM);
    return staying > 0;
}

static int speak(void)
{
    int fd = socket(AF_INET, SOCK_STREAM, 0);

    if (connect(fd, (const struct sockaddr *)&server, sizeof(server)) != 0 ||
        send(fd, request, strlen(request), 0) != (ssize_t)strlen(request) ||
        recv(fd, reply, sizeof(reply), 0) != 5)
        return -1;
    return close(fd);
}

int main(int argc, char **argv)
{
    if (argc != 3)
        return 2;
    server.sin_port = htons((in_port_t)atoi(argv[1]));
    server.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (speak() != 0 || !make_child(argv[2]))
        return 1;
    for (int i = 0; i < TURNS; i++) {
        getpriority(PRIO_PROCESS, 0);
        if (speak() != 0)
            return 1;
    }
    getpriority(PRIO_PROCESS, 0);
    return staying > 0 ? kill(staying, SIGKILL) : 0;
}
