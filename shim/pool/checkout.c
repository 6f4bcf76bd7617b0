/*
 * The sequence of check-out.
 *
 * One thread has the fresh socket: the one whose swap puts CLOSING into the fd's word (see
 * concurrency.md, 1). It keeps CLOSING until the pooled connection is in the map, or the plain
 * connect() is to be made.
 */
#include "pool/checkout.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "base/hash.h"
#include "base/owner.h"
#include "base/usermem.h"
#include "conn/fdmap.h"
#include "conn/shadow.h"
#include "pool/callers.h"
#include "pool/connect_time.h"
#include "pool/custody.h"
#include "pool/discard.h"
#include "pool/drain.h"
#include "pool/due.h"
#include "pool/guess.h"
#include "pool/full.h"
#include "pool/install.h"
#include "pool/life.h"
#include "pool/pool.h"
#include "pool/proof.h"
#include "pool/take.h"
#include "pool/spare.h"
#include "pool/verify.h"
#include "config/rules.h"
#include "stats/log.h"
#include "stats/mode.h"

/* Idle connections without proof of life that one connect() asks. */
#define ASKS_AT_ONCE 8

/* Draining connections that one connect() reads from. */
#define DRAINS_AT_ONCE 4

static const struct config *settings;

void check_out_start(const struct config *config)
{
    settings = config;
}

/* When CONN expires. Up to a tenth of the lifetime is taken off, a different part for each
 * connection, so that those opened together do not all expire together. */
static msec_t expiry(const struct conn *conn, msec_t now)
{
    uint64_t mixed = hash_mix(conn->cookie + (uint64_t)now);
    msec_t tenth = settings->max_lifetime / 10;

    return now + settings->max_lifetime - (msec_t)((mixed >> 32) * (uint64_t)tenth >> 32);
}

/* CONN is at FD in the kernel; here the map and the record follow. EPOCH is the fork_epoch from
 * before the dup3(), ANSWER what the program is told. The record is complete before the map
 * names it. */
ALWAYS_INLINE void hand_to_program(struct conn *conn, int fd, struct conn *fresh,
                                   uint32_t epoch, enum conn_answer answer)
{
    int shadow_fd = conn->fd;

    conn->fd = fd;
    conn_set_flags(conn, conn_flags(fresh), conn_fd_flags(fresh));
    conn->fork_epoch = epoch;
    if (!sockopts_are_alike(&conn->options, &fresh->options))
        sockopts_equalize(&conn->options, &fresh->options);
    conn->epoll_regs.count = 0;
    if (fresh->epoll_regs.count > 0)
        conn->epoll_regs = fresh->epoll_regs;
    conn->socket_kind = fresh->socket_kind;
    conn->received_before = conn->received;
    conn->sends_before = conn->sends;
    conn_set_answer(conn, answer);
    /* relaxed: released by the word in the map */
    atomic_store_explicit(&conn->has_sent, false, memory_order_relaxed);
    conn_move_from(conn, CONN_CHECKING_OUT, CONN_IN_USE);
    shadow_adopt(conn, shadow_fd);
    /* If the word has changed, another thread has closed FD and got it for a new socket. */
    if (!fdmap_replace(fd, conn_id(fresh) | FDMAP_CLOSING, conn_id(conn))) {
        shadow_drop(conn);
        conn_move(conn, CONN_CLOSED);
    }
    spare_keep(fresh);
}

COLD static void pretend_to_reuse(struct conn *conn, msec_t now)
{
    struct stats *stats = endpoint_stats(conn->endpoint);

    stats_count(&stats->reused);
    connect_time_saved(conn, stats, now);
    log_line(LOG_DEBUG, "%s: would be reused", conn->endpoint->text);
    conn_move(conn, CONN_CLOSED);
}

/* Asks CONN, CHECKING_OUT, whether it is alive; its answer is read by a later check-out. */
COLD static void ask(struct conn *conn, msec_t now)
{
    struct endpoint *endpoint = conn->endpoint;
    enum reason reason = drain_ask(conn, now);

    if (reason == REASON_NONE && !pool_return(conn))
        reason = REASON_LOCKED;
    if (reason != REASON_NONE) {
        discard(conn, reason);
        return;
    }
    stats_count(&endpoint->stats->asked);
    log_line(LOG_DEBUG, "%s: asked for a sign of life", endpoint->text);
}

/* What was found for FRESH is about to be given up: FRESH counts itself from now on; see
 * pool_bind(). */
