/*
 * Check-in: the sequence by which a connection leaves the application and stays open, from
 * gates, disguise, map and pool. At close(), or at a goodbye, when the number stays open and a
 * stand-in takes the connection's place.
 *
 * These functions are called for numbers with a slot in the map. They take the pool's lock
 * inside and must be called without it. errno is kept.
 */
#ifndef MCPOOL_CHECKIN_H
#define MCPOOL_CHECKIN_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "conn/conn.h"
#include "base/unwind.h"

/* A check-in under way: the connection has a private number already, the application's number
 * is still open. It lives in the frame of the function that makes the real call: LEFT is
 * registered there until check_in_end() or check_in_call_off(). */
struct check_in {
    struct conn *conn;
    int fd;
    int shadow_fd;       /* -1 in a dry run, and where DUPLICATED */
    bool duplicated;     /* other fds name the connection, which stays with the application */
    bool forgotten;      /* the map has nothing of FD any more */
    enum reason refusal; /* why it is not kept, when it is not */
    uint32_t slot;
    uint64_t calls;
    unsigned int watched; /* epoll registrations that were taken off */
    msec_t now;
    struct _pthread_cleanup_buffer left;
};

/* FD, of which the map has said WORD, is about to be closed or replaced. True when its
 * connection is to be kept, or lives on in duplicates of FD: the caller then makes the real
 * call and must call check_in_end(). Until then the connection may not be kept by the close of
 * its last duplicate, as FD may still name it. If the real call never returns, because its
 * thread is cancelled in it or a signal handler jumps out of it, the connection is given up
 * (base/unwind.h). False when there is nothing to keep; FORGOTTEN then says whether FD was a
 * connection, and is forgotten. */
bool check_in_begin(struct check_in *check_in, int fd, uint32_t word);
void check_in_end(struct check_in *check_in);

/* Instead of check_in_end(), when the real call failed: the connection stays with the
 * application, untracked, and is registered in its epoll sets as it was. One that has
 * duplicates stays tracked and is not pooled. */
void check_in_call_off(struct check_in *check_in);

/* The application is done with the connection at FD, of which the map has said WORD, but not
 * with the number. One that has duplicates is left as it is. True when the
 * connection was checked in and STAND_IN, a socket that stays the caller's, took over its
 * number, its close-on-exec flag and its epoll registrations; FD is not tracked then. False
 * when FD is what it was, tracked only if the reason against may pass. */
bool check_in_behind(int fd, uint32_t word, int stand_in);

/* The other fds of a connection that something else has taken the place of. */
#define CHECK_IN_MOVED_MOST 8
struct check_in_moved {
    unsigned int count;
    int fds[CHECK_IN_MOVED_MOST];
};

/* STAND_IN takes the place of the connection at FD at its other fds, which go to MOVED and are
 * not tracked then. False when there are too many, or one could not be replaced; then MOVED has
 * those that were. */
COLD bool check_in_duplicates(int fd, uint32_t word, int stand_in,
                              struct check_in_moved *moved);

/* As check_in_behind(), and where the connection cannot be kept STAND_IN takes its place
 * nevertheless, which ends it. REASON_NONE, or why FD is what it was: IN_FLIGHT, another thread
 * makes a call on it; anything else, it could not be replaced. */
COLD enum reason check_in_swap(int fd, uint32_t word, int stand_in);

#endif
