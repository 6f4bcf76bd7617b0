/*
 * The record of one connection: what is known of it, and its state, which only conn_move()
 * changes (CLOSED to FREE is its last step, which conn_put() may take).
 *
 *     FREE --socket()--> FRESH --connect()--> IN_USE --close()--> CHECKING_IN
 *                                               ^                  |       |
 *                                      verified |            clean |       | replies to come
 *                                               |                  v       v
 *                                         CHECKING_OUT <-------- IDLE   DRAINING
 *                                            |    ^   connect()          |    ^
 *                                            |    +-------- connect() ---+    |
 *                                            +---------- still draining ------+
 *
 * A FRESH socket that a pooled connection replaced may become SPARE, and FRESH again. A pooled
 * connection that is not reused becomes EVICTED. Every state but FREE may end in CLOSED, which
 * becomes FREE when the last call on the record has returned. shim/life.dot has all the steps.
 *
 * Records are type-stable: the memory of a record is only ever used for records. A thread that
 * comes late finds another connection's record, never freed memory; see shim/concurrency.md, 2.
 *
 * No function here waits for a lock or blocks.
 */
#ifndef MCPOOL_CONN_H
#define MCPOOL_CONN_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/compiler.h"
#include "base/clock.h"
#include "conn/fdmap.h"
#include "conn/sockopts.h"
#include "base/reasons.h"
#include "wire/wire.h"

/* Records, of fresh sockets and connections. A socket that gets no record is not pooled. */
#define CONN_MAX 16384

/* In place of flags that have to be asked of the kernel. */
#define CONN_UNKNOWN (-1)

/* How many epoll sets a connection may be registered with and still be pooled. */
#define CONN_EPOLL_REGS 4

enum conn_state {
    CONN_FREE,
    CONN_FRESH,        /* made by socket(), not connected; the program has it */
    CONN_SPARE,        /* not connected either, kept for the next socket(); pool/spare.h */
    CONN_IN_USE,       /* connected or connecting to an endpoint; the program has it */
    CONN_CHECKING_IN,  /* being checked in */
    CONN_IDLE,         /* pooled, no reply is still to come */
    CONN_DRAINING,     /* pooled, replies or the answer to a fence are still to come */
    CONN_CHECKING_OUT, /* being checked out */
    CONN_EVICTED,      /* taken out of the pool to be closed */
    CONN_CLOSED,       /* closed, but calls may still be in flight on the record */
};

/* What a second connect() on an open connection returns, as inet_stream_connect() of Linux
 * does. For a reused connection the kernel is not asked: its answer would depend on what the
 * former users called. */
enum conn_answer {
    CONN_ANSWER_KERNEL,     /* the program opened it itself: the kernel's answer */
    CONN_ANSWER_CONNECTING, /* the first connect() returned EINPROGRESS: 0, once */
    CONN_ANSWER_CONNECTED,  /* EISCONN */
};

/* The request we sent behind quiet requests; its answer tells that they are done. */
enum fence { FENCE_NONE, FENCE_MN, FENCE_OTHER };

/* One registration of a connection with an epoll set. */
struct epoll_reg {
    int epfd;
    uint32_t events;
    uint64_t data;
};

/* All registrations of a connection. */
struct epoll_regs {
    unsigned int count;
    struct epoll_reg list[CONN_EPOLL_REGS];
};

struct endpoint;