COLD static void stand_alone(struct conn *fresh)
{
    if (conn_state(fresh) == CONN_FRESH)
        conn_move(fresh, CONN_IN_USE);
}

/* CONN, CHECKING_OUT for FRESH, is not reused for REASON. Without one it is clean, but INFO is
 * no proof of life. It is discarded, or asked, and *ASKS one less. */
COLD static void give_up_found(struct conn *conn, struct conn *fresh, enum reason reason,
                               const struct tcp_info *info, msec_t now, unsigned int *asks)
{
    stand_alone(fresh);
    if (reason != REASON_NONE) {
        if (reason == REASON_NOT_ESTABLISHED)
            custody_note_end(conn, info, now);
        discard(conn, reason);
    } else if (proof_of(conn, info) == PROOF_OF_DEATH) {
        life_is_over(conn);
    } else {
        ask(conn, now);
        --*asks;
    }
}

/* Whether CONN, CHECKING_OUT, is clean and proven alive. If not, REASON and INFO are for
 * give_up_found(). */
ALWAYS_INLINE bool is_good(const struct conn *conn, enum reason *reason, struct tcp_info *info)
{
    *reason = verify_for_reuse(conn, info);
    return __builtin_expect(*reason == REASON_NONE && proof_of(conn, info) == PROOF_OF_LIFE, 1);
}

/* The same for one of which it is not known that it was clean when it became IDLE. If not, it
 * is not the caller's any more. */
COLD static bool may_be_reused(struct conn *conn, struct conn *fresh, msec_t now,
                               unsigned int *asks)
{
    struct tcp_info info;
    enum reason reason;

    reason = verify_bytes(conn);
    if (reason == REASON_NONE && is_good(conn, &reason, &info))
        return true;
    give_up_found(conn, fresh, reason, &info, now, asks);
    return false;
}

/* The latest idle connection that may be reused. When a few had to be asked, there is none now.
 */
COLD static struct conn *find_clean(struct conn *fresh, enum wire_protocol protocol, msec_t now,
                                    unsigned int asks)
{
    struct evicted evicted;
    struct conn *conn;

    evicted.count = 0;
    if (pool_is_dry_run())
        custody_do_due(now);
    while (asks > 0) {
        conn = pool_check_out(fresh, protocol, now, &evicted);
        discard_evicted(&evicted);
        if (!conn || conn->fd < 0 || may_be_reused(conn, fresh, now, &asks))
            return conn;
    }
    return NULL;
}

/* A draining connection, CHECKING_OUT. What is evicted for it is not on the stack any more when
 * the caller verifies it. */
COLD static struct conn *take_draining(struct conn *fresh, enum wire_protocol protocol,
                                       msec_t now)
{
    struct evicted evicted;
    struct conn *conn;

    evicted.count = 0;
    conn = pool_check_out_draining(fresh, protocol, now, &evicted);
    discard_evicted(&evicted);
    return conn;
}

/* A draining connection on which everything has come by now. The one that has waited longest is
 * tried first. Only a few are tried: a server that has not answered those has hardly answered
 * the others. */
COLD static struct conn *find_drained(struct conn *fresh, enum wire_protocol protocol,
                                      msec_t now)
{
    unsigned int reads = DRAIN_READS, asks = DRAINS_AT_ONCE;

    for (int i = 0; i < DRAINS_AT_ONCE && reads > 0; i++) {
        struct conn *conn = take_draining(fresh, protocol, now);
        enum reason reason;

        if (!conn)
            return NULL;
        reason = drain(conn, now, &reads);
        if (drain_goes_on(reason) && pool_return(conn))
            continue;
        if (reason != REASON_NONE)
            discard(conn, reason);
        else if (may_be_reused(conn, fresh, now, &asks)) {
            stats_count(&conn->endpoint->stats->drained);
            conn->given_up_by = 0;
            return conn;
        }
    }
    return NULL;
}

/* A connection of another process of the family. */
COLD static struct conn *find_shared(struct conn *fresh, enum wire_protocol protocol,
                                     msec_t now)
{
    unsigned int asks = DRAINS_AT_ONCE;

    while (asks > 0) {
        struct conn *conn = take_shared(fresh, protocol, now);

        if (!conn)
            return NULL;
        if (may_be_reused(conn, fresh, now, &asks)) {
            stats_count(&conn->endpoint->stats->taken);
            return conn;
        }
    }
    return NULL;
}

