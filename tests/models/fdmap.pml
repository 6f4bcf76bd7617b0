/*
 * The word of one fd in the fd map: the thread that replaces or empties it has the fd (conn/fdmap.c).
 *
 * Stands for check_out_begin() and check_out_end() (the fresh socket's word gets CLOSING, then names
 * the pooled connection), check_in_begin() and check_in_end() of close(), track_forget() and
 * track_forget_range(), and track_socket() at an fd that the kernel gives out again. One thread
 * connects the socket at the fd while another one closes it. The third thread closes it as well, or
 * closes it in bulk, or opens a socket that gets the fd once the kernel has it free.
 *
 * Holds: each record is given up once, by one thread, and only when the map does not name it any
 * more; and what was written to a record before it went to the map is seen by the thread that finds
 * it there.
 *
 * Why: the word is changed by compare and swap from the value that was seen, so one of two threads
 * has it. A thread that has put CLOSING there, and lost the fd in the system call, finds another word
 * when it comes back and leaves that alone. A thread that puts the record of a new socket there gives
 * up the record that it finds, which another thread put there for the fd of before. The swap that puts
 * a record there releases, the swap that claims it acquires; the load before that may be RELAXED.
 *
 * Weakened:
 *   CLAIM_BY_STORE           the word is replaced without a comparison
 *   HAND_OVER_BY_STORE       check_out_end() puts its record there whatever it finds
 *   FORGET_CLOSING           track_forget() takes a word that has CLOSING
 *   KEEP_WHAT_WAS_THERE      track_socket() does not give up the record that it finds
 *   PUT_WORD=RELAXED         a record is put into the map
 *   SWAP_WORD=RELAXED        a record is taken from there
 */
#define LOCATIONS 4
#define VERSIONS  7

#include "memory.pml"

#define WORD  0
#define FIELD 0 /* and the record: a field of it, not atomic, that is 1 when it was written */

/* Words: NONE, or a record, with CLOSING or not. */
#define NONE    0
#define CLOSING 1
#define NAMES(record) ((record) << 1)
#define RECORD(word)  ((word) >> 1)

#define FRESH  1 /* the record of the socket at the fd */
#define POOLED 2 /* of the connection that takes its place */
#define LATER  3 /* of a socket that gets the fd afterwards */

#ifndef SWAP_WORD
#define SWAP_WORD SEQ_CST
#endif
#ifndef PUT_WORD
#define PUT_WORD SEQ_CST
#endif

bool is_open = true; /* the fd, in the kernel */
byte given_up[4];    /* how often, by record */
byte done;

/* The caller has the record and takes it off. */
inline give_up(record)
{
    d_step {
        given_up[record]++;
        assert(given_up[record] == 1 && RECORD(LAST(WORD)) != record)
    }
}

inline look_at_record(record)
{
    load(FIELD + (record), RELAXED, seen);
    assert(seen == 1)
}

/* Takes WORD, which is not CLOSING, from the map and puts NEW there. */
inline claim(new)
{
#ifdef CLAIM_BY_STORE
    ok = true;
    store(WORD, SWAP_WORD, new);
#else
    swap(WORD, SWAP_WORD, word, new, ok);
#endif
}

inline forget()
{
    load(WORD, SEQ_CST, word);
    if
#ifdef FORGET_CLOSING
    :: word != NONE ->
#else
    :: word != NONE && !(word & CLOSING) ->
#endif
        claim(NONE);
        if
        :: ok ->
            look_at_record(RECORD(word));
            give_up(RECORD(word))
        :: else
        fi
    :: else
    fi
}

inline hand_over()
{
    store(FIELD + POOLED, RELAXED, 1);
#ifdef HAND_OVER_BY_STORE
    store(WORD, PUT_WORD, NAMES(POOLED));
#else
    swap(WORD, PUT_WORD, word + CLOSING, NAMES(POOLED), ok);
    if
    :: !ok -> give_up(POOLED)
    :: else
    fi;
#endif
    give_up(RECORD(word))
}

proctype connecter(byte me)
{
    byte pick, word, seen;
    bool ok;

    load(WORD, RELAXED, word);
    if
    :: word != NONE && !(word & CLOSING) ->
        claim(word + CLOSING);
        if
        :: ok && RECORD(word) != POOLED ->
            look_at_record(RECORD(word));
            hand_over()
        :: else
        fi
    :: else
    fi;
    done++
}

inline close_fd()
{
    load(WORD, RELAXED, word);
    ok = false;
    if
    :: word != NONE && !(word & CLOSING) -> claim(word + CLOSING)
    :: else
    fi;
    if
    :: ok ->
        look_at_record(RECORD(word));
        is_open = false;
        swap(WORD, SWAP_WORD, word + CLOSING, NONE, ok);
        give_up(RECORD(word))
    :: else ->
        forget();
        is_open = false
    fi
}

inline close_in_bulk()
{
    forget();
    is_open = false
}

inline open_socket()
{
    is_open = true;
    forget();
    store(FIELD + LATER, RELAXED, 1);
    modify(WORD, PUT_WORD, NAMES(LATER), word);
#ifndef KEEP_WHAT_WAS_THERE
    if
    :: word != NONE && !(word & CLOSING) -> give_up(RECORD(word))
    :: else
    fi
#endif
}

proctype closer(byte me)
{
    byte pick, word, seen;
    bool ok;

    if
    :: close_fd()
    :: close_in_bulk()
    fi;
    done++
}

proctype third(byte me)
{
    byte pick, word, seen;
    bool ok;

    if
    :: close_fd()
    :: close_in_bulk()
    :: !is_open -> open_socket()
    fi;
    done++
}

init
{
    atomic {
        start(WORD, NAMES(FRESH));
        start(FIELD + FRESH, 1);
        run connecter(0);
        run closer(1);
#if THREADS > 2
        run third(2);
#endif
        done == THREADS;
        /* What the map names was not given up, and the rest was. */
        assert(!(LAST(WORD) & CLOSING));
        assert(LAST(WORD) == NAMES(FRESH) || given_up[FRESH] == 1);
        assert(LAST(WORD) == NAMES(POOLED) || given_up[POOLED] == LAST(FIELD + POOLED));
        assert(LAST(WORD) == NAMES(LATER) || given_up[LATER] == LAST(FIELD + LATER))
    }
}
