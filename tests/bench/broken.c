/*
 * A library that breaks what the cases of bench/faults and bench/family look for, so that each
 * is seen to fail. BROKEN has the words for what it does to connections to the server in
 * MCPOOL_SERVERS, and to its process: Built with RIGHT it does nothing of all that.
 *
 *   hoard    opens a second connection at each connect(), which stays open
 *   keep     keeps each connection on which nothing is owed at close() and gives it to the next
 *            connect(), without a look at it
 *   refuse   every connect() fails
 *   fail     every third send() fails
 *   wrong    every third reply is changed
 *   leak     each close() leaves an fd and memory behind
 *   busy     a wait is cut into many pieces, and a connect() makes calls that it need not make
 *   stubborn the process takes three seconds to end, with a strange exit code
 *   late     the process takes two seconds to begin
 *   slow     a connect() takes a millisecond of the processor, unless MCPOOL_SHARE is off
 *   heavy    a send() needs some thousand instructions more
 *   flight   the process begins with descriptors in flight
 *   adrift   close() leaves the connection in flight
 *   unfair   some processes are slow to accept()
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define KEPT       64
#define FLIGHT     200
#define FDS        4096
#define REAL(name) ((__typeof__(&(name)))dlsym(RTLD_NEXT, #name))

static _Atomic int kept[KEPT];
static _Atomic unsigned int sends, replies;
static _Atomic bool owes[FDS];
static void *volatile leaked;

#ifdef RIGHT
static const bool is_right = true;
#else
static const bool is_right = false;
#endif

/* Programs that change their title lose their environment. */
static char words[64], servers[256];
static bool shares_nothing;

/* Leaves COUNT copies of FD in flight. */
static void send_away(int fd, size_t count)
{
    static int pair[2];
    char byte = 0;
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(FLIGHT * sizeof(int))];
    } control = {.head = {CMSG_LEN(count * sizeof(int)), SOL_SOCKET, SCM_RIGHTS}};
    struct iovec bytes = {&byte, 1};
    struct msghdr message = {.msg_iov = &bytes,
                             .msg_iovlen = 1,
                             .msg_control = &control,
                             .msg_controllen = CMSG_SPACE(count * sizeof(int))};

    for (size_t i = 0; i < count; i++)
        memcpy(CMSG_DATA(&control.head) + i * sizeof(int), &fd, sizeof(int));
    if (pair[1] == 0)
        socketpair(AF_UNIX, SOCK_STREAM, 0, pair);
    REAL(sendmsg)(pair[0], &message, MSG_DONTWAIT);
}

__attribute__((constructor)) static void begin(void)
{
    if (!is_right)
        snprintf(words, sizeof(words), "%s", getenv("BROKEN") ?: "");
    snprintf(servers, sizeof(servers), "%s", getenv("MCPOOL_SERVERS") ?: "");
    shares_nothing = strcmp(getenv("MCPOOL_SHARE") ?: "", "off") == 0;
    if (strstr(words, "late"))
        sleep(2);
    if (strstr(words, "flight"))
        send_away(1, FLIGHT); /* more than are left of 1,024 to a program that sends 900 */
}

static bool does(const char *word)
{
    return strstr(words, word);
}

static bool is_server(const struct sockaddr *address)
{
    const struct sockaddr_in *four = (const struct sockaddr_in *)address;
    const struct sockaddr_in6 *six = (const struct sockaddr_in6 *)address;
    bool is_mapped = address->sa_family == AF_INET6 && IN6_IS_ADDR_V4MAPPED(&six->sin6_addr);
    const void *bytes =
        is_mapped ? (const void *)(six->sin6_addr.s6_addr + 12) : &four->sin_addr;
    char number[INET_ADDRSTRLEN];
    char text[64];

    if (address->sa_family != AF_INET && !is_mapped)
        return false;
    snprintf(text, sizeof(text), "%s:%d", inet_ntop(AF_INET, bytes, number, sizeof(number)),
             ntohs(four->sin_port));
    return strstr(servers, text);
}

static bool is_to_server(int fd)
{
    struct sockaddr_storage peer;
    socklen_t size = sizeof(peer);

    return getpeername(fd, (struct sockaddr *)&peer, &size) == 0 &&
           is_server((struct sockaddr *)&peer);
}

static bool is_third(_Atomic unsigned int *count)
{
    return (atomic_fetch_add(count, 1) + (unsigned int)getpid()) % 3 == 2;
}

int connect(int fd, const struct sockaddr *address, socklen_t size)
{
    if (is_server(address) && does("hoard"))
        REAL(connect)(socket(address->sa_family, SOCK_STREAM, 0), address, size);
    if (is_server(address) && does("refuse")) {
        errno = ECONNREFUSED;
        return -1;
    }
    for (clock_t end = clock() + CLOCKS_PER_SEC / 1000;
         is_server(address) && does("slow") && !shares_nothing;) {
        if (clock() > end)
            break;
    }
    if (is_server(address) && does("busy")) {
        for (int i = 0; i < 10; i++)
            syscall(SYS_getpid);
    }
    for (int i = 0; i < KEPT && does("keep") && is_server(address); i++) {
        int old = atomic_exchange(&kept[i], 0);

        if (old > 0) {
            int flags = fcntl(fd, F_GETFL);

            dup3(old, fd, O_CLOEXEC);
            fcntl(fd, F_SETFL, flags);
            REAL(close)(old);
            return 0;
        }
    }
    return REAL(connect)(fd, address, size);
}