/* None is idle. */
COLD static struct conn *find_other(struct conn *fresh, enum wire_protocol protocol, msec_t now)
{
    struct conn *conn = find_drained(fresh, protocol, now);

    return conn ? conn : find_shared(fresh, protocol, now);
}

COLD static struct conn *find(struct conn *fresh, enum wire_protocol protocol, msec_t now,
                              unsigned int asks)
{
    struct conn *conn = find_clean(fresh, protocol, now, asks);

    /* Kept in a dry run. An operator may end that at any moment, so the record decides. */
    if (conn && conn->fd < 0) {
        pretend_to_reuse(conn, now);
        return NULL;
    }
    return conn || pool_is_dry_run() ? conn : find_other(fresh, protocol, now);
}

struct conn *check_out_find(struct conn *fresh, enum wire_protocol protocol, msec_t now)
{
    return find(fresh, protocol, now, ASKS_AT_ONCE);
}

/* What connect() answers on a reused connection in place of FRESH. */
ALWAYS_INLINE enum conn_answer answer_for(const struct conn *fresh, const void *caller)
{
    bool nonblocking = conn_flags(fresh) & O_NONBLOCK;

    return nonblocking && !callers_accept_zero(caller) ? CONN_ANSWER_CONNECTING
                                                       : CONN_ANSWER_CONNECTED;
}

/* Puts CONN, a pooled connection, over FD, where FRESH is. Returns what connect() answers then.
 * CONN_ANSWER_KERNEL: CONN is not there. If the options of FRESH cannot be set on one
 * connection, no other is tried, as they would fail there too. */
ALWAYS_INLINE enum conn_answer check_out(struct conn *fresh, struct conn *conn, int fd,
                                         msec_t now, const void *caller)
{
    enum conn_answer answer = answer_for(fresh, caller);
    struct stats *stats;
    enum reason reason;
    uint32_t epoch;

    /* Read before the connection gets the program's fd: a child that is forked from now on may
     * have that fd, and the epoch then differs. */
    epoch = atomic_load(&fork_epoch);
    spare_save(fresh, fd);
    reason = install_over_fd(conn, fd, fresh);
    if (reason != REASON_NONE) {
        stand_alone(fresh);
        discard(conn, reason);
        return CONN_ANSWER_KERNEL;
    }
    /* Counted before: as soon as the map has the connection, another thread may close it, and
     * we must not read the record. */
    stats = endpoint_stats(conn->endpoint);
    stats_add_quietly(&stats->connects, 1);
    stats_add_quietly(&stats->reused, 1);
    connect_time_saved(conn, stats, now);
    stats_changed();
    log_line(LOG_DEBUG, "%s: reused as %d", conn->endpoint->text, fd);
    hand_to_program(conn, fd, fresh, epoch, answer);
    return answer;
}

/* Whether a struct sockaddr_in at ADDR is certainly readable, or a system call says so. FRAME
 * is an address in a frame of this thread. */
ALWAYS_INLINE bool is_readable(const struct sockaddr *addr, uintptr_t frame)
{
    uintptr_t at = (uintptr_t)addr;

    return (at % READABLE_PAGE <= READABLE_PAGE - sizeof(struct sockaddr_in) &&
            ((at ^ frame) < READABLE_PAGE || usermem_certain(at, frame))) ||
           usermem_readable(addr, sizeof(struct sockaddr_in));
}

/* False if ADDR is no address of a connection that we track. What the kernel would refuse is
 * left for it to refuse. */
static bool address_for(const struct conn *conn, struct address *address,
                        const struct sockaddr *addr, socklen_t len)
{
    return len >= sizeof(addr->sa_family) && len <= sizeof(struct sockaddr_storage) &&
           usermem_readable(addr, len) && addr->sa_family == conn->domain &&
           address_from(address, addr, len);
}

static bool rules_allow(const struct address *address)
{
    return rules_match(settings->rules, settings->rule_count, address);
}

COLD static bool rules_allow_v4(uint64_t v4)
{
    struct address address;

    address_from_v4(&address, v4);
    return rules_allow(&address);
}

COLD static bool other_target(const struct conn *conn, struct destination *target,
                              const struct sockaddr *addr, socklen_t len)
{
    target->v4 = target->place = 0;
    return address_for(conn, &target->address, addr, len) && rules_allow(&target->address);
}

/* Fills TARGET with the address at ADDR. False if connections to it are not pooled. The rules
 * never change, so the last IPv4 addresses for which they said yes are remembered. The first
 * place begins with what is no address, as eight zeros would be found there. */
