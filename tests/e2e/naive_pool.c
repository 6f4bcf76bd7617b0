/*
 * What one would write in an afternoon, as a warning and to show that the oracle can fail:
 * keeps every connection to port NAIVE_PORT at close() if the kernel finds nothing wrong with
 * it at that moment, and hands it to the next connect(). A reply that is still to come is
 * nothing the kernel can find. Never use it.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define KEPT 64

static int kept[KEPT];
static int count;

static int is_ours(const struct sockaddr *addr)
{
    const struct sockaddr_in *in = (const struct sockaddr_in *)addr;
    const char *port = getenv("NAIVE_PORT");

    return addr->sa_family == AF_INET && port && ntohs(in->sin_port) == atoi(port);
}

static int looks_clean(int fd)
{
    struct sockaddr_storage peer;
    socklen_t len = sizeof(peer);
    int unread = 0;
    int unsent = 0;
    char byte;

    return getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
           is_ours((struct sockaddr *)&peer) && ioctl(fd, FIONREAD, &unread) == 0 &&
           unread == 0 && ioctl(fd, TIOCOUTQ, &unsent) == 0 && unsent == 0 &&
           recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) < 0;
}

int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    int (*real)(int, const struct sockaddr *, socklen_t) = dlsym(RTLD_NEXT, "connect");

    while (is_ours(addr) && count > 0) {
        int flags = fcntl(fd, F_GETFL);
        int old = kept[--count];
        int clean = looks_clean(old);

        if (clean) {
            fcntl(old, F_SETFL, flags);
            dup3(old, fd, O_CLOEXEC);
        }
        ((int (*)(int))dlsym(RTLD_NEXT, "close"))(old);
        if (clean)
            return 0;
    }
    return real(fd, addr, len);
}

int close(int fd)
{
    int (*real)(int) = dlsym(RTLD_NEXT, "close");

    if (count < KEPT && looks_clean(fd))
        kept[count++] = fcntl(fd, F_DUPFD_CLOEXEC, 900);
    return real(fd);
}
