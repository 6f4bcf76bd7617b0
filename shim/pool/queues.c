/*
 * Messages of the queues, and counting them.
 */
#include "pool/queues.h"

#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <sys/socket.h>

#include "base/owner.h"
#include "base/rawsys.h"
#include "conn/shadow.h"
#include "conn/sockid.h"

static void count(struct family_board *board, size_t i, unsigned int more)
{
    atomic_fetch_add(&board->queues[i].queued, more);
    atomic_fetch_add(&board->total, more);
}

/* Who brings the count to 0 asks the kernel: it is not so if a count was set while a message
 * was on its way. No process would look for what lies in a queue that counts as empty. */
static bool is_counted_empty(const struct family_board *board, size_t i)
{
    return (int32_t)atomic_load(&board->queues[i].queued) <= 0;
}

/* Two takers may both lower the lowest number: the larger may stay, and one too many is closed.
 */
static void note_taken(size_t i, const struct fdqueue *of)
{
    struct family_board *board = family_get();
    struct family_queue *queue = &board->queues[i];

    count(board, i, -1u);
    if (is_counted_empty(board, i))
        queues_recount(i, of);
    if (atomic_load(&queue->queued) < atomic_load(&queue->lowest))
        atomic_store(&queue->lowest, atomic_load(&queue->queued));
}

/* A message may come between the kernel's answer and the exchange, when its sender has looked
 * at the count already. */
unsigned int queues_recount(size_t i, const struct fdqueue *queue)
{
    struct family_board *board = family_get();
    unsigned int is, was;

    do {
        is = fdqueue_size(queue) / family_size_of_one();
        was = atomic_exchange(&board->queues[i].queued, is);
        if (is != was)
            atomic_fetch_add(&board->total, is - was);
    } while (is == 0 && was != 0 && fdqueue_size(queue) > 0);
    return is;
}

enum room queues_reserve(struct family_board *board, size_t i, unsigned int most, bool one_only)
{
    if (atomic_fetch_add(&board->total, 1) >= most) {
        atomic_fetch_sub(&board->total, 1);
        return ROOM_USED_UP;
    }
    if (atomic_fetch_add(&board->queues[i].queued, 1) > 0 && one_only) {
        queues_unreserve(board, i);
        return ROOM_FOR_ONE;
    }
    return ROOM;
}

void queues_unreserve(struct family_board *board, size_t i)
{
    const struct fdqueue *queue;

    count(board, i, -1u);
    queue = is_counted_empty(board, i) ? family_open(i) : NULL;
    if (queue)
        queues_recount(i, queue);
}

/* A taker that found the queue empty before the message came has counted it as empty. */
long queues_put(size_t i, int fd, const struct account *account)
{
    struct family_board *board = family_get();
    const struct fdqueue *queue = family_open(i);
    long result = queue ? fdqueue_give(queue, fd, account, sizeof(*account)) : -EPIPE;

    if (result < 0)
        queues_unreserve(board, i);
    else if (is_counted_empty(board, i))
        queues_recount(i, queue);
    return result;
}

/* Whether to close FD cannot harm this process. The end of a file may block, or release the
 * process's record locks (fcntl(2)); that of a socket may end other sockets, which linger, if
 * they were sent through it. */
static bool may_be_closed(int fd)
{
    int protocol = 0;
    socklen_t length = sizeof(protocol);

    return raw_syscall(SYS_getsockopt, fd, SOL_SOCKET, SO_PROTOCOL, &protocol, &length) == 0 &&
           protocol == IPPROTO_TCP;
}

void queues_close(const struct taken *taken)
{
    uint64_t cookie = 0;

    if (bulk_close_count() != taken->bulk &&
        (!sockid_cookie(taken->fd, &cookie) || cookie != taken->account.cookie))
        return;
    if (!may_be_closed(taken->fd)) {
        family_leave(SHARE_CLOSED);
        return;
    }
    if (family_forked_since(taken->forks))
        raw_syscall(SYS_shutdown, taken->fd, SHUT_RDWR);
    raw_close(taken->fd);
}

enum got queues_take(size_t i, struct taken *taken)
{
    const struct fdqueue *queue = family_open(i);
    long n;

    if (!queue || !fdqueue_has_room(queue))
        return GOT_NOTHING;
    taken->bulk = bulk_close_count();
    taken->forks = atomic_load(&fork_epoch);
    taken->account.cookie = 0;
    n = fdqueue_take(queue, &taken->account, sizeof(taken->account), &taken->fd);
    if (n == -EAGAIN) {
        queues_recount(i, queue);
        return GOT_NOTHING;
    }
    if (n < 0) {
        family_leave(SHARE_CLOSED);
        return GOT_NOTHING;
    }
    note_taken(i, queue);
    if (taken->fd < 0)
        return GOT_OTHER;
    if (account_is_ours(&taken->account, (size_t)n))
        return GOT;
    queues_close(taken);
    return GOT_OTHER;
}

void queues_give_back(size_t i, const struct taken *taken)
{
    const struct fdqueue *queue = family_open(i);

    if (queue && !family_forked_since(taken->forks) &&
        queues_reserve(family_get(), i, UINT_MAX, false) == ROOM)
        queues_put(i, taken->fd, &taken->account);
    queues_close(taken);
}
