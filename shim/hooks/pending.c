/*
 * Asynchronous I/O: requests that are pending after the call that made them has returned. If
 * one that receives is pending when the program closes its connection, it would take the reply
 * of the next user.
 *
 * In POSIX and Linux asynchronous I/O each request names its fd: the connection there is not
 * pooled. Requests that liburing puts into a ring are never seen, so a process that makes a
 * ring with liburing pools nothing. For rings made with syscall() see conn/ring.h.
 */
#include "hooks/hooks.h"

#include <string.h>

#include "base/lookup.h"
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

/* How many of N requests glibc looks at: none when MODE is wrong. */
static int listed(int mode, int n)
{
    return mode == LIO_WAIT || mode == LIO_NOWAIT ? n : 0;
}

/* Whether the request with OPCODE on FD may be made. */
static bool may_request(int opcode, int fd)
{
    return opcode == LIO_NOP || hook_may_move_unseen(fd);
}

HOOKED int lio_listio(int mode, struct aiocb *const list[], int n, struct sigevent *event)
{
    bool good = true;

    for (int i = 0; i < listed(mode, n); i++)
        good &= !list[i] || may_request(list[i]->aio_lio_opcode, list[i]->aio_fildes);
    return good ? real_lio_listio(mode, list, n, event) : -1;
}

HOOKED int lio_listio64(int mode, struct aiocb64 *const list[], int n, struct sigevent *event)
{
    bool good = true;

    for (int i = 0; i < listed(mode, n); i++)
        good &= !list[i] || may_request(list[i]->aio_lio_opcode, list[i]->aio_fildes);
    return good ? real_lio_listio64(mode, list, n, event) : -1;
}

/* Stops, as the kernel does, at the first request that cannot be read. conn_ever_used is
 * relaxed: a hint. An old value misses a connection that another thread has just made. */
void hook_submitted(struct iocb **list, long n, enum reason reason)
{
    if (!atomic_load_explicit(&conn_ever_used, memory_order_relaxed))
        return;
    for (long i = 0; i < n && usermem_readable(&list[i], sizeof(uintptr_t)) &&
                     usermem_readable(list[i], sizeof(*list[i]));
         i++) {
        if (!PLAIN((int)list[i]->aio_fildes))
            track_unseen((int)list[i]->aio_fildes, reason);
    }
}

/* As libaio does: one system call, whose -errno is returned. */
int hook_io_submit(void *context, long n, struct iocb **list)
{
    hook_submitted(list, n, REASON_UNTRACKED_IO);
    return (int)raw_syscall(SYS_io_submit, context, n, list);
}

/* RESULT is that of a function of liburing that makes a ring. */
static int ring_made(int result)
{
    if (result < 0)
        return result;
    if (atomic_load(&owner_page.pid) != 0)
        track_unseen_everywhere(REASON_IO_URING);
    else
        owner_refuse(REASON_IO_URING);
    return result;
}

void hook_library_opened(const char *file)
{
    static const char rings[] = "liburing";
    const char *slash = strrchr(file, '/');

    if (strncmp(slash ? slash + 1 : file, rings, sizeof(rings) - 1) == 0)
        ring_made(0);
}

/* The functions of liburing that make a ring, each of the symbol VERSION that the program was
 * linked with. If one cannot be found, the hook fails as on a kernel without io_uring. */

static int queue_init(const char *version, unsigned int entries, void *ring, unsigned int flags)
{
    int (*real)(unsigned int, void *, unsigned int) =
        (int (*)(unsigned int, void *, unsigned int))lookup_versioned("io_uring_queue_init",
                                                                      version);

    return real ? ring_made(real(entries, ring, flags)) : -ENOSYS;
}

int hook_queue_init(unsigned int entries, void *ring, unsigned int flags)
{
    return queue_init("LIBURING_2.0", entries, ring, flags);
}

int hook_queue_init_ffi(unsigned int entries, void *ring, unsigned int flags)
{
    return queue_init("LIBURING_2.4", entries, ring, flags);
}

static int queue_init_params(const char *version, unsigned int entries, void *ring,
                             void *params)
{
    int (*real)(unsigned int, void *, void *) =
        (int (*)(unsigned int, void *, void *))lookup_versioned("io_uring_queue_init_params",
                                                                version);

    return real ? ring_made(real(entries, ring, params)) : -ENOSYS;
}

int hook_queue_init_params(unsigned int entries, void *ring, void *params)
{
    return queue_init_params("LIBURING_2.0", entries, ring, params);
}

int hook_queue_init_params_ffi(unsigned int entries, void *ring, void *params)
{
    return queue_init_params("LIBURING_2.4", entries, ring, params);
}

static int setup(const char *version, unsigned int entries, void *params)
{
    int (*real)(unsigned int, void *) =
        (int (*)(unsigned int, void *))lookup_versioned("io_uring_setup", version);

    return real ? ring_made(real(entries, params)) : -ENOSYS;
}

int hook_setup(unsigned int entries, void *params)
{
    return setup("LIBURING_2.3", entries, params);
}

int hook_setup_ffi(unsigned int entries, void *params)
{
    return setup("LIBURING_2.4", entries, params);
}

int hook_queue_init_mem(unsigned int entries, void *ring, void *params, void *bytes,
                        size_t size)
{
    int (*real)(unsigned int, void *, void *, void *, size_t) =
        (int (*)(unsigned int, void *, void *, void *, size_t))lookup_versioned(
            "io_uring_queue_init_mem", "LIBURING_2.5");

    return real ? ring_made(real(entries, ring, params, bytes, size)) : -ENOSYS;
}
