/*
 * The memory that the models share: C11 atomics as threads can observe them.
 *
 * A store that waits in its processor's store buffer and a load that is satisfied early have one
 * effect: a thread reads an old value. So a location keeps its versions, in the order in which they
 * were written, and each thread has, for each location, the oldest version that it may still read.
 *
 *   RELAXED  reads any version from there on; what is written tells its reader nothing.
 *   ACQUIRE  the same, and the reader knows from then on what the writer knew, if that released.
 *   RELEASE  a write whose reader, if it acquires, knows what the writer knew.
 *   ACQ_REL  both, of a read-modify-write.
 *   SEQ_CST  both; and it reads no version older than the last SEQ_CST write of the same location.
 *            It is no fence: a weaker load of another location may still be satisfied before it.
 *
 * A read-modify-write reads the last version. This is weaker than x86-64, where a locked instruction
 * empties the store buffer, and weaker than aarch64, where ldar waits for an stlr before it. Not in
 * the model: a load that is satisfied from a store which comes later in its own thread's future, and
 * writes of one location that reach memory in another order than they were made. A field that is no
 * atomic is a RELAXED one.
 *
 * A model defines LOCATIONS, VERSIONS and THREADS, includes this, and gives its processes a local
 * `byte me`. Every operation is one step of its thread. What is not a location is not part of the
 * program: it is what the kernel has, or what only the checker knows.
 */
#define RELAXED 0
#define ACQUIRE 1
#define RELEASE 2
#define ACQ_REL 3
#define SEQ_CST 7

typedef version {
    byte value;
    byte known[LOCATIONS]; /* what a thread that acquires it knows */
}

typedef location {
    version at[VERSIONS];
    byte last;    /* version */
    byte ordered; /* the last version that was written with SEQ_CST */
}

typedef thread {
    byte oldest[LOCATIONS]; /* that it may read */
}

location memory[LOCATIONS];
thread threads[THREADS];
hidden byte each;

#define OLDEST(x)    threads[me].oldest[x]
#define LAST(x)      memory[x].at[memory[x].last].value
#define acquires(o)  ((o) & ACQUIRE)
#define releases(o)  ((o) & RELEASE)

/* The version PICK of X was read. */
inline learn(x, order)
{
    OLDEST(x) = pick;
    if
    :: acquires(order) ->
        for (each : 0 .. LOCATIONS - 1) {
            if
            :: memory[x].at[pick].known[each] > OLDEST(each) ->
                OLDEST(each) = memory[x].at[pick].known[each]
            :: else
            fi
        }
    :: else
    fi
}

/* KEEPS: a read-modify-write, whose reader also learns what the reader of the version before does. */
inline append(x, order, new, keeps)
{
    assert(memory[x].last + 1 < VERSIONS);
    memory[x].last++;
    OLDEST(x) = memory[x].last;
    memory[x].at[memory[x].last].value = new;
    for (each : 0 .. LOCATIONS - 1) {
        if
        :: keeps ->
            memory[x].at[memory[x].last].known[each] =
                memory[x].at[memory[x].last - 1].known[each]
        :: else
        fi;
        if
        :: releases(order) && OLDEST(each) > memory[x].at[memory[x].last].known[each] ->
            memory[x].at[memory[x].last].known[each] = OLDEST(each)
        :: else
        fi
    }
    memory[x].at[memory[x].last].known[x] = memory[x].last;
    if
    :: order == SEQ_CST -> memory[x].ordered = memory[x].last
    :: else
    fi
}

inline choose(x, order)
{
    pick = OLDEST(x);
    if
    :: order == SEQ_CST && memory[x].ordered > pick -> pick = memory[x].ordered
    :: else
    fi;
    do
    :: pick < memory[x].last -> pick++
    :: break
    od;
    skip /* spin lets no loop end at a d_step */
}

inline load(x, order, into)
{
    atomic {
        choose(x, order);
        d_step {
            learn(x, order);
            into = memory[x].at[pick].value;
            pick = 0
        }
    }
}

inline store(x, order, new)
{
    d_step {
        append(x, order, new, false)
    }
}

/* NEW may be an expression of OLD. */
inline modify(x, order, new, old)
{
    d_step {
        pick = memory[x].last;
        learn(x, order);
        old = memory[x].at[pick].value;
        append(x, order, new, true);
        pick = 0
    }
}

/* The strong compare and swap; OK says whether it did. One that fails is a load, maybe of an old
 * version. */
inline swap(x, order, expected, new, ok)
{
    atomic {
        choose(x, order);
        d_step {
            if
            :: memory[x].at[pick].value == (expected) -> pick = memory[x].last
            :: else
            fi;
            learn(x, order);
            ok = memory[x].at[pick].value == (expected);
            if
            :: ok -> append(x, order, new, true)
            :: else
            fi;
            pick = 0
        }
    }
}

#define start(x, new) memory[x].at[0].value = new
