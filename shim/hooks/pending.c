/*
 * Requests that go on when the call which made them has returned: a receive that is pending
 * when the program closes its connection would take the reply of the next user. POSIX and Linux
 * asynchronous I/O name the fd in each request. What liburing does with a ring is never seen: a
 * process that makes one by it pools nothing. For rings made by syscall() see conn/ring.h.
 */
#include "hooks/hooks.h"

#include <string.h>

#include "hooks/foreign.h"
#include "base/rawsys.h"
#include "base/usermem.h"

HOOKED int aio_read(struct aiocb *block)
{
    return hook_may_move_unseen(block->aio_fildes) ? real_aio_read(block) : -1;
}

HOOKED int aio_read64(struct aiocb64 *block)
{
    return hook_may_move_unseen(block->aio_fildes) ? real_aio_read64(block) : -1;
}

HOOKED int aio_write(struct aiocb *block)
{
    return hook_may_move_unseen(block->aio_fildes) ? real_aio_write(block) : -1;
}

HOOKED int aio_write64(struct aiocb64 *block)
{
    return hook_may_move_unseen(block->aio_fildes) ? real_aio_write64(block) : -1;
}

/* glibc itself looks at no list when the mode is wrong. */
#define LISTED(name, block_type)                                                               \
    HOOKED int name(int mode, block_type *const list[], int n, struct sigevent *event)         \
    {                                                                                          \
        bool good = true;                                                                      \
                                                                                               \
        for (int i = 0; (mode == LIO_WAIT || mode == LIO_NOWAIT) && i < n; i++) {              \
            if (list[i] && list[i]->aio_lio_opcode != LIO_NOP && !PLAIN(list[i]->aio_fildes))  \
                good &= track_unseen(list[i]->aio_fildes, REASON_UNTRACKED_IO);                \
        }                                                                                      \
        return good ? real_##name(mode, list, n, event) : -1;                                  \
    }

LISTED(lio_listio, struct aiocb)
LISTED(lio_listio64, struct aiocb64)

/* The kernel takes the requests up to the first that it cannot read. */
void hook_submitted(struct iocb **list, long n, enum reason reason)
{
    if (!atomic_load_explicit(&conn_ever_used, memory_order_relaxed))
        return;
    for (long i = 0; i < n && is_readable(&list[i], sizeof(uintptr_t)) &&
                     is_readable(list[i], sizeof(*list[i]));
         i++) {
        if (!PLAIN((int)list[i]->aio_fildes))
            track_unseen((int)list[i]->aio_fildes, reason);
    }
}

/* libaio gives the negative errno of the bare system call, and makes no other. */
int hook_io_submit(void *context, long n, struct iocb **list)
{
    hook_submitted(list, n, REASON_UNTRACKED_IO);
    return (int)raw_syscall(SYS_io_submit, context, n, list);
}

static int ring_made(int result)
{
    if (result < 0)
        return result;
    if (process_owner)
        track_unseen_everywhere(REASON_IO_URING);
    else
        process_refuse(REASON_IO_URING);
    return result;
}

void hook_library_opened(const char *file)
{
    static const char rings[] = "liburing";
    const char *slash = strrchr(file, '/');

    if (strncmp(slash ? slash + 1 : file, rings, sizeof(rings) - 1) == 0)
        ring_made(0);
}

/* A function that cannot be found looks like a kernel without io_uring. */
#define MAKES_RING(body, name, version, params, args)                                          \
    int body params                                                                            \
    {                                                                                          \
        int(*make) params = (int(*) params)foreign_find(name, version);                        \
                                                                                               \
        return make ? ring_made(make args) : -ENOSYS;                                          \
    }

#define QUEUE_INIT(body, version)                                                              \
    MAKES_RING(body, "io_uring_queue_init", version,                                           \
               (unsigned int entries, void *ring, unsigned int flags), (entries, ring, flags))
#define QUEUE_INIT_PARAMS(body, version)                                                       \
    MAKES_RING(body, "io_uring_queue_init_params", version,                                    \
               (unsigned int entries, void *ring, void *params), (entries, ring, params))
#define SETUP(body, version)                                                                   \
    MAKES_RING(body, "io_uring_setup", version, (unsigned int entries, void *params),          \
               (entries, params))

QUEUE_INIT(hook_queue_init, "LIBURING_2.0")
QUEUE_INIT(hook_queue_init_ffi, "LIBURING_2.4")
QUEUE_INIT_PARAMS(hook_queue_init_params, "LIBURING_2.0")
QUEUE_INIT_PARAMS(hook_queue_init_params_ffi, "LIBURING_2.4")
SETUP(hook_setup, "LIBURING_2.3")
SETUP(hook_setup_ffi, "LIBURING_2.4")
MAKES_RING(hook_queue_init_mem, "io_uring_queue_init_mem", "LIBURING_2.5",
           (unsigned int entries, void *ring, void *params, void *bytes, size_t size),
           (entries, ring, params, bytes, size))
