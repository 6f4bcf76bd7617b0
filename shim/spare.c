/*
 * The few sockets that are kept.
 */
#include "spare.h"

#include <fcntl.h>
#include <sys/socket.h>

#include "fdmap.h"
#include "libc.h"
#include "pool.h"
#include "process.h"
#include "proof.h"
#include "raw.h"

/* Their records, by their slots in the map; 0 where there is none. Who takes one out has it to
 * himself. */
static _Atomic uint32_t kept[SPARE_MAX];

/* Private numbers there are, of spares and of what may become one. */
static _Atomic unsigned int numbers;

static struct conn *take_out(_Atomic uint32_t *place)
{
    return conn_of_slot(atomic_exchange(place, 0));
}

static bool put_in(struct conn *conn)
{
    for (int i = 0; i < SPARE_MAX; i++) {
        uint32_t none = 0;

        if (atomic_compare_exchange_strong(&kept[i], &none, conn_slot(conn)))
            return true;
    }
    return false;
}

static uint32_t private_slot(const struct conn *conn)
{
    return conn_slot(conn) | FDMAP_PRIVATE;
}

void spare_drop(struct conn *conn)
{
    int fd = atomic_exchange(&conn->spare, -1);

    if (fd < 0)
        return;
    atomic_fetch_sub(&numbers, 1);
    if (fdmap_replace(fd, private_slot(conn), FDMAP_NONE))
        libc_close_quietly(fd);
}

static void give_up(struct conn *conn)
{
    spare_drop(conn);
    conn_move(conn, CONN_CLOSED);
}

/* Not while a thread that came late still looks at the record. */
static bool is_still_good(const struct conn *conn)
{
    return process_refusal() == REASON_NONE && !conn_calls_under_way(conn) &&
           conn->children == atomic_load(&process_children) &&
           conn->identities == atomic_load(&process_identities);
}

static struct conn *find(int domain)
{
    for (int i = 0; i < SPARE_MAX; i++) {
        struct conn *conn =
            atomic_load_explicit(&kept[i], memory_order_relaxed) ? take_out(&kept[i]) : NULL;

        if (!conn)
            continue;
        if (!is_still_good(conn))
            give_up(conn);
        else if (conn->domain == domain)
            return conn;
        else if (!put_in(conn))
            give_up(conn);
    }
    return NULL;
}

static bool set_blocking(const struct conn *conn, int fd, int type)
{
    int flags = (conn->flags & ~O_NONBLOCK) | (type & SOCK_NONBLOCK ? O_NONBLOCK : 0);

    return flags == conn->flags || raw_syscall(SYS_fcntl, fd, F_SETFL, flags) == 0;
}

struct conn *spare_lend(int domain, int type)
{
    struct conn *conn = find(domain);
    long fd;

    if (!conn)
        return NULL;
    fd =
        raw_syscall(SYS_fcntl, conn->spare, type & SOCK_CLOEXEC ? F_DUPFD_CLOEXEC : F_DUPFD, 0);
    /* Where our number was swept meanwhile, anything may have been duplicated. */
    if (fd >= 0 && fd < FDMAP_SIZE && proof_is_at(conn, (int)fd) &&
        set_blocking(conn, (int)fd, type)) {
        conn_renew(conn, (int)fd);
        return conn;
    }
    if (fd >= 0)
        libc_close_quietly((int)fd);
    give_up(conn);
    return NULL;
}

static bool can_be_one(const struct conn *conn)
{
    return conn->domain != AF_UNIX && conn_refusal(conn) == REASON_NONE &&
           conn->watches.count == 0 && options_can_be_cleared(&conn->options);
}

void spare_save(struct conn *fresh, int fd)
{
    long spare;

    if (!can_be_one(fresh)) {
        spare_drop(fresh);
        return;
    }
    if (fresh->spare >= 0)
        return;
    spare = raw_syscall(SYS_fcntl, fd, F_DUPFD_CLOEXEC, pool_private_base());
    if (spare >= FDMAP_SIZE) {
        libc_close_quietly((int)spare);
    } else if (spare >= 0) {
        atomic_fetch_add(&numbers, 1);
        fresh->spare = (int)spare;
        fdmap_exchange((int)spare, private_slot(fresh));
    }
}

void spare_keep(struct conn *fresh)
{
    int spare = fresh->spare;

    if (spare >= 0 && fdmap_get(spare) == private_slot(fresh) && can_be_one(fresh) &&
        conn_is_only_call(fresh) && options_clear(spare, &fresh->options)) {
        conn_move(fresh, CONN_SPARE);
        if (put_in(fresh))
            return;
    }
    give_up(fresh);
}

bool spare_lose(struct conn *conn, int fd)
{
    if (!atomic_compare_exchange_strong(&conn->spare, &fd, -1))
        return false;
    atomic_fetch_sub(&numbers, 1);
    for (int i = 0; i < SPARE_MAX; i++) {
        uint32_t slot = conn_slot(conn);

        if (atomic_compare_exchange_strong(&kept[i], &slot, 0))
            conn_move(conn, CONN_CLOSED);
    }
    return true;
}

static void drop_fresh(struct conn *conn, int unused)
{
    (void)unused;
    spare_drop(conn);
}

bool spare_flush(void)
{
    unsigned int before = atomic_load(&numbers);

    if (before == 0)
        return false;
    for (int i = 0; i < SPARE_MAX; i++) {
        struct conn *conn = take_out(&kept[i]);

        if (conn)
            give_up(conn);
    }
    conn_for_each_in_use(drop_fresh, 0);
    return atomic_load(&numbers) < before;
}
