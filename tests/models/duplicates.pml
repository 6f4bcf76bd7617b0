/*
 * Duplicates of a connection and its epoll registrations (hooks/track.c, conn/epoll_reg.c).
 *
 * Stands for track_share(), which counts one more fd and then looks at the registrations, and
 * track_epoll_ctl(), which notes a registration and then looks at the count; both with conn_trylock()
 * around the registrations. The third thread duplicates as well, or registers with another set.
 *
 * Holds: a connection that has both is refused. (An epoll set goes on reporting a closed fd for as
 * long as another fd names the socket.)
 *
 * Why: each of two threads does its own half before it looks for the other's. The lock orders them:
 * its exchange acquires, its store releases. A thread that does not get the lock refuses the
 * connection.
 *
 * Weakened:
 *   LOCK=RELAXED             conn_trylock()
 *   UNLOCK=RELAXED           conn_unlock()
 *   LOOK_BEFORE_COUNT        the duplicate is counted after the look at the registrations
 *   LOOK_BEFORE_NOTE         the registration is noted after the look at the count
 */
#define LOCATIONS 4
#define VERSIONS  7

#include "memory.pml"

#define FDS     0 /* that name the connection */
#define LOCKED  1
#define NOTED   2 /* registrations; not atomic */
#define REFUSED 3

#ifndef LOCK
#define LOCK ACQUIRE
#endif
#ifndef UNLOCK
#define UNLOCK RELEASE
#endif

bool registered; /* in the kernel */
byte done;

inline refuse()
{
    swap(REFUSED, SEQ_CST, 0, 1, ok)
}

inline lock()
{
    modify(LOCKED, LOCK, 1, seen);
    got = seen == 0;
    if
    :: !got -> refuse()
    :: else
    fi
}

inline look_at_registrations()
{
    lock();
    if
    :: got ->
        load(NOTED, RELAXED, seen);
        store(LOCKED, UNLOCK, 0);
        if
        :: seen > 0 -> refuse()
        :: else
        fi
    :: else
    fi
}

inline count_fd()
{
    modify(FDS, SEQ_CST, seen + 1, seen)
}

inline share()
{
#ifdef LOOK_BEFORE_COUNT
    look_at_registrations();
    count_fd()
#else
    count_fd();
    look_at_registrations()
#endif
}

inline note()
{
    lock();
    if
    :: got ->
        load(NOTED, RELAXED, seen);
        store(NOTED, RELAXED, seen + 1);
        store(LOCKED, UNLOCK, 0)
    :: else
    fi
}

inline look_at_fds()
{
    load(FDS, SEQ_CST, seen);
    if
    :: seen > 1 -> refuse()
    :: else
    fi
}

inline register()
{
    registered = true;
#ifdef LOOK_BEFORE_NOTE
    look_at_fds();
    note()
#else
    note();
    look_at_fds()
#endif
}

proctype sharer(byte me)
{
    byte pick, seen;
    bool ok, got;

    share();
    done++
}

proctype watcher(byte me)
{
    byte pick, seen;
    bool ok, got;

    register();
    done++
}

init
{
    atomic {
        start(FDS, 1);
        run sharer(0);
        run watcher(1);
#if THREADS > 2
        if
        :: run sharer(2)
        :: run watcher(2)
        fi;
#endif
        done == THREADS;
        assert(LAST(REFUSED) || !registered || LAST(FDS) == 1)
    }
}
