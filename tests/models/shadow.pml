/*
 * A bulk close, and the shadow fds that it may close (conn/shadow.c).
 *
 * Stands for bulk_close_begins() and bulk_close_ends(), shadow_make(), the walk over the fd map
 * before close_range(), and a check-in followed by a check-out of the connection X, which both use
 * X's shadow fd. One fd is followed. With two threads it is free at first: one makes a bulk close,
 * the other a shadow fd for the connection M. The third thread is the user of X, whose shadow fd it
 * is then, or a second bulk close.
 *
 * Holds: a shadow fd that the map names is open, so no fd of the program is taken for it later; and
 * no system call that is meant for X is made on the socket of M.
 *
 * Why: the maker puts the fd into the map and then looks whether a bulk close began; a bulk close
 * begins and then looks at the map. The user of X writes its state and then looks at the map; a bulk
 * close empties the map and ends, and the maker looks at the end and then at the states. All of it is
 * SEQ_CST, so in each pair one sees the other.
 *
 * Weakened:
 *   PUT_IN_MAP=RELEASE       shadow_make() puts the fd into the map
 *   LOOK_AT_BEGUN=ACQUIRE    shadow_make() looks whether a bulk close began
 *   LOOK_BEFORE_PUT          shadow_make() looks before it puts the fd there
 *   BEGIN=ACQ_REL            bulk_close_begins()
 *   BEGIN_AFTER_WALK         bulk_close_begins() is called after the walk over the map
 *   LOOK_AT_MAP=ACQUIRE      the walk reads the map
 *   EMPTY_WORD=ACQ_REL       the walk takes the fd from the map
 *   NO_WAIT_FOR_END          shadow_make() does not look whether all bulk closes have ended
 *   NO_WAIT_FOR_USERS        shadow_make() does not look at the states
 *   LOOK_AT_STATES=ACQUIRE   shadow_make() looks at the states
 *   WRITE_STATE=RELEASE      conn_move() to CHECKING_IN and CHECKING_OUT
 *   NO_LOOK_AT_CHECK_IN      the check-in does not look at the map before it uses the shadow fd
 *   NO_LOOK_AT_CHECK_OUT     the check-out does not look at the map
 */
#define LOCATIONS 5
#define VERSIONS  8

#include "memory.pml"

#define WORD  0 /* of the fd in the map */
#define BEGUN 1 /* bulk closes */
#define ENDED 2
#define OVER  3
#define STATE 4 /* of X */

/* Words. */
#define NONE    0
#define NAMES_X 1
#define NAMES_M 2

/* States. */
#define IDLE    0
#define PASSING 1 /* being checked in or out */

#ifndef WRITE_STATE
#define WRITE_STATE SEQ_CST
#endif
#ifndef LOOK_AT_STATES
#define LOOK_AT_STATES SEQ_CST
#endif
#ifndef LOOK_AT_MAP
#define LOOK_AT_MAP SEQ_CST
#endif
#ifndef BEGIN
#define BEGIN SEQ_CST
#endif
#ifndef LOOK_AT_BEGUN
#define LOOK_AT_BEGUN SEQ_CST
#endif
#ifndef PUT_IN_MAP
#define PUT_IN_MAP SEQ_CST
#endif
#ifndef EMPTY_WORD
#define EMPTY_WORD SEQ_CST
#endif

/* What the kernel has at the fd. */
mtype = { nothing, socket_of_x, duplicate_of_m, shadow_of_m };
mtype at_fd;

byte done;

inline close_in_bulk()
{
#ifdef BEGIN_AFTER_WALK
    walk_map();
    modify(BEGUN, BEGIN, seen + 1, seen);
#else
    modify(BEGUN, BEGIN, seen + 1, seen);
    walk_map();
#endif
    at_fd = nothing;
    modify(ENDED, SEQ_CST, seen + 1, seen)
}

inline walk_map()
{
    load(WORD, LOOK_AT_MAP, word);
    if
    :: word != NONE ->
        swap(WORD, EMPTY_WORD, word, NONE, ok);
        if
        :: ok -> at_fd = nothing
        :: else
        fi
    :: else
    fi
}

proctype bulk_closer(byte me)
{
    byte pick, seen, word;
    bool ok;

    close_in_bulk();
    done++
}

inline look_again()
{
    atomic {
        load(BEGUN, LOOK_AT_BEGUN, seen);
        if
        :: seen == begun && at_fd == duplicate_of_m -> at_fd = shadow_of_m
        :: else
        fi
    }
}

/* It takes the lowest fd, so that of the bulk close where that has closed it. */
proctype maker(byte me)
{
    byte pick, seen, begun;
    bool ok;

    load(BEGUN, SEQ_CST, begun);
    load(OVER, SEQ_CST, seen);
    if
    :: seen == begun -> goto make
    :: else
    fi;
#ifndef NO_WAIT_FOR_END
    load(ENDED, SEQ_CST, seen);
    if
    :: seen != begun -> goto end
    :: else
    fi;
#endif
#ifndef NO_WAIT_FOR_USERS
    load(STATE, LOOK_AT_STATES, seen);
    if
    :: seen == PASSING -> goto end
    :: else
    fi;
#endif
    store(OVER, SEQ_CST, begun);
make:
    atomic {
        if
        :: at_fd == nothing -> at_fd = duplicate_of_m
        :: else -> goto end
        fi
    }
#ifdef LOOK_BEFORE_PUT
    look_again();
    modify(WORD, PUT_IN_MAP, NAMES_M, ok);
#else
    modify(WORD, PUT_IN_MAP, NAMES_M, ok);
    look_again();
#endif
    if
    :: seen != begun ->
        swap(WORD, SEQ_CST, NAMES_M, NONE, ok);
        if
        :: ok && at_fd == duplicate_of_m -> at_fd = nothing
        :: else
        fi
    :: else
    fi;
end:
    done++
}

/* One use of X's shadow fd: a look at the bytes or the options, a fence, the dup3(). */
inline pass(looks)
{
    store(STATE, WRITE_STATE, PASSING);
    if
    :: looks -> load(WORD, SEQ_CST, word)
    :: else -> word = NAMES_X
    fi;
    if
    :: word == NAMES_X -> assert(at_fd != shadow_of_m)
    :: else
    fi;
    store(STATE, WRITE_STATE, IDLE)
}

proctype user(byte me)
{
    byte pick, word;

#ifdef NO_LOOK_AT_CHECK_IN
    pass(false);
#else
    pass(true);
#endif
#ifdef NO_LOOK_AT_CHECK_OUT
    pass(false);
#else
    pass(true);
#endif
    done++
}

init
{
    atomic {
        at_fd = nothing;
        run bulk_closer(0);
        run maker(1);
#if THREADS > 2
        if
        :: run bulk_closer(2)
        :: start(WORD, NAMES_X);
            at_fd = socket_of_x;
            run user(2)
        fi;
#endif
        done == THREADS;
        assert(LAST(WORD) != NAMES_M || at_fd == shadow_of_m)
    }
}
