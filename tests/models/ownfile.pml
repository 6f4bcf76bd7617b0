/*
 * Our own files, and forks of other threads (base/ownfile.c).
 *
 * Stands for the opening and the closing of one of our files, each with its note under the lock that
 * a fork holds as well, and for what the child does. One thread opens a file and closes it; the other
 * forks; the third does the one or the other. A fork copies the fds, and memory as it is.
 *
 * Holds: the child closes every fd of ours that it got, and no other; and it finds the lock free.
 *
 * Does not hold: where a thread's patience with the lock ends first, it goes on without it, and the
 * child may have an fd too many until it execs.
 *
 * Why: the lock is held while the fds and the notes differ, and by a thread in fork(). The child is
 * one thread: it gives the lock back by a store.
 *
 * Weakened:
 *   OPEN_WITHOUT_LOCK        a file is opened and noted without the lock
 *   CLOSE_WITHOUT_LOCK       a file is closed and its note taken away without the lock
 *   FORK_WITHOUT_LOCK        a fork does not take the lock
 *   KEEP_LOCK_IN_CHILD       the child does not give the lock back
 */
#define LOCATIONS 4
#define VERSIONS  14

#include "memory.pml"

#define WORD 0 /* of the lock */
#define NOTE 1 /* and the thread: 1 where its fd is noted */

/* The kernel's fds of ours, by the thread that opened them. */
bool is_open[THREADS];
byte done;

inline lock()
{
    do
    :: swap(WORD, SEQ_CST, 0, me + 1, ok);
        if
        :: ok -> break
        :: else
        fi
    od
}

inline unlock()
{
    modify(WORD, SEQ_CST, 0, seen)
}

proctype writer(byte me)
{
    byte pick, seen;
    bool ok;

#ifndef OPEN_WITHOUT_LOCK
    lock();
#endif
    is_open[me] = true;
    swap(NOTE + me, SEQ_CST, 0, 1, ok);
#ifndef OPEN_WITHOUT_LOCK
    unlock();
#endif
#ifndef CLOSE_WITHOUT_LOCK
    lock();
#endif
    swap(NOTE + me, SEQ_CST, 1, 0, ok);
    is_open[me] = false;
#ifndef CLOSE_WITHOUT_LOCK
    unlock();
#endif
    done++
}

/* The child begins with what memory and the table of fds are at this moment. */
inline fork()
{
    d_step {
#ifdef KEEP_LOCK_IN_CHILD
        assert(LAST(WORD) == 0);
#else
        assert(LAST(WORD) == 0 || LAST(WORD) == me + 1);
#endif
        for (each : 0 .. THREADS - 1) {
            assert(is_open[each] == LAST(NOTE + each))
        }
    }
}

proctype forker(byte me)
{
    byte pick, seen;
    bool ok;

#ifndef FORK_WITHOUT_LOCK
    lock();
#endif
    fork();
#ifndef FORK_WITHOUT_LOCK
    unlock();
#endif
    done++
}

init
{
    atomic {
        run writer(0);
        run forker(1);
#if THREADS > 2
        if
        :: run writer(2)
        :: run forker(2)
        fi;
#endif
        done == THREADS
    }
}