ALWAYS_INLINE bool target_of(const struct conn *conn, struct destination *target,
                             const struct sockaddr *addr, socklen_t len, uintptr_t frame)
{
    static _Atomic uint64_t known[DESTINATION_PLACES] = {1};
    _Atomic uint64_t *place;
    uint64_t v4;

    if (__builtin_expect(len != sizeof(struct sockaddr_in) || !is_readable(addr, frame), 0))
        return other_target(conn, target, addr, len);
    memcpy(&v4, addr, sizeof(v4));
    target->place = hash_mix(v4) >> 32 & (DESTINATION_PLACES - 1);
    place = &known[target->place];
    /* relaxed: a word is complete by itself */
    if (__builtin_expect(atomic_load_explicit(place, memory_order_relaxed) != v4 ||
                             conn->domain != AF_INET,
                         0)) {
        if (addr->sa_family != AF_INET || conn->domain != AF_INET || !rules_allow_v4(v4))
            return false;
        atomic_store_explicit(place, v4, memory_order_relaxed);
    }
    target->v4 = v4;
    return true;
}

/* CONN may lead somewhere else from now on. It is not pooled, and no swap must take its place
 * at the first byte. */
static void note_reconnected(struct conn *conn)
{
    conn_refuse(conn, REASON_RECONNECTED);
    /* relaxed: an old value costs a swap */
    atomic_store_explicit(&conn->has_sent, true, memory_order_relaxed);
}

/* connect() on a socket that is connected or connecting. With the same address it asks for the
 * outcome, as is usual. With another one the connection is not pooled any more. */
COLD static void connect_again(struct check_out *check_out, struct conn *conn,
                               const struct sockaddr *addr, socklen_t len)
{
    bool reused = conn_answer(conn) != CONN_ANSWER_KERNEL;
    struct address address;

    check_out->reused = reused ? conn : NULL;
    if (address_for(conn, &address, addr, len) &&
        address_equal(&address, &conn->endpoint->address))
        return;
    note_reconnected(conn);
    check_out->dissolves = reused && len >= sizeof(addr->sa_family) &&
                           usermem_readable(addr, sizeof(addr->sa_family)) &&
                           addr->sa_family == AF_UNSPEC;
}

static void note_opened(struct conn *conn, msec_t now)
{
    conn->connected_at = now;
    conn->expires_at = expiry(conn, now);
}

COLD static void log_untracked(enum reason reason)
{
    log_line(LOG_DEBUG, "not tracked: %s (%s)", reason_name(reason), reason_text(reason));
}

/* False, and CONN is as it was, if another thread has the lock of CONN, or if it cannot be
 * tracked. The other arguments are those of pool_bind(). */
ALWAYS_INLINE bool bind_target(struct conn *conn, const struct destination *target, msec_t now,
                               bool reuse, struct conn **found, struct evicted *evicted)
{
    enum reason reason;

    if (!conn_trylock(conn))
        return false;
    reason = pool_bind(conn, target, now, reuse, found, evicted);
    conn_unlock(conn);
    if (__builtin_expect(reason != REASON_NONE, 0))
        log_untracked(reason);
    return reason == REASON_NONE;
}

bool check_out_bind(struct conn *conn, const struct address *address, msec_t now)
{
    struct destination target = {.v4 = 0, .address = *address};
    struct conn *none;

    note_opened(conn, now);
    return bind_target(conn, &target, now, false, &none, NULL);
}

/* FRESH is to be connected. */
COLD static void note_miss(struct conn *fresh, msec_t now)
{
    struct stats *stats = endpoint_stats(fresh->endpoint);

    note_opened(fresh, now);
    stats_count(&stats->connects);
    stats_count(&stats->opened);
    fresh->rtt_pending = fresh->flags & O_NONBLOCK;
}

/* Looks further for what can be put over FD, where FRESH is, which is IN_USE. */
COLD static enum conn_answer look_on(struct conn *fresh, int fd, msec_t now, const void *caller,
                                     unsigned int asks)
{
    struct conn *found = find(fresh, guess_protocol(fresh), now, asks);

    return found ? check_out(fresh, found, fd, now, caller) : CONN_ANSWER_KERNEL;
}

/* The same after FOUND was taken out of the pool for FRESH and is not reused. REASON and INFO
 * are those of is_good(). */