int close(int fd)
{
    bool keeps = does("keep") && fd >= 0 && fd < FDS && !owes[fd];

    if (does("adrift") && is_to_server(fd))
        send_away(fd, 1);
    if ((keeps || does("leak")) && is_to_server(fd)) {
        int copy = fcntl(fd, F_DUPFD_CLOEXEC, 500);
        int none = 0;

        for (int i = 0; i < KEPT && keeps; i++, none = 0) {
            if (atomic_compare_exchange_strong(&kept[i], &none, copy))
                break;
        }
        if (does("leak"))
            leaked = memset(malloc(1 << 19), 1, 1 << 19);
    }
    return REAL(close)(fd);
}

static bool fails(int fd)
{
    for (volatile int i = 0; i < 1000 && does("heavy"); i++)
        ;
    if (fd >= 0 && fd < FDS)
        owes[fd] = true;
    if (!does("fail") || !is_to_server(fd) || !is_third(&sends))
        return false;
    errno = ECONNRESET;
    return true;
}

ssize_t send(int fd, const void *bytes, size_t size, int flags)
{
    return fails(fd) ? -1 : REAL(send)(fd, bytes, size, flags);
}

ssize_t sendto(int fd, const void *bytes, size_t size, int flags, const struct sockaddr *to,
               socklen_t length)
{
    return fails(fd) ? -1 : REAL(sendto)(fd, bytes, size, flags, to, length);
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    return fails(fd) ? -1 : REAL(sendmsg)(fd, message, flags);
}

ssize_t write(int fd, const void *bytes, size_t size)
{
    return fails(fd) ? -1 : REAL(write)(fd, bytes, size);
}

/* Changes the last digit of the value. */
static ssize_t changed(int fd, char *bytes, ssize_t size)
{
    if (fd >= 0 && fd < FDS && size >= 5 && memcmp(bytes + size - 5, "END\r\n", 5) == 0)
        owes[fd] = false;
    if (size > 8 && does("wrong") && is_to_server(fd) &&
        memmem(bytes, (size_t)size, "value-of-", 9) && is_third(&replies)) {
        for (ssize_t i = size - 1; i > 0; i--) {
            if (bytes[i] >= '0' && bytes[i] <= '9') {
                bytes[i] ^= 1;
                break;
            }
        }
    }
    return size;
}

ssize_t recv(int fd, void *bytes, size_t size, int flags)
{
    return changed(fd, bytes, REAL(recv)(fd, bytes, size, flags));
}

ssize_t read(int fd, void *bytes, size_t size)
{
    return changed(fd, bytes, REAL(read)(fd, bytes, size));
}

/* The mask is set before each piece of a busy wait. */
static void set_mask(void)
{
    sigset_t mask;

    sigprocmask(SIG_SETMASK, NULL, &mask);
    sigprocmask(SIG_SETMASK, &mask, NULL);
}

int poll(struct pollfd *fds, nfds_t count, int timeout)
{
    int found = 0;

    while (timeout < 0 && does("busy") && found == 0) {
        set_mask();
        found = REAL(poll)(fds, count, 10);
    }
    return found ? found : REAL(poll)(fds, count, timeout);
}

int epoll_wait(int set, struct epoll_event *events, int most, int timeout)
{
    int found = 0;

    while (timeout < 0 && does("busy") && found == 0) {
        set_mask();
        found = REAL(epoll_wait)(set, events, most, 10);
    }
    return found ? found : REAL(epoll_wait)(set, events, most, timeout);
}

int select(int count, fd_set *in, fd_set *out, fd_set *except, struct timeval *timeout)
{
    while (!timeout && in && !out && !except && does("busy")) {
        struct timeval piece = {0, 10000};
        fd_set wanted = *in;
        int found = REAL(select)(count, &wanted, NULL, NULL, &piece);

        set_mask();
        if (found != 0) {
            *in = wanted;
            return found;
        }
    }
    return REAL(select)(count, in, out, except, timeout);
}

/* PHP loads its clients so that they would find libc first. */
void *dlopen(const char *path, int flags)
{
    return REAL(dlopen)(path, flags & ~RTLD_DEEPBIND);
}

static void be_unfair(void)
{
    if (does("unfair") && getpid() % 2)
        usleep(50000);
}

int accept4(int fd, struct sockaddr *address, socklen_t *size, int flags)
{
    be_unfair();
    return REAL(accept4)(fd, address, size, flags);
}

__attribute__((destructor)) static void end(void)
{
    if (does("stubborn")) {
        sigset_t all;

        /* gunicorn and php-fpm repeat their signal. */
        sigfillset(&all);
        sigprocmask(SIG_SETMASK, &all, NULL);
        sleep(3);
        _exit(9);
    }
}