struct conn {
    /* Calls in flight and calls ever begun; see conn/conn.c. The fields that check-out and
     * check-in use come first, in as few cache lines as possible. */
    _Alignas(64) _Atomic uint64_t inflight;
    _Atomic uint32_t state;   /* enum conn_state; above CLOSED its generation; see conn.c */
    uint32_t generation;      /* how often the record was CLOSED */
    _Atomic uint32_t refusal; /* the first enum reason that makes it unpoolable */
    uint32_t id;              /* its index among the records + 1, as the fd map has it */
    int fd;     /* the program's, or our shadow fd while pooled; -1: pooled in a dry run */
    int domain; /* address family */
    _Atomic int shadow_fd; /* beside the program's fd; -1: none; see conn/shadow.h */
    /* File status flags and descriptor flags, of the program's fd while there is one.
     * CONN_UNKNOWN once the program may have changed them: then the kernel is asked. */
    _Atomic int flags;
    _Atomic int fd_flags;
    uint32_t fork_epoch; /* fork_epoch and cred_epoch (base/owner.h) when its use began */
    uint32_t cred_epoch;
    uint32_t orphan_epoch; /* orphan_epoch (base/owner.h) when the socket was made */
    struct endpoint *endpoint;
    _Atomic uint32_t fds; /* the program's fds that name it; see conn_share() */
    atomic_bool locked;
    atomic_bool has_sent;   /* its present user has sent something, or has connected again */
    _Atomic uint8_t answer; /* enum conn_answer */
    bool rtt_pending;       /* a connect() that does not block; see pool/connect_time.h */
    uint8_t socket_kind;    /* index into the endpoint's habits; see pool/guess.h */
    uint8_t fence;          /* enum fence, while DRAINING; see pool/drain.c */

    /* While IDLE or DRAINING; guarded by the pool's lock. */
    msec_t idle_since;
    msec_t unusable_at;   /* not reused from then on */
    uint32_t given_up_by; /* while DRAINING: lock_self of the thread that gave up on a reply */
    struct conn *prev, *next;   /* of the same endpoint, latest first */
    struct conn *newer, *older; /* of the process, latest first */
    msec_t connected_at;
    msec_t expires_at;

    /* Guarded by conn_trylock(), as are options and epoll_regs. */
    uint64_t sent; /* bytes that we saw, since the connection was opened */
    uint64_t received;
    uint32_t sends; /* calls that sent something, by all connections that had the record */
    uint32_t sends_before;    /* its present user came */
    uint64_t received_before; /* the same, if it was reused */
    struct wire wire;
    struct wire_key lone_key;

    struct sockopts options;
    struct epoll_regs epoll_regs;
    uint64_t cookie; /* SO_COOKIE: the kernel's identity of the socket */
    size_t drained;  /* bytes we read while it was DRAINING */
    _Atomic uint32_t next_free;
    uint32_t sends_left; /* until `sends` is counted on: it is by STATS_SENDS at a time */
};

/* What a call on the connection does. */
enum conn_call { CONN_CALL_SEND, CONN_CALL_RECEIVE, CONN_CALL_OTHER };

/* Whether the program ever connected to an endpoint, or belongs to a family (pool/family.h).
 * Until then many hooks have no work. */
extern atomic_bool conn_ever_used __attribute__((visibility("hidden")));

/* Reserves the memory of the first records without touching it. False when there is no memory.
 */
bool conn_start(void);

/* A FRESH record for the socket at FD; the fd map does not name it yet. NULL when all records
 * are taken, or when there is no memory for more. */
COLD struct conn *conn_new(int fd, int domain);

/* Makes the spare CONN FRESH again, at the program's FD. No other thread may have CONN, and no
 * byte may have moved on its socket. */
void conn_renew(struct conn *conn, int fd);

/* The records, in blocks that are reserved as they are needed: RLIMIT_AS, `ulimit -d` and
 * mlockall() count address space that is never touched. A block is never given back. Block 0 is
 * there from the start. */
#define CONN_BLOCK 128

/* Where the records are, by number. */
extern _Atomic(struct conn *) conn_places[CONN_MAX] __attribute__((visibility("hidden")));

/* The record of number I, whose block is there. Relaxed: the address of the load depends on I,
 * and I was published after the place; see shim/concurrency.md, 1. */
ALWAYS_INLINE struct conn *conn_at(uint32_t i)
{
    struct conn *conn = atomic_load_explicit(&conn_places[i], memory_order_relaxed);

    if (!conn)
        __builtin_unreachable();
    return conn;
}

/* The record that a word of the fd map names; NULL when WORD names none. */
ALWAYS_INLINE struct conn *conn_of_word(uint32_t word)
{
    uint32_t index = word & FDMAP_INDEX;

    return word & FDMAP_EPOLL || index == 0 ? NULL : conn_at(index - 1);
}

