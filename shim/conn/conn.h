/*
 * One connection: what is known of it, its states, and the only function that moves it between
 * them.
 *
 *     FREE --socket()--> FRESH --connect()--> IN_USE --close()--> LEAVING --proof--> IDLE
 *                                               ^                    |                |
 *                                               |                    +--------> OWING |
 *                                               |                               |  ^  |
 *                                               +--------- LENDING <--connect()-+--|--+
 *                                                             +---still owing------+
 *
 * A socket that another took the place of is SPARE and may be FRESH again. An idle or owing
 * connection that is not lent again is DOOMED. Every state but FREE may end in
 * CLOSED, which becomes FREE when the last call on the record has returned.
 *
 * Records are type-stable: memory that once was a connection stays one, so that a thread which
 * comes late finds a record that is merely not its own. Nothing here takes a lock or waits.
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

/* Fresh sockets and connections tracked at the same time; more of them are not pooled. */
#define CONN_MAX 16384

/* For flags. */
#define CONN_UNKNOWN (-1)

/* Epoll sets a connection may be in and still be pooled. */
#define CONN_EPOLL_REGS 4

enum conn_state {
    CONN_FREE,
    CONN_FRESH,        /* made by socket(), not connected */
    CONN_SPARE,        /* the same, and kept for the next socket(); see pool/spare.h */
    CONN_IN_USE,       /* connected, or connecting, to an endpoint; the application holds it */
    CONN_CHECKING_IN,  /* being checked in */
    CONN_IDLE,         /* in the pool, nothing is owed on it */
    CONN_DRAINING,     /* in the pool, and replies or the answer to a fence are still to come */
    CONN_CHECKING_OUT, /* being checked out */
    CONN_EVICTED,      /* taken out of the pool to be closed */
    CONN_CLOSED,
};

/* What connect() says of a connection that is open already, as inet_stream_connect() of Linux
 * does. Not asked of the kernel for a lent one: its answer depends on the former users. */
enum conn_answer {
    CONN_ANSWER_KERNEL,     /* the program opened it itself: what the kernel says */
    CONN_ANSWER_CONNECTING, /* the program was told EINPROGRESS: 0, once */
    CONN_ANSWER_CONNECTED,  /* EISCONN */
};

/* What was sent to have the end of quiet requests confirmed. */
enum fence { FENCE_NONE, FENCE_MN, FENCE_OTHER };

/* An epoll registration of the connection, and all of them. */
struct epoll_reg {
    int epfd;
    uint32_t events;
    uint64_t data;
};

struct epoll_regs {
    unsigned int count;
    struct epoll_reg list[CONN_EPOLL_REGS];
};

struct endpoint;

struct conn {
    /* Calls under way and calls ever begun; see conn/conn.c. What a check-out and a check-in
     * need comes first, in few of the processor's cache lines. */
    _Alignas(64) _Atomic uint64_t inflight;
    _Atomic uint32_t state;   /* CLOSED: and above it, how often it was; see conn.c */
    uint32_t closed;          /* how often */
    _Atomic uint32_t refusal; /* the first enum reason that makes it unpoolable */
    uint32_t id;              /* in the map's slots: its place among the records, from 1 */
    int fd; /* the number it lives at; -1 for one that a dry run only pretends to keep */
    int domain;
    _Atomic int shadow_fd; /* a second number, of ours; -1; see conn/shadow.h */
    /* File status flags and descriptor flags, of the application's number while it has one;
     * CONN_UNKNOWN once the program may have changed them: then the kernel is asked. */
    _Atomic int flags;
    _Atomic int fd_flags;
    uint32_t fork_epoch;
    uint32_t cred_epoch;
    struct endpoint *endpoint;
    _Atomic uint32_t fds; /* descriptors of the application that name it; see conn_share() */
    atomic_bool locked;
    atomic_bool has_sent; /* its present user was seen to send something, or to connect anew */
    _Atomic uint8_t answer; /* enum conn_answer */
    bool rtt_pending;       /* connecting without blocking; see pool/connect_time.h */
    uint8_t socket_kind;    /* by which the endpoint guesses what its user will speak */
    uint8_t fence;          /* enum fence, while owing; see pool/drain.c */

    /* While idle or owing; guarded by the pool's lock. */
    msec_t idle_since;
    struct conn *prev, *next;   /* of the same endpoint, latest first */
    struct conn *newer, *older; /* of the process, latest first */
    msec_t connected_at;
    msec_t expires_at;

    /* Guarded by conn_trylock(), as are options and watches. */
    uint64_t sent;
    uint64_t received;
    struct wire wire;

