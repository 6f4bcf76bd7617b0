/*
 * The record of a connection: got, put, closed, and used again (conn/conn.c).
 *
 * Stands for conn_get() and conn_put(), conn_move() to CLOSED, free_if_unused(), and conn_new(), and
 * for what their callers do to the word in the fd map. One thread closes the connection at an fd,
 * opens another one at the same fd, for which it gets the same record, and closes that. The others
 * each make one call on the fd.
 *
 * Holds: the record is not freed while a thread has it, it is freed once for each time that it was
 * closed, what its owner wrote before it went to the map is seen, and no closed record is forgotten.
 *
 * Why: a thread counts its call and then looks at the map; the closer empties the map and then looks
 * at the count. A thread ends its call and then looks at the state; the closer writes the state and
 * then looks at the count. Each of the four is SEQ_CST, so one of two threads sees the other. The
 * state CLOSED carries a generation, so that a thread which was slow to free the record of one
 * connection does not free that of the next.
 *
 * Weakened:
 *   COUNT_CALL=ACQ_REL       conn_get() counts its call
 *   SECOND_LOOK=ACQUIRE      conn_get() looks at the map again
 *   NO_SECOND_LOOK           conn_get() does not look again
 *   EMPTY_WORD=ACQ_REL       the closer empties the map
 *   WRITE_CLOSED=RELEASE     conn_move() to CLOSED
 *   LOOK_AT_CALLS=ACQUIRE    free_if_unused()
 *   END_CALL=ACQ_REL         conn_put() ends its call
 *   LOOK_AT_STATE=ACQUIRE    conn_put() looks at the state
 *   NO_GENERATION            free_if_unused() cannot tell one connection from the next
 *   PUBLISH=RELAXED          the record of the next connection goes to the map
 */
#define LOCATIONS 5
#define VERSIONS  10

#include "memory.pml"

#define WORD     0 /* of the fd in the map: NONE, NAMED or NAMED with CLOSING */
#define STATE    1
#define INFLIGHT 2 /* calls on the record */
#define FREE     3 /* the list of free records has it */
#define FIELD    4 /* of the record, not atomic: the generation it belongs to */

#define NONE    0
#define NAMED   2
#define CLOSING 1

/* The state. CLOSED has the generation of the record above it. */
#define STATE_FREE   0
#define STATE_OPEN   1
#define STATE_CLOSED 2
#define IS_CLOSED(state) (((state) & 3) == STATE_CLOSED)

#ifdef NO_GENERATION
#define GENERATION(n) 0
#else
#define GENERATION(n) ((n) << 2)
#endif

#ifndef COUNT_CALL
#define COUNT_CALL SEQ_CST
#endif
#ifndef SECOND_LOOK
#define SECOND_LOOK SEQ_CST
#endif
#ifndef END_CALL
#define END_CALL SEQ_CST
#endif
#ifndef LOOK_AT_STATE
#define LOOK_AT_STATE SEQ_CST
#endif
#ifndef WRITE_CLOSED
#define WRITE_CLOSED SEQ_CST
#endif
#ifndef LOOK_AT_CALLS
#define LOOK_AT_CALLS SEQ_CST
#endif
#ifndef EMPTY_WORD
#define EMPTY_WORD SEQ_CST
#endif
#ifndef PUBLISH
#define PUBLISH SEQ_CST
#endif

byte generation = 1; /* of the connection that the record is */
byte users;          /* threads that have got the record */
byte done;

/* The caller has read STATE_SEEN, which is CLOSED. */
inline free_if_unused(state_seen)
{
    load(INFLIGHT, LOOK_AT_CALLS, calls);
    if
    :: calls == 0 ->
        atomic {
            swap(STATE, SEQ_CST, state_seen, STATE_FREE, ok);
            if
            :: ok -> assert(users == 0)
            :: else
            fi
        }
        if
        :: ok ->
            modify(FREE, SEQ_CST, 1, seen);
            assert(seen == 0)
        :: else
        fi
    :: else
    fi
}

inline close_record()
{
    swap(WORD, SEQ_CST, NAMED, NAMED + CLOSING, ok);
    assert(ok);
    swap(WORD, EMPTY_WORD, NAMED + CLOSING, NONE, ok);
    store(STATE, WRITE_CLOSED, GENERATION(generation) + STATE_CLOSED);
    state = GENERATION(generation) + STATE_CLOSED;
    free_if_unused(state)
}

proctype closer(byte me)
{
    byte pick, calls, state, seen;
    bool ok;

    close_record();
    swap(FREE, SEQ_CST, 1, 0, ok);
    if
    :: ok ->
        atomic {
            generation++;
            store(FIELD, RELAXED, generation)
        }
        store(STATE, RELEASE, STATE_OPEN);
        modify(WORD, PUBLISH, NAMED, seen);
        close_record()
    :: else
    fi;
    done++
}

proctype caller(byte me)
{
    byte pick, calls, state, seen, word;
    bool ok;

    load(WORD, RELAXED, word);
    if
    :: word == NONE -> goto end
    :: else
    fi;
    modify(INFLIGHT, COUNT_CALL, seen + 1, seen);
#ifndef NO_SECOND_LOOK
    atomic {
        load(WORD, SECOND_LOOK, seen);
        if
        :: (seen | CLOSING) == (word | CLOSING) -> users++
        :: else -> goto put
        fi
    }
#else
    users++;
#endif
    load(FIELD, RELAXED, seen);
    assert(seen == generation);
    users--;
put:
    modify(INFLIGHT, END_CALL, seen - 1, seen);
    load(STATE, LOOK_AT_STATE, state);
    if
    :: IS_CLOSED(state) -> free_if_unused(state)
    :: else
    fi;
end:
    done++
}

init
{
    atomic {
        start(WORD, NAMED);
        start(STATE, STATE_OPEN);
        start(FIELD, 1);
        run closer(0);
        run caller(1);
#if THREADS > 2
        run caller(2);
#endif
        done == THREADS;
        assert(!IS_CLOSED(LAST(STATE)))
    }
}
