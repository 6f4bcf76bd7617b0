/*
 * Opens a socket after the library has counted a child and before the child is made, as another
 * thread might. With -DLIBRARY, preloaded behind libmcpool: a _Fork(), a clone() and a fork
 * handler that open the socket first. Otherwise: window PORT WAY, which connects that socket
 * when the child is there and closes it.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef LIBRARY
int opened_meanwhile;

static void open_one(void)
{
    opened_meanwhile = socket(AF_INET, SOCK_STREAM, 0);
}

/* Its constructor runs before libmcpool's, so its handler runs after ours. */
__attribute__((constructor)) static void start(void)
{
    pthread_atfork(open_one, NULL, NULL);
}

pid_t _Fork(void)
{
    open_one();
    return ((pid_t(*)(void))dlsym(RTLD_NEXT, "_Fork"))();
}

int clone(int (*body)(void *), void *stack, int flags, void *argument, ...)
{
    int (*real)(int (*)(void *), void *, int, void *, ...) =
        (int (*)(int (*)(void *), void *, int, void *, ...))dlsym(RTLD_NEXT, "clone");

    open_one();
    return real(body, stack, flags, argument);
}
#else
extern int opened_meanwhile __attribute__((weak));

static int nothing(void *unused)
{
    (void)unused;
    _exit(0);
}

int main(int argc, char **argv)
{
    static char stack[65536] __attribute__((aligned(16)));
    struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons((uint16_t)atoi(argv[1]))};
    char answer[5];
    pid_t child;

    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (argc != 3 || !&opened_meanwhile)
        return 2;
    child = strcmp(argv[2], "clone") == 0 ? clone(nothing, stack + sizeof(stack), SIGCHLD, NULL)
            : strcmp(argv[2], "fork") == 0 ? fork()
                                           : _Fork();
    if (child == 0)
        _exit(0);
    waitpid(child, NULL, 0);
    if (connect(opened_meanwhile, (struct sockaddr *)&to, sizeof(to)) != 0 ||
        send(opened_meanwhile, "get a\r\n", 7, 0) != 7 ||
        recv(opened_meanwhile, answer, 5, MSG_WAITALL) != 5)
        return 3;
    return close(opened_meanwhile);
}
#endif
