/*
 * A registration through a ring, while another thread closes the connection (conn/ring.c,
 * conn/conn.c, pool/checkin.c).
 *
 * Stands for ring_enter_begin() and ring_enter_end() around an EPOLL_CTL of one connection: it has a
 * call in flight (conn_get()) from before the kernel takes the entry until the registration is noted;
 * and for check_in_begin() and check_in_end(), which look whether a call is in flight, and at the
 * end whether one was begun meanwhile. The third thread makes another such call.
 *
 * Holds: no connection is kept that has a registration which was not taken off.
 *
 * Why: a call is counted before it can reach the kernel, and the check-in looks at the count once
 * more after the fd was closed: what is registered by then was counted by then. Both are SEQ_CST.
 * What a call noted is seen by the thread that sees its end: conn_put() releases, the look acquires.
 *
 * Weakened:
 *   COUNT_CALL=ACQ_REL       conn_get() counts its call
 *   END_CALL=RELAXED         conn_put()
 *   LOOK_AT_CALLS=RELAXED    the looks of the check-in
 *   LOOK_AT_CALLS=ACQUIRE    the looks of the check-in
 *   NO_LAST_LOOK             check_in_end() does not look whether a call was begun
 *   LOOK_BEFORE_CLOSE        check_in_end() looks before the fd is closed
 *   NOTE_AFTER_PUT           the registration is noted after conn_put()
 */
#define LOCATIONS 4
#define VERSIONS  8

#include "memory.pml"

#define WORD   0
#define CALLS  1 /* in flight, and above them those ever begun */
#define NOTED  2 /* registrations; not atomic */
#define LOCKED 3

#define NONE    0
#define NAMED   2
#define CLOSING 1

#define BEGUN        16
#define IN_FLIGHT(n) ((n) & 15)
#define EVER(n)      ((n) >> 4)

#ifndef COUNT_CALL
#define COUNT_CALL SEQ_CST
#endif
#ifndef END_CALL
#define END_CALL SEQ_CST
#endif
#ifndef LOOK_AT_CALLS
#define LOOK_AT_CALLS SEQ_CST
#endif

/* In the kernel. */
bool is_open = true; /* the fd of the program */
byte registered;     /* of the connection, at that fd */

bool refused, kept;
byte done;

inline note()
{
    modify(LOCKED, ACQUIRE, 1, seen);
    if
    :: seen == 0 ->
        load(NOTED, RELAXED, seen);
        store(NOTED, RELAXED, seen + 1);
        store(LOCKED, RELEASE, 0)
    :: else -> refused = true
    fi
}

inline put()
{
    modify(CALLS, END_CALL, seen - 1, seen)
}

proctype submitter(byte me)
{
    byte pick, word, seen;
    bool is_mine, is_there;

    load(WORD, RELAXED, word);
    if
    :: word == NONE -> goto end
    :: else
    fi;
    modify(CALLS, COUNT_CALL, seen + 1 + BEGUN, seen);
    load(WORD, SEQ_CST, seen);
    if
    :: seen == NONE ->
        put();
        goto end
    :: else
    fi;
    /* The kernel looks the fd up itself. */
    atomic {
        is_there = is_open;
        if
        :: is_there -> registered++
        :: else
        fi
    }
#ifdef NOTE_AFTER_PUT
    put();
#endif
    if
    :: is_there -> note()
    :: else
    fi;
#ifndef NOTE_AFTER_PUT
    put();
#endif
end:
    done++
}

proctype closer(byte me)
{
    byte pick, calls, seen;
    bool ok;

    swap(WORD, SEQ_CST, NAMED, NAMED + CLOSING, ok);
    load(CALLS, LOOK_AT_CALLS, calls);
    if
    :: refused || IN_FLIGHT(calls) != 0 -> goto end
    :: else
    fi;
    load(NOTED, RELAXED, seen);
    registered = registered - seen;
#ifdef LOOK_BEFORE_CLOSE
    load(CALLS, LOOK_AT_CALLS, seen);
    is_open = false;
    swap(WORD, SEQ_CST, NAMED + CLOSING, NONE, ok);
#else
    is_open = false;
    swap(WORD, SEQ_CST, NAMED + CLOSING, NONE, ok);
    load(CALLS, LOOK_AT_CALLS, seen);
#endif
#ifdef NO_LAST_LOOK
    kept = true;
#else
    kept = EVER(seen) == EVER(calls);
#endif
end:
    done++
}

init
{
    atomic {
        start(WORD, NAMED);
        run closer(0);
        run submitter(1);
#if THREADS > 2
        run submitter(2);
#endif
        done == THREADS;
        assert(!kept || refused || registered == 0)
    }
}