/* Whether WORD names a record at an fd of the program, and no thread is about to end that. */
static inline bool conn_is_plain(uint32_t word)
{
    return word - 1 < FDMAP_INDEX;
}

/* The same for a word of an fd of the program: no shadow fd. All other words are too large. */
ALWAYS_INLINE struct conn *conn_of_fd_word(uint32_t word)
{
    uint32_t i = word - 1;

    if (__builtin_expect(i >= CONN_MAX, 0)) {
        i = (word & ~FDMAP_CLOSING) - 1;
        if (i >= CONN_MAX)
            return NULL;
    }
    return conn_at(i);
}

static inline uint32_t conn_id(const struct conn *conn)
{
    return conn->id;
}

/* Moves CONN to the state TO, and keeps the endpoint's count of connections in use. Moving to
 * CLOSED gives the record up: neither the fd map nor a list may name it any more, the caller
 * has closed its fd or is about to, and the caller must not touch CONN afterwards. */
void conn_move(struct conn *conn, enum conn_state to);

/* The same where the caller knows that the state is FROM. */
void conn_move_from(struct conn *conn, enum conn_state from, enum conn_state to);

/* The flags, the answer and the refusal are relaxed: each is a value by itself, and a thread
 * that reads an old one does what was right a moment ago. */
static inline int conn_flags(const struct conn *conn)
{
    return atomic_load_explicit(&conn->flags, memory_order_relaxed);
}

static inline int conn_fd_flags(const struct conn *conn)
{
    return atomic_load_explicit(&conn->fd_flags, memory_order_relaxed);
}

static inline void conn_set_flags(struct conn *conn, int flags, int fd_flags)
{
    atomic_store_explicit(&conn->flags, flags, memory_order_relaxed);
    atomic_store_explicit(&conn->fd_flags, fd_flags, memory_order_relaxed);
}

#define CONN_STATE_MASK 0xffu

/* The load is seq_cst. It pairs with the stores of CLOSED, CHECKING_IN and CHECKING_OUT in
 * conn_move(); see shim/concurrency.md, 2 and 3. */
static inline enum conn_state conn_state(const struct conn *conn)
{
    return (enum conn_state)(atomic_load(&conn->state) & CONN_STATE_MASK);
}

static inline enum conn_answer conn_answer(const struct conn *conn)
{
    return (enum conn_answer)atomic_load_explicit(&conn->answer, memory_order_relaxed);
}

static inline void conn_set_answer(struct conn *conn, enum conn_answer answer)
{
    atomic_store_explicit(&conn->answer, (uint8_t)answer, memory_order_relaxed);
}

/* How many calls were ever begun, to be compared with a later result; whether one is in flight;
 * whether the caller's own, a CONN_CALL_OTHER, is the only one in flight. */
uint64_t conn_calls_begun(const struct conn *conn);
bool conn_calls_in_flight(const struct conn *conn);
bool conn_is_only_call(const struct conn *conn);

/* The number of the program's fds of a connection: one when it becomes FRESH or IN_USE. The
 * words of all of them name its record, and a call on any of them is a call on the connection.
 *
 * conn_share(): the caller, which has a call in flight, is about to make one more fd. False
 * when the last one is about to be closed. conn_unshare(): an fd was closed and its word
 * emptied. True when it was the last: then the record is the caller's. conn_claim_last(): the
 * caller is about to close an fd. True when it is the last, which cannot be duplicated from
 * then on. */
COLD bool conn_share(struct conn *conn);
bool conn_unshare(struct conn *conn);
bool conn_claim_last(struct conn *conn);

/* Whether the program has more than one fd of CONN. The load is seq_cst and pairs with
 * conn_share(); see shim/concurrency.md, 4. */
static inline bool conn_is_shared(const struct conn *conn)
{
    return atomic_load(&conn->fds) > 1;
}

/* From now on a further connect() on the reused CONN returns EISCONN. True when it would have
 * returned 0 until now: the program has not seen the end of its first connect() yet. */
bool conn_finish_connecting(struct conn *conn);

/* Makes CONN unpoolable until it is closed. The first reason stays. */
COLD void conn_refuse(struct conn *conn, enum reason reason);