    struct sockopts options;
    struct epoll_regs epoll_regs;
    uint64_t cookie;       /* the kernel's name of the socket, SO_COOKIE */
    size_t drained;        /* bytes read without a user, while owing */
    uint32_t orphan_epoch; /* orphan_epoch when it was made */
    _Atomic uint32_t next_free;
};

/* What a call does with the connection. */
enum conn_call { CONN_CALL_SEND, CONN_CALL_RECEIVE, CONN_CALL_OTHER };

/* Whether the program ever connected to an endpoint; before that there is nothing to guard. */
extern atomic_bool conn_ever_used __attribute__((visibility("hidden")));

/* Reserves the memory of all records without touching it. False when there is none. */
bool conn_start(void);

/* A FRESH record for the number FD, in no map yet; NULL when all are taken. */
COLD struct conn *conn_new(int fd, int domain);

/* CONN, a spare in nobody's hands, on which nothing ever moved, is FRESH again at the number
 * FD. */
void conn_renew(struct conn *conn, int fd);

/* All of them, CONN_MAX. */
extern struct conn *conn_records __attribute__((visibility("hidden")));

/* The record and its number in the map's slots. NULL for a slot that names none. */
static inline struct conn *conn_of_word(uint32_t slot)
{
    uint32_t index = slot & FDMAP_INDEX;

    return slot & FDMAP_EPOLL || index == 0 ? NULL : &conn_records[index - 1];
}

static inline uint32_t conn_id(const struct conn *conn)
{
    return conn->id;
}

/* Moves CONN to another state and keeps the endpoint's count of connections in use. Moving to
 * CLOSED gives the record up: it must be in no map or list any more, its number closed or about
 * to be closed by the caller, and it must not be touched afterwards. */
void conn_move(struct conn *conn, enum conn_state to);

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

/* In one order with the moves to CLOSED, LEAVING and LENDING; see concurrency.md, 2 and 3. */
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

/* Begins a call on the application's number FD, of which the map has said WORD: the record
 * stays what it is until conn_put(). NULL when the number is no connection of ours, or has
 * another word by now. Two threads sending, or two receiving, at the same time make it
 * unpoolable: the order of their bytes is unknown. */
struct conn *conn_get_at(int fd, uint32_t word, enum conn_call call);

static inline struct conn *conn_get(int fd, enum conn_call call)
{
    return conn_get_at(fd, fdmap_word(fd), call);
}

void conn_put(struct conn *conn, enum conn_call call);

/* How many calls have been begun, for comparison; whether one is under way; whether the
 * caller's own, of the kind OTHER, is the only one. */
uint64_t conn_calls_begun(const struct conn *conn);
bool conn_calls_in_flight(const struct conn *conn);
bool conn_is_only_call(const struct conn *conn);

/* The slots of all duplicates of a connection name its record, and a call on any of them is a
 * call on it. It has one descriptor when it becomes FRESH or IN_USE.
 *
 * conn_share(): one more is about to be made, by a caller with a call under way. False when the
 * last one is about to be closed. conn_unshare(): one has gone, and its slot with it; true when
 * it was the last, and the record is the caller's. conn_claim_last(): the caller is about to
 * close one; true when it is the last, which cannot be duplicated from then on. */
COLD bool conn_share(struct conn *conn);
bool conn_unshare(struct conn *conn);
bool conn_claim_last(struct conn *conn);

static inline bool conn_is_shared(const struct conn *conn)
{
    return atomic_load(&conn->fds) > 1;
}

/* From now on connect() says of CONN, which was lent, that it is connected. True when it was
 * said to be connecting up to here. */
bool conn_finish_connecting(struct conn *conn);

/* Makes CONN unpoolable for good; the first reason stays. */
COLD void conn_refuse(struct conn *conn, enum reason reason);

static inline enum reason conn_refusal(const struct conn *conn)
{
    return (enum reason)atomic_load_explicit(&conn->refusal, memory_order_relaxed);
}

/* Takes the right to change the guarded fields. Nobody waits for it: false, and CONN is refused
 * as CONCURRENT, when another thread (or the code under this signal handler) has it. */
bool conn_trylock(struct conn *conn);
void conn_unlock(struct conn *conn);

/* Calls VISIT for every record that is FRESH or IN_USE, in no order. */
COLD void conn_for_each_open(void (*visit)(struct conn *conn, int argument), int argument);

/* Whether the application has a connection on which it was not seen to send anything. */
COLD bool conn_any_silent(void);

/* Whether any connection but CONN is LEAVING or LENDING. */
COLD bool conn_others_in_transit(const struct conn *conn);

/* In the child of a fork, the only thread: the calls of other threads are gone for good. */
COLD void conn_forget_other_threads(void);

#endif