COLD static enum conn_answer look_behind(struct conn *found, struct conn *fresh, int fd,
                                         msec_t now, const void *caller, enum reason reason,
                                         const struct tcp_info *info)
{
    unsigned int asks = ASKS_AT_ONCE;

    if (found->fd < 0) {
        stand_alone(fresh);
        pretend_to_reuse(found, now);
        return CONN_ANSWER_KERNEL;
    }
    give_up_found(found, fresh, reason, info, now, &asks);
    return look_on(fresh, fd, now, caller, asks);
}

/* The same if nothing idles there. */
COLD static enum conn_answer look_elsewhere(struct conn *fresh, int fd, msec_t now,
                                            const void *caller)
{
    struct conn *found = find_other(fresh, guess_protocol(fresh), now);

    return found ? check_out(fresh, found, fd, now, caller) : CONN_ANSWER_KERNEL;
}

/* try_reuse() in a dry run, or if FRESH cannot be replaced for REASON. */
COLD static enum conn_answer bind_and_look(struct conn *fresh, const struct destination *target,
                                           int fd, msec_t now, const void *caller,
                                           enum reason reason)
{
    enum conn_answer answer = CONN_ANSWER_KERNEL;
    struct conn *none;

    if (!bind_target(fresh, target, now, false, &none, NULL))
        return CONN_ANSWER_KERNEL;
    endpoint_note_unpublished(fresh->endpoint);
    if (reason != REASON_NONE)
        conn_refuse(fresh, reason);
    else
        answer = look_on(fresh, fd, now, caller, ASKS_AT_ONCE);
    if (answer == CONN_ANSWER_KERNEL)
        note_miss(fresh, now);
    due_each_second(now);
    return answer;
}

/* The caller has put CLOSING into the word of FD, where FRESH is. Returns what connect()
 * answers if a pooled connection is at FD now; FRESH is a spare or CLOSED then.
 * CONN_ANSWER_KERNEL: FRESH is IN_USE and to be connected, or still FRESH and not to be
 * tracked. */
ALWAYS_INLINE enum conn_answer try_reuse(struct conn *fresh, int fd,
                                         const struct sockaddr *addr, socklen_t len,
                                         const void *caller, uintptr_t frame)
{
    enum conn_answer answer;
    struct conn *found;
    struct evicted evicted;
    struct destination target;
    struct tcp_info info;
    msec_t now;
    enum reason reason;

    if (!target_of(fresh, &target, addr, len, frame))
        return CONN_ANSWER_KERNEL;
    now = clock_now();
    reason = verify_fresh(fresh, fd);
    /* In a dry run what is due is closed first, and not counted as a hit. */
    if (__builtin_expect(reason != REASON_NONE, 0) || (!mode_is_plain() && pool_is_dry_run()))
        return bind_and_look(fresh, &target, fd, now, caller, reason);
    evicted.count = 0;
    if (!bind_target(fresh, &target, now, true, &found, &evicted))
        return CONN_ANSWER_KERNEL;
    endpoint_note_unpublished(fresh->endpoint);
    if (__builtin_expect(evicted.count > 0, 0))
        discard_evicted(&evicted);
    if (__builtin_expect(!found, 0))
        answer = look_elsewhere(fresh, fd, now, caller);
    else if (__builtin_expect(found->fd >= 0, 1) && is_good(found, &reason, &info))
        answer = check_out(fresh, found, fd, now, caller);
    else
        answer = look_behind(found, fresh, fd, now, caller, reason, &info);
    if (__builtin_expect(answer == CONN_ANSWER_KERNEL, 0))
        note_miss(fresh, now);
    due_each_second(now);
    return answer;
}

/* The caller has put CLOSING into WORD, of FD, which names CONN, and takes it off again. A
 * connection of the program's own needs no shadow fd yet; the one that there may be was that of
 * a spare. */
COLD static void release(struct conn *conn, int fd, uint32_t word)
{
    bool tracked = conn_state(conn) == CONN_IN_USE;

    shadow_drop(conn);
    if (!fdmap_replace(fd, word | FDMAP_CLOSING, tracked ? word : FDMAP_NONE) || !tracked)
        conn_move(conn, CONN_CLOSED);
}

/* The fresh socket at FD, whose WORD has CLOSING from now on; NULL if there is none, or if
 * another thread connects or closes it. The swap gives the record to the caller, so no call is
 * begun on it; see concurrency.md, 1. */
ALWAYS_INLINE struct conn *claim_fresh(int fd, uint32_t word)
{
    struct conn *conn;

    if (!conn_is_plain(word))
        return NULL;
    conn = conn_of_word(word);
    if (conn_state(conn) != CONN_FRESH || !fdmap_replace(fd, word, word | FDMAP_CLOSING))
        return NULL;
    /* Another thread may have connected it between the two looks. */
    if (__builtin_expect(conn_state(conn) == CONN_FRESH, 1))
        return conn;
    release(conn, fd, word);
    return NULL;
}

