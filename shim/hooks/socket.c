/*
 * Hooks of a connection's begin and settings: socket(), connect(), bind(), socket options. Also
 * accept(), which returns fds, and shutdown(), with which some clients quit.
 */
#include "hooks/hooks.h"

#include "base/unwind.h"
#include "pool/due.h"
#include "pool/family.h"
#include "pool/quit.h"
#include "pool/swap.h"

/* Gives up the fds that the library does not need. False if there were none. */
static bool give_up_fds(void)
{
    bool any = discard_idle(REASON_FD_PRESSURE);

    return family_leave(SHARE_CLOSED) || any;
}

bool hook_should_retry(int result)
{
    return result < 0 && (errno == EMFILE || errno == ENFILE) && owner_is_this_process() &&
           give_up_fds();
}

static __attribute__((noinline)) int new_socket(int domain, int type, int protocol)
{
    uint32_t forks = atomic_load(&fork_epoch), orphans = atomic_load(&orphan_epoch);
    int fd = real_socket(domain, type, protocol);

    if (hook_should_retry(fd))
        fd = real_socket(domain, type, protocol);
    if (fd >= 0)
        track_socket(fd, domain, type, protocol, forks, orphans);
    return fd;
}

HOOKED int socket(int domain, int type, int protocol)
{
    int fd = track_spare(domain, type, protocol);

    return fd >= 0 ? fd : new_socket(domain, type, protocol);
}

static __attribute__((noinline)) int connect_tracked(int fd, const struct sockaddr *addr,
                                                     socklen_t len, uint32_t word,
                                                     const void *caller)
{
    struct check_out check_out;

    unwind_testcancel();
    if (check_out_begin(&check_out, fd, word, addr, len, caller))
        return check_out.result;
    return check_out_end(&check_out, real_connect(fd, addr, len));
}

HOOKED int connect(int fd, const struct sockaddr *addr, socklen_t len)
{
    uint32_t word = fdmap_word(fd);
    int result;

    if (UNTRACKED(word))
        return real_connect(fd, addr, len);
    result = connect_tracked(fd, addr, len, word,
                             __builtin_extract_return_addr(__builtin_return_address(0)));
    due_after_connect();
    return result;
}
HOOKED_ALIAS(__connect, connect);

HOOKED int bind(int fd, const struct sockaddr *addr, socklen_t len)
{
    int result = real_bind(fd, addr, len);

    if (result == 0 && !PLAIN(fd))
        track_bound(fd, addr, len);
    return result;
}

/* Notes it before the call: if another thread calls connect() meanwhile, check-out sees that
 * the program has asked for the name. */
HOOKED int getsockname(int fd, struct sockaddr *addr, socklen_t *len)
{
    if (!PLAIN(fd))
        track_name_asked(fd);
    return real_getsockname(fd, addr, len);
}

/* A server's socket is not tracked. */
HOOKED int listen(int fd, int backlog)
{
    int result = real_listen(fd, backlog);

    if (result == 0 && !PLAIN(fd) && fdmap_word(fd) != FDMAP_WAITED)
        track_forget(fd);
    return result;
}

HOOKED int accept(int fd, struct sockaddr *addr, socklen_t *len)
{
    int result;

    due_before_accept(fd);
    result = real_accept(fd, addr, len);
    if (hook_should_retry(result))
        result = real_accept(fd, addr, len);
    track_lowest_fd(result);
    return due_after_wait(result);
}

HOOKED int accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
    int result;

    due_before_accept(fd);
    result = real_accept4(fd, addr, len, flags);
    if (hook_should_retry(result))
        result = real_accept4(fd, addr, len, flags);
    track_lowest_fd(result);
    return due_after_wait(result);
}

HOOKED int shutdown(int fd, int how)
{
    uint32_t word = fdmap_word(fd);
    int result;

    if (word != FDMAP_NONE) {
        if ((how == SHUT_WR || how == SHUT_RDWR) && quit_intercept(fd, word, NULL, 0))
            return 0;
        /* A connection that takes the place of this one later would not be shut down. */
        if (how == SHUT_RD)
            swap_for_new_if_possible(fd);
        track_shut_down(fd);
        word = fdmap_word(fd);
    }
    result = real_shutdown(fd, how);
    /* Another thread has put something else at FD meanwhile. If that is a connection which has
     * gone back to the pool since, nothing shows that it is shut down for reading. */
    if (fdmap_word(fd) != word && owner_is_this_process()) {
        track_shut_down(fd);
        discard_idle(REASON_SHUT_DOWN);
    }
    return result;
}

/* Sets the option once more if a new connection has taken the place of the old one. */
HOOKED int setsockopt(int fd, int level, int name, const void *value, socklen_t len)
{
    int result;
    bool again;

    do {
        struct conn *conn = PLAIN(fd) ? NULL : conn_get(fd, CONN_CALL_OTHER);

        result = real_setsockopt(fd, level, name, value, len);
        again = conn && track_setsockopt(fd, conn, result == 0, level, name, value, len);
    } while (again);
    return result;
}

HOOKED int getsockopt(int fd, int level, int name, void *value, socklen_t *len)
{
    int result = real_getsockopt(fd, level, name, value, len);

    if (result == 0 && !PLAIN(fd))
        track_getsockopt(fd, level, name, value, *len);
    return result;
}
