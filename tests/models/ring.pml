/*
 * The proof that no entry of a ring went to the kernel unread (conn/ring.c).
 *
 * Stands for ring_enter_begin(), io_uring_enter(), ring_enter_end(), and all_seen(), which a check-in
 * asks. One thread submits two entries, one after the other, while another one asks. The third thread
 * submits as well, by the hook or by an instruction of its own that no hook sees.
 *
 * Holds: what is submitted by the hook alone, one thread at a time, is never taken for unread entries,
 * which would end pooling; and when all threads are done, an entry that the kernel took and that was
 * not read has been found, or all_seen() finds it.
 *
 * Why: TAKEN is what the kernel's count was when no call was under way, TAKING how many more entries
 * the call under way may take. Before the call TAKING rises, after it first TAKEN rises and then
 * TAKING falls. So a thread that finds too high a count in between, and then TAKING as it was, finds
 * TAKEN changed if it looks at TAKING first. Both are SEQ_CST.
 *
 * Weakened:
 *   LOOK_AT_TAKEN_FIRST      all_seen() looks again at TAKEN, and then at TAKING
 *   NO_SECOND_LOOK           all_seen() does not look again
 *   TAKING_FALLS_FIRST       ring_enter_end() writes TAKING, and then TAKEN
 *   TAKING_RISES_LATE        TAKING rises after the call
 *   NO_CHECK_AT_BEGIN        ring_enter_begin() takes any count for what was read
 *   NO_CHECK_AT_END          ring_enter_end() does not compare how much the kernel took
 *   COUNT=RELAXED            TAKEN and TAKING are written and read
 */
#define LOCATIONS 4
#define VERSIONS  10

#include "memory.pml"

#define TAKEN   0
#define TAKING  1
#define HEAD    2 /* the kernel's count of entries taken */
#define ENTERED 3 /* a thread is between the two functions */

#define ENTRIES 2 /* that the program has made, in the queue from the beginning */

#ifndef COUNT
#define COUNT SEQ_CST
#endif

bool was_read[ENTRIES + 1], was_taken[ENTRIES + 1];
bool ended; /* pooling, with the reason IO_URING */
bool alone = true; /* only one thread submits, by the hook */
byte done;

/* Up to COUNT entries, under a lock of the kernel. */
inline kernel_takes(count)
{
    atomic {
        if
        :: count > 0 && LAST(HEAD) < ENTRIES ->
            was_taken[LAST(HEAD)] = true;
            modify(HEAD, RELEASE, seen + 1, seen)
        :: else
        fi
    }
}

inline enter()
{
    count = 0;
    swap(ENTERED, SEQ_CST, 0, 1, ok);
    if
    :: !ok -> goto refuse
    :: else
    fi;
    load(HEAD, ACQUIRE, head);
#ifndef NO_CHECK_AT_BEGIN
    load(TAKEN, COUNT, seen);
    if
    :: head != seen -> goto refuse
    :: else
    fi;
#endif
    if
    :: head < ENTRIES ->
        count = 1;
        was_read[head] = true
    :: else
    fi;
#ifndef TAKING_RISES_LATE
    store(TAKING, COUNT, count);
#endif
    kernel_takes(count);
#ifdef TAKING_RISES_LATE
    store(TAKING, COUNT, count);
#endif
    load(HEAD, ACQUIRE, seen);
#ifndef NO_CHECK_AT_END
    if
    :: seen - head > count -> ended = true
    :: else
    fi;
#endif
#ifdef TAKING_FALLS_FIRST
    store(TAKING, COUNT, 0);
    store(TAKEN, COUNT, seen);
#else
    store(TAKEN, COUNT, seen);
    store(TAKING, COUNT, 0);
#endif
    store(ENTERED, SEQ_CST, 0)
}

proctype submitter(byte me)
{
    byte pick, seen, head, count;
    bool ok, again;

once_more:
    enter();
    if
    :: !again ->
        again = true;
        goto once_more
    :: else -> goto end
    fi;
refuse:
    /* The hook calls the kernel all the same. */
    ended = true;
    count = 1;
    kernel_takes(count);
end:
    done++
}

proctype unseen(byte me)
{
    byte pick, seen;

    kernel_takes(1);
    done++
}

inline look_again()
{
#ifdef NO_SECOND_LOOK
    same = true
#else
#ifdef LOOK_AT_TAKEN_FIRST
    load(TAKEN, COUNT, seen);
    same = seen == taken;
    load(TAKING, COUNT, seen);
    same = same && seen == taking
#else
    load(TAKING, COUNT, seen);
    same = seen == taking;
    load(TAKEN, COUNT, seen);
    same = same && seen == taken
#endif
#endif
}

inline ask()
{
    do
    :: load(TAKEN, COUNT, taken);
        load(TAKING, COUNT, taking);
        load(HEAD, ACQUIRE, head);
        if
        :: head >= taken && head - taken <= taking ->
            all_seen = true;
            break
        :: else
        fi;
        look_again();
        if
        :: same ->
            all_seen = false;
            break
        :: else
        fi
    od
}

proctype asker(byte me)
{
    byte pick, seen, taken, taking, head;
    bool same, all_seen;

    ask();
    assert(all_seen || !alone);
    if
    :: !all_seen -> ended = true
    :: else
    fi;
    done++
}

init
{
    atomic {
#if THREADS > 2
        if
        :: alone = false;
            if
            :: run submitter(2)
            :: run unseen(2)
            fi
        :: run asker(2)
        fi;
#endif
        run submitter(0);
        run asker(1);
        done == THREADS;
        if
        :: LAST(HEAD) == LAST(TAKEN) && LAST(TAKING) == 0 ->
            assert(ended || !was_taken[0] || was_read[0]);
            assert(ended || !was_taken[1] || was_read[1])
        :: else
        fi
    }
}