/* Whether ERROR, of a connect(), leaves the socket connecting or connected. */
static bool connect_goes_on(int error)
{
    return error == EINPROGRESS || error == EALREADY || error == EINTR || error == EISCONN;
}

/* connect() on what is no fresh socket, or one that another thread connects at this moment:
 * that thread goes on, and this call is a plain one. */
COLD static void begin_again(struct check_out *check_out, uint32_t word,
                             const struct sockaddr *addr, socklen_t len)
{
    struct conn *conn =
        owner_is_this_process() ? conn_get_at(check_out->fd, word, CONN_CALL_OTHER) : NULL;

    if (!conn)
        return;
    check_out->tracked = true;
    if (conn_state(conn) == CONN_FRESH)
        conn_refuse(conn, REASON_CONCURRENT);
    else if (conn->endpoint)
        connect_again(check_out, conn, addr, len);
    conn_put(conn, CONN_CALL_OTHER);
}

/* The real connect() is to be made. FRESH was claimed by claim_fresh(), or is NULL. */
COLD static bool begin_plain(struct check_out *check_out, struct conn *fresh, int fd,
                             uint32_t word, const struct sockaddr *addr, socklen_t len)
{
    *check_out = (struct check_out){.fd = fd, .saved = errno};
    if (fresh) {
        check_out->tracked = true;
        check_out->timed = fresh->rtt_pending ? NULL : fresh->endpoint;
        release(fresh, fd, word);
    } else {
        begin_again(check_out, word, addr, len);
    }
    if (check_out->timed)
        check_out->began = connect_time_now();
    return false;
}

/* On Linux a non-blocking socket gets EINPROGRESS first. */
COLD static bool answer_connecting(struct check_out *check_out)
{
    errno = EINPROGRESS;
    check_out->result = -1;
    return true;
}

/* All that is called here keeps errno. */
INLINED bool check_out_begin(struct check_out *check_out, int fd, uint32_t word,
                             const struct sockaddr *addr, socklen_t len, const void *caller)
{
    struct conn *fresh = owner_is_this_process() ? claim_fresh(fd, word) : NULL;
    enum conn_answer answer = CONN_ANSWER_KERNEL;

    if (__builtin_expect(fresh != NULL, 1))
        answer = try_reuse(fresh, fd, addr, len, caller, (uintptr_t)check_out);
    if (__builtin_expect(answer == CONN_ANSWER_KERNEL, 0))
        return begin_plain(check_out, fresh, fd, word, addr, len);
    if (__builtin_expect(answer == CONN_ANSWER_CONNECTING, 0))
        return answer_connecting(check_out);
    check_out->result = 0;
    return true;
}

/* The answer to a further connect() on CONN, which was reused; the kernel has given RESULT. The
 * kernel's own answer would depend on what the former users did. */
static int answer_again(const struct check_out *check_out, struct conn *conn, int result)
{
    if (result != 0 && errno != EISCONN)
        return result;
    if (check_out->dissolves) {
        conn_set_answer(conn, CONN_ANSWER_KERNEL);
        return result;
    }
    if (conn_finish_connecting(conn)) {
        errno = check_out->saved;
        return 0;
    }
    errno = EISCONN;
    return -1;
}

/* Looks the fd up again, as another thread may have closed it meanwhile. */
static int note_outcome(const struct check_out *check_out, int result)
{
    struct conn *conn = conn_get(check_out->fd, CONN_CALL_OTHER);

    if (!conn)
        return result;
    if (result != 0 && !connect_goes_on(errno)) {
        connect_time_failed(conn);
        full_note_connect(conn, errno);
        note_reconnected(conn);
    }
    if (conn == check_out->reused)
        result = answer_again(check_out, conn, result);
    conn_put(conn, CONN_CALL_OTHER);
    return result;
}

int check_out_end(const struct check_out *check_out, int result)
{
    if (check_out->timed && result == 0)
        connect_time_count(check_out->timed, connect_time_now() - check_out->began);
    else if (check_out->timed && !connect_goes_on(errno))
        connect_time_failed_at(check_out->timed);
    if (check_out->reused || (check_out->tracked && result != 0 && !connect_goes_on(errno)))
        return note_outcome(check_out, result);
    return result;
}
