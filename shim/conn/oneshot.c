/*
 * Asks the kernel for the state of one-shot registrations, and remembers disarmed ones.
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

/* How many bytes of a set's fdinfo are read: a few hundred registrations. */
#define INFO_MOST 32768

/* The bits that the kernel leaves in the events of a registration that has fired
 * (EP_PRIVATE_BITS of Linux). */
#define PRIVATE_BITS (EPOLLWAKEUP | EPOLLONESHOT | EPOLLET | EPOLLEXCLUSIVE)

#define ENTRIES 64

atomic_bool oneshot_ever;

/* The low half of the socket's SO_COOKIE, 16 bits of the set's fd, 16 bits of the file's fd; 0
 * for none. */
static _Atomic uint64_t entries[ENTRIES];
static atomic_uint next;

static const char *skip_spaces(const char *at)
{
    while (*at == ' ')
        at++;
    return at;
}

/* Reads a number in the given base and moves AT behind it. */
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

/* Reads a line "tfd: %8d events: %8x data: ..." (ep_show_fdinfo() of Linux). When it is about
 * FD, it sets STATE and counts in FOUND. */
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

/* Every line is shorter than PIECE. A line that is cut off at the end of PIECE is moved to its
 * start and read on. */
static enum oneshot read_info(int info, int fd)
{
    enum oneshot state = ONESHOT_UNKNOWN;
    unsigned int found = 0;
    char piece[512];
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
    atomic_store(&oneshot_ever, true);
    atomic_store(&entries[atomic_fetch_add(&next, 1) % ENTRIES], entry_of(epfd, fd));
}

/* The place of the entry for EPFD and the file at FD; NULL when there is none.
 *
 * The file was at FD before its entry was stored, and the entry is loaded before the file at FD
 * is looked at. So if FD has another file then, the entry is stale for good and is removed. */
static _Atomic uint64_t *find(int epfd, int fd, uint64_t *entry)
{
    for (int i = 0; i < ENTRIES; i++) {
        uint64_t stored = atomic_load(&entries[i]);

        if (stored == 0 || (uint32_t)stored != ((uint32_t)epfd << 16 | (uint32_t)fd))
            continue;
        *entry = entry_of(epfd, fd);
        if (stored == *entry)
            return &entries[i];
        atomic_compare_exchange_strong(&entries[i], &stored, 0);
    }
    return NULL;
}

void oneshot_forget(int epfd)
{
    for (int i = 0; i < ENTRIES; i++) {
        uint64_t stored = atomic_load(&entries[i]);

        if (stored != 0 && (int)(stored >> 16 & UINT16_MAX) == epfd)
            atomic_compare_exchange_strong(&entries[i], &stored, 0);
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

    /* As if the registration existed: ADD fails, MOD arms it and so makes it, DEL succeeds. */
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
