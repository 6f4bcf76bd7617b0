/*
 * The pool's lock, for which no thread waits long, and the list of connections that lost their fds
 * while another thread had it (base/lock.c, pool/pool.c).
 *
 * Stands for lock_try(), lock_wait(), lock_give(), and for pool_note_lost() and pool_take_lost(). Each
 * thread takes the lock, changes what it guards and gives it back; a thread whose patience ends before
 * notes its loss instead. Each may fall asleep in the kernel and be woken there.
 *
 * Holds: no two threads are under the lock, and each sees what the one before it wrote; no thread
 * sleeps while the lock is free, but for its patience; and at the end no noted loss is left over, as
 * the thread that noted it or the one that had the lock has taken it out.
 *
 * Why: the swap that takes the lock acquires, the exchange that gives it back releases. A thread notes
 * its loss and then asks for the lock; the holder gives the lock back and then looks at the loss: all
 * four are SEQ_CST, so one of two threads sees the other. A thread that has slept cannot know whether
 * others do, and leaves WAITED in the word.
 *
 * Weakened:
 *   TAKE=RELAXED             the lock is taken
 *   GIVE=RELAXED             lock_give()
 *   GIVE=RELEASE             lock_give()
 *   NOTE_LOSS=RELEASE        pool_note_lost() writes
 *   LOOK_AT_LOSS=ACQUIRE     the holder looks at the loss after lock_give()
 *   LOOK_BEFORE_GIVE         the holder looks at the loss before lock_give()
 *   ASK_BEFORE_NOTE          pool_note_lost() asks for the lock before it notes the loss
 *   NO_WAITED                a thread that has slept takes the lock without WAITED
 */
#define LOCATIONS 3
#define VERSIONS  24

#include "memory.pml"

#define WORD  0
#define LOSS  1
#define UNDER 2 /* the lock; not atomic */

/* The word: the holder from 1, and above it the flags. */
#define HOLDER(word) ((word) & 3)
#define WAITED       4
#define STUCK        8
#define MYSELF       (me + 1)

#ifndef TAKE
#define TAKE SEQ_CST
#endif
#ifndef GIVE
#define GIVE SEQ_CST
#endif
#ifndef NOTE_LOSS
#define NOTE_LOSS SEQ_CST
#endif
#ifndef LOOK_AT_LOSS
#define LOOK_AT_LOSS SEQ_CST
#endif
#ifdef NO_WAITED
#define AS_ONE_WHO_WAITED 0
#else
#define AS_ONE_WHO_WAITED WAITED
#endif

byte changes;            /* of what the lock guards */
bool asleep[THREADS];
byte done;

/* futex(2): looks at the word as it is. A thread of which the model says that it is PATIENT has no
 * end of its wait. */
inline sleep(expected)
{
    atomic {
        if
        :: LAST(WORD) == (expected) -> asleep[me] = true
        :: else
        fi
    }
    if
    :: !asleep[me]
    :: !patient ->
        asleep[me] = false;
        over = true
    fi
}

inline wake_one()
{
    atomic {
        if
        :: asleep[0] -> asleep[0] = false
        :: asleep[1] -> asleep[1] = false
#if THREADS > 2
        :: asleep[2] -> asleep[2] = false
#endif
        :: else
        fi
    }
}

inline try()
{
    swap(WORD, TAKE, 0, MYSELF, ok)
}

/* GOT says whether. */
inline take()
{
    got = false;
    over = false;
    try();
    if
    :: ok ->
        got = true;
        goto taken
    :: else
    fi;
    load(WORD, SEQ_CST, word);
    if
    :: word & STUCK -> goto taken
    :: else
    fi;
    do
    :: if
        :: word == 0 -> wanted = MYSELF | AS_ONE_WHO_WAITED
        :: word != 0 && over -> wanted = word | WAITED | STUCK
        :: word != 0 && !over -> wanted = word | WAITED
        fi;
        ok = true;
        if
        :: wanted != word ->
            swap(WORD, TAKE, word, wanted, ok);
            if
            :: !ok -> load(WORD, SEQ_CST, word)
            :: else
            fi
        :: else
        fi;
        if
        :: ok && word == 0 ->
            got = true;
            break
        :: ok && word != 0 && over -> break
        :: ok && word != 0 && !over ->
            sleep(wanted);
            load(WORD, SEQ_CST, word)
        :: else
        fi
    od;
taken:
    wanted = 0;
    word = 0
}

inline give()
{
    modify(WORD, GIVE, 0, word);
    if
    :: word & WAITED -> wake_one()
    :: else
    fi;
    word = 0
}

inline change()
{
    load(UNDER, RELAXED, seen);
    assert(seen == changes);
    atomic {
        changes++;
        store(UNDER, RELAXED, changes)
    }
}

/* Once: what is lost while it is looked for is looked for again. */
inline catch_up()
{
    do
    :: load(LOSS, LOOK_AT_LOSS, seen);
        if
        :: seen == 0 -> break
        :: else
        fi;
        try();
        if
        :: !ok -> break
        :: else
        fi;
        modify(LOSS, SEQ_CST, 0, seen);
        give()
    od
}

proctype worker(byte me)
{
    byte pick, seen, word, wanted;
    bool ok, got, over, patient;

    if
    :: patient = true
    :: patient = false
    fi;
    take();
    if
    :: got ->
        change();
#ifdef LOOK_BEFORE_GIVE
        load(LOSS, LOOK_AT_LOSS, seen);
        give();
        if
        :: seen -> catch_up()
        :: else
        fi
#else
        give();
        catch_up()
#endif
    :: else ->
#ifdef ASK_BEFORE_NOTE
        try();
        store(LOSS, NOTE_LOSS, 1);
        if
        :: ok ->
            modify(LOSS, SEQ_CST, 0, seen);
            give()
        :: else
        fi
#else
        store(LOSS, NOTE_LOSS, 1);
        catch_up()
#endif
    fi;
    done++
}

init
{
    atomic {
        run worker(0);
        run worker(1);
#if THREADS > 2
        run worker(2);
#endif
        done == THREADS;
        assert(LAST(WORD) == 0);
        assert(LAST(LOSS) == 0)
    }
}
