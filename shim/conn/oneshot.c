/*
 * The state of one-shot registrations, and those that are remembered.
 */
#include "conn/oneshot.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/types.h>

#include "conn/sockid.h"
#include "base/rawsys.h"
#include "base/fmt.h"

/* More is not read of what the kernel says of one set: a few hundred registrations. */
#define INFO_MOST 32768

/* What is left of the events of a registration that has fired (EP_PRIVATE_BITS of Linux). */
#define PRIVATE_BITS (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)

#define NOTED 64

atomic_bool disarmed_ever;

/* The low half of the socket's name (SO_COOKIE), then the numbers; 0 for none. */
static _Atomic uint64_t noted[NOTED];
static atomic_uint next;

static const char *skip_spaces(const char *at)
{
    while (*at == ' ')
        at++;
    return at;
}

/* The number at AT, and the rest of the text. */
static uint64_t number_at(const char **at, unsigned int base)
{
    uint64_t number = 0;

    for (*at = skip_spaces(*at);; (*at)++) {
        char c = **at;
        unsigned int digit;

        if (c >= '0' && c <= '9')
            digit = (unsigned int)(c - '0');
        else if (base == 16 && c >= 'a' && c <= 'f')
            digit = (unsigned int)(c - 'a') + 10;
        else
            return number;
        number = number * base + digit;
    }
}

/* Reads a line "tfd: %8d events: %8x data: ..." (ep_show_fdinfo() of Linux). Not the one wanted
 * leaves STATE as it is. */
static void read_line(const char *line, int fd, enum oneshot *state, unsigned int *found)
{
    uint64_t events;

    if (strncmp(line, "tfd:", 4) != 0)
        return;
    line += 4;
    if (number_at(&line, 10) != (uint64_t)fd)
        return;
    line = skip_spaces(line);
    if (strncmp(line, "events:", 7) != 0)
        return;
    line += 7;
    events = number_at(&line, 16);
    *state = events & ~(uint64_t)PRIVATE_BITS ? ONESHOT_ARMED : ONESHOT_FIRED;
    ++*found;
}

/* Lines are shorter than a piece. What is behind the last newline comes again with the next. */
static enum oneshot read_info(int info, int fd)
{
    enum oneshot state = ONESHOT_UNKNOWN;
    unsigned int found = 0;
    char piece[1024];
    size_t n = 0, read = 0;
    long more;

    while ((more = raw_syscall(SYS_read, info, piece + n, sizeof(piece) - 1 - n)) > 0) {
        char *line = piece, *end;

        read += (size_t)more;
        n += (size_t)more;
        piece[n] = '\0';
        while ((end = strchr(line, '\n'))) {
            *end = '\0';
            read_line(line, fd, &state, &found);
            line = end + 1;
        }
        n -= (size_t)(line - piece);
        memmove(piece, line, n);
        if (read > INFO_MOST || n == sizeof(piece) - 1)
            return ONESHOT_UNKNOWN;
    }
    return more == 0 && found == 1 ? state : ONESHOT_UNKNOWN;
}

enum oneshot oneshot_ask(int epfd, int fd)
{
    enum oneshot state;
    char path[48];
    long info;

    fmt_print(path, sizeof(path), "/proc/self/fdinfo/%d", epfd);
    info = raw_syscall(SYS_openat, AT_FDCWD, path, O_RDONLY | O_CLOEXEC, 0);
    if (info < 0)
        return ONESHOT_UNKNOWN;
    state = read_info((int)info, fd);
    raw_syscall(SYS_close, info);
    return state;
}

static uint64_t entry_of(int epfd, int fd)
{
    uint64_t cookie;

    if (!sockid_cookie(fd, &cookie) || epfd > UINT16_MAX || fd > UINT16_MAX)
        return 0;
    return cookie << 32 | (uint64_t)epfd << 16 | (uint64_t)fd;
}

void oneshot_note(int epfd, int fd)
{
    atomic_store(&disarmed_ever, true);
    atomic_store(&noted[atomic_fetch_add(&next, 1) % NOTED], entry_of(epfd, fd));
}

/* An entry is read before its fd is looked at, where its file was before the entry was made: if
 * there is another, that is gone for good. */
static _Atomic uint64_t *find(int epfd, int fd, uint64_t *entry)
{
    for (int i = 0; i < NOTED; i++) {
        uint64_t there = atomic_load(&noted[i]);

        if (there == 0 || (uint32_t)there != ((uint32_t)epfd << 16 | (uint32_t)fd))
            continue;
        *entry = entry_of(epfd, fd);
        if (there == *entry)
            return &noted[i];
        atomic_compare_exchange_strong(&noted[i], &there, 0);
    }
    return NULL;
}

void oneshot_forget(int epfd)
{
    for (int i = 0; i < NOTED; i++) {
        uint64_t there = atomic_load(&noted[i]);

        if (there != 0 && (int)(there >> 16 & UINT16_MAX) == epfd)
            atomic_compare_exchange_strong(&noted[i], &there, 0);
    }
}

bool oneshot_claim(int epfd, int fd)
{
    uint64_t entry;
    _Atomic uint64_t *place = find(epfd, fd, &entry);

    return place && atomic_compare_exchange_strong(place, &entry, 0);
}

int oneshot_ctl(int epfd, int op, int fd, struct epoll_event *event,
                int (*real)(int epfd, int op, int fd, struct epoll_event *event))
{
    uint64_t entry;
    int saved = errno;
    int result;

    if (op == EPOLL_CTL_ADD && find(epfd, fd, &entry)) {
        errno = EEXIST;
        return -1;
    }
    result = real(epfd, op, fd, event);
    if (result == 0 || errno != ENOENT || !oneshot_claim(epfd, fd))
        return result;
    errno = saved;
    return op == EPOLL_CTL_DEL ? 0 : real(epfd, EPOLL_CTL_ADD, fd, event);
}