static inline enum reason conn_refusal(const struct conn *conn)
{
    return (enum reason)atomic_load_explicit(&conn->refusal, memory_order_relaxed);
}

/* Takes the lock of the guarded fields. Never waits: when another thread has the lock, or the
 * code under this signal handler, it refuses CONN as CONCURRENT and returns false. */
bool conn_trylock(struct conn *conn);
void conn_unlock(struct conn *conn);

/* The bits of `inflight`: the calls in flight of each kind, and above them the count of all
 * calls ever begun. One addition changes both. A new connection in the record does not reset
 * them: a thread that came late may still have to subtract its call. Nor does a fork: it may be
 * made in a signal handler, and the child returns from the call that this interrupted. A record
 * with a call of a thread that the child does not have is never used again there. */
#define CONN_CALLS_OF_A_KIND UINT64_C(0xfff)
#define CONN_CALLS_BEGUN     40
#define CONN_CALLS_IN_FLIGHT ((UINT64_C(1) << CONN_CALLS_BEGUN) - 1)

/* One call of the kind CALL. */
static inline uint64_t conn_one(enum conn_call call)
{
    return call == CONN_CALL_SEND      ? UINT64_C(1)
           : call == CONN_CALL_RECEIVE ? UINT64_C(1) << 12
                                       : UINT64_C(1) << 24;
}

/* Begins a call on CONN. Returns `inflight` as it was before. Pairs with the thread that
 * empties the fd's word and then looks at the calls; see shim/concurrency.md, 2. */
static inline uint64_t conn_begin_call(struct conn *conn, enum conn_call call)
{
    return atomic_fetch_add(&conn->inflight,
                            (UINT64_C(1) << CONN_CALLS_BEGUN) + conn_one(call));
}

/* Frees the record if it is CLOSED and no call is in flight. */
void conn_free_if_unused(struct conn *conn);

/* Ends the call that conn_get() began, with the same CALL. Pairs with conn_move() to CLOSED. It
 * also releases what the call noted, to the check-in that finds no call in flight; see
 * shim/concurrency.md, 2 and 4. */
static inline void conn_put(struct conn *conn, enum conn_call call)
{
    atomic_fetch_sub(&conn->inflight, conn_one(call));
    if (__builtin_expect(conn_state(conn) == CONN_CLOSED, 0))
        conn_free_if_unused(conn);
}

/* Begins a call on CONN, which the word of the program's FD named: conn_of_fd_word(). Until
 * conn_put() the record stays that of this connection. False when FD has another word by now.
 * Two threads that send, or two that receive, at the same time make the connection unpoolable:
 * the order of their bytes is unknown. */
static inline bool conn_begin(struct conn *conn, int fd, enum conn_call call)
{
    uint64_t before = conn_begin_call(conn, call);

    if (__builtin_expect(!fdmap_holds(fd, conn_id(conn)), 0)) {
        conn_put(conn, call);
        return false;
    }
    if (call != CONN_CALL_OTHER &&
        __builtin_expect((before & CONN_CALLS_OF_A_KIND * conn_one(call)) != 0, 0))
        conn_refuse(conn, REASON_CONCURRENT);
    return true;
}

/* The same for the connection that WORD names, which is returned. NULL also when WORD names no
 * connection at an fd of the program. */
static inline struct conn *conn_get_at(int fd, uint32_t word, enum conn_call call)
{
    struct conn *conn = conn_of_fd_word(word);

    return conn && conn_begin(conn, fd, call) ? conn : NULL;
}

static inline struct conn *conn_get(int fd, enum conn_call call)
{
    return conn_get_at(fd, fdmap_word(fd), call);
}

/* Calls VISIT for every record that is FRESH or IN_USE, in no order. */
COLD void conn_for_each_open(void (*visit)(struct conn *conn, int argument), int argument);

/* Whether a connection is IN_USE on which its user has not sent anything yet. */
COLD bool conn_any_silent(void);

/* Whether a connection other than CONN is CHECKING_IN or CHECKING_OUT. */
COLD bool conn_others_in_transit(const struct conn *conn);

#endif
